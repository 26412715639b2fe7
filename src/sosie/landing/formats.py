"""Bytes of one landing file → raw rows, or one clear sentence about what the bytes are instead."""

import csv
import gzip
import io
import json
import sys
import zlib
from itertools import chain

import polars as pl
import polars.selectors as cs

from sosie.errors import BatchRejected
from sosie.landing.casting import FAULT, SURPLUS
from sosie.tables import FEED

_PARQUET = b"PAR1"
_LOOKS = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip file or Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"ORC", "an ORC file"),
    (b"Obj\x01", "an Avro file"),
    (b"ARROW1", "an Arrow IPC file"),
    (b"%PDF", "a PDF"),
)
_BOMS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))

_CHUNK = 2**20
_BYTES_A_VALUE = 8  # in memory, at least: a page of Parquet can say one value for any number of rows

csv.field_size_limit(sys.maxsize)  # a long description is no fault


def parse(data: bytes, name: str, max_bytes: int | None = None) -> pl.DataFrame:
    """Rows of a Parquet, CSV or gzipped CSV file, told apart by `name`. Raises `BatchRejected`.

    So too where the data takes more than `max_bytes` when it is unpacked, of which no more than that is unpacked then.

    Where a CSV row has more or fewer fields than the header, or a NUL character, the frame has the columns
    `casting.FAULT`, which says so, and `casting.SURPLUS`, the fields that are too many; both are null in the rows that
    are well-formed.
    """
    if not data:
        raise BatchRejected(f"{name} is empty (0 bytes); land the file again in full.")
    if name.lower().endswith(".parquet"):
        return _parquet(data, name, max_bytes)
    return _csv(_unzipped(data, name, max_bytes) if name.lower().endswith(".gz") else data, name)


def check_size(found: int, name: str, max_bytes: int | None) -> None:
    """Raises `BatchRejected` where a file has more bytes than it may have."""
    if max_bytes is not None and found > max_bytes:
        raise BatchRejected(
            f"{name} has more than {max_bytes:,} bytes, packed or unpacked (setting validation.max_file_bytes); land "
            "its rows in several files, or raise the setting where workers have the memory."
        )


def looks_like(data: bytes) -> str:
    """What a file's first bytes say that it is, for a message."""
    if data.startswith(_PARQUET):
        return "a Parquet file"
    for magic, words in _LOOKS:
        if data.startswith(magic):
            return words
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:5].lower() in (b"<html", b"<!doc"):
        return "an HTML page (often a log-in or error page that was saved in the file's place)"
    if head.startswith(b"<"):
        return "XML"
    if head[:1] in (b"{", b"["):
        return "JSON"
    try:
        line = head.decode("utf-8", "strict" if len(data) <= len(head) else "ignore").splitlines()[0]
    except (UnicodeDecodeError, IndexError):
        return f"neither text nor a known format (first bytes {data[:8].hex(' ')})"
    if not line.isprintable() and "\t" not in line:
        return f"neither text nor a known format (first bytes {data[:8].hex(' ')})"
    shown = line[:60] + ("…" if len(line) > 60 else "")
    return f"CSV with the header {shown!r}" if _delimiter(line) in line else f"plain text that begins {shown!r}"


def _parquet(data: bytes, name: str, max_bytes: int | None) -> pl.DataFrame:
    if not data.startswith(_PARQUET):
        raise BatchRejected(
            f"{name} is no Parquet file though so named: it looks like {looks_like(data)}; "
            "export it as Parquet, or give it the name of what it is."
        )
    if not data.endswith(_PARQUET) or len(data) < 12:
        raise BatchRejected(
            f"{name} is a truncated Parquet file: {len(data):,} bytes, and its closing mark is missing; "
            "land the file again in full."
        )
    try:
        check_size(_unpacked_bytes(data), name, max_bytes)
        rows = pl.read_parquet(io.BytesIO(data), hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BatchRejected(f"{name} is a damaged Parquet file ({cause}); land the file again.") from error
    if rows.is_empty():
        raise BatchRejected(f"{name} is empty (0 rows); leave the file out when an hour has no news.")
    check_size(_text_bytes(rows), name, max_bytes)
    return rows


def _unpacked_bytes(data: bytes) -> int:
    """What the columns of a Parquet file take in memory, by its footer."""
    from pyarrow import BufferReader
    from pyarrow.parquet import read_metadata

    footer = read_metadata(BufferReader(data))
    columns = (
        footer.row_group(group).column(place)
        for group in range(footer.num_row_groups)
        for place in range(footer.num_columns)
    )
    return sum(max(column.total_uncompressed_size, _BYTES_A_VALUE * column.num_values) for column in columns)


def _text_bytes(rows: pl.DataFrame) -> int:
    """What texts take once each row has its own: Parquet and Polars hold one for all rows that have it."""
    texts = rows.select(cs.by_dtype(pl.String, pl.Categorical, pl.Enum).cast(pl.String).str.len_bytes())
    return sum(int(column.cast(pl.UInt64).sum()) for column in texts)


def _unzipped(data: bytes, name: str, max_bytes: int | None) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        raise BatchRejected(
            f"{name} is no gzip file though so named: it looks like {looks_like(data)}; "
            "compress it, or give it the name of what it is."
        )
    chunks, unpacked = [], 0
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            while chunk := stream.read(_CHUNK):
                chunks.append(chunk)
                unpacked += len(chunk)
                check_size(unpacked, name, max_bytes)
        return b"".join(chunks)
    except (EOFError, OSError, zlib.error) as error:
        raise BatchRejected(
            f"{name} is a truncated or damaged gzip file ({error}); land the file again in full."
        ) from error


def _csv(data: bytes, name: str) -> pl.DataFrame:
    text = _text(data, name)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    # A line of nothing after the last one: a quote that is still open swallows it, else it is a record without fields.
    lines = chain(io.StringIO(text, newline=""), [""])
    reader = csv.reader(lines, delimiter=_delimiter(header))
    records: list[list[str]] = []
    faults: list[str | None] = []
    names: list[str] = []
    surplus: list[str | None] = []
    before = 0
    try:
        for fields in reader:
            line, before = before + 1, reader.line_num
            if not fields:
                continue
            if not names:
                names = _header(fields, name)
                continue
            fault = f"a NUL character (line {line})" if "\0" in "".join(fields) else None
            if len(fields) != len(names):
                fault = f"{len(fields)} fields where the header names {len(names)} (line {line})"
            records.append((fields + [""] * len(names))[: len(names)])
            surplus.append(json.dumps(fields[len(names) :], ensure_ascii=False) if len(fields) > len(names) else None)
            faults.append(fault)
    except csv.Error as error:
        raise BatchRejected(
            f"{name} can't be read as CSV near line {reader.line_num} ({error}); "
            "mend the quotes there and land the file again."
        ) from error
    if fields and (swallowed := before - line) > 1:  # a row that is cut off in its own line is put aside alone
        raise BatchRejected(
            f"{name}: a quote that opens in line {line} is never closed, which swallows all {swallowed:,} lines "
            "to the end of the file; close or double it and land the file again."
        )
    if not records:
        raise BatchRejected(f"{name} is empty (0 rows under its header); leave the file out when an hour has no news.")
    columns = {
        column: pl.Series(column, [value or None for value in values], dtype=pl.String)
        for column, values in zip(names, zip(*records, strict=True), strict=True)
    }
    if any(faults):
        columns[FAULT] = pl.Series(FAULT, faults, dtype=pl.String)
        columns[SURPLUS] = pl.Series(SURPLUS, surplus, dtype=pl.String)
    return pl.DataFrame(columns)


def _text(data: bytes, name: str) -> str:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            raise BatchRejected(f"{name} is written in {encoding}; export it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        known = looks_like(data)
        if not known.startswith(("CSV", "plain", "neither")):
            raise BatchRejected(f"{name} is no CSV file though so named: it looks like {known}.") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise BatchRejected(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} in line {line} can't be decoded; "
            "export it as UTF-8 (for Windows text: `iconv -f cp1252 -t utf-8`)."
        ) from error
    known = looks_like(data)
    if "\0" in text.split("\n", 1)[0] or not known.startswith(("CSV", "plain", "neither")):
        raise BatchRejected(f"{name} is no CSV file though so named: it looks like {known}.")
    if not text.strip():
        raise BatchRejected(f"{name} is empty (only white space); land the file again in full.")
    return text


def _delimiter(header: str) -> str:
    """The one of , ; tab | that splits the header into most columns that a feed has."""

    def known(mark: str) -> tuple[int, int]:
        parts = [part.strip(' "\r') for part in header.split(mark)]
        return len(FEED.keys() & set(parts)), len(parts)

    return max(",;\t|", key=known)


def _header(fields: list[str], name: str) -> list[str]:
    names = [field.strip() for field in fields]
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise BatchRejected(
            f"{name}: the header names {', '.join(repr(column) for column in twice)} more than once; "
            "name each column once."
        )
    return names
