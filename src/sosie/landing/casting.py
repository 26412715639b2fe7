"""Raw landing rows → the columns of a feed: what can be cast is cast, what can't is named and left null.

Sellers' exports differ in how they write the same thing: numbers as text, ids as floats, timestamps without a zone.
Here every such spelling has one meaning, so that the rules that follow see one type a column.
"""

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import polars.selectors as cs

from sosie.tables import FEED, TIMESTAMP

FAULT = "_fault"
"""Column of raw rows: what is wrong with a row's form, null where nothing is."""

SURPLUS = "_surplus"
"""Column of raw rows: JSON of the fields that a row has more than the header, null where it has none."""

MAX_SHOWN = 80
"""Characters of an offending value that are quoted."""

_EPOCH_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))  # below → per second; 1e11 s is the year 5138
_TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})
_GTIN_LENGTHS = (8, 12, 13, 14)

# Blank means missing here. In listing_id and title a blank stays, for a rule to name it.
_BLANK_IS_NULL = ("seller_id", "marketplace", "description", "brand")
# Codes and addresses: white space around them never means anything.
_STRIPPED = ("gtin", "category", "currency", "image_uri", "image_phash")


def unfit(column: str, dtype: pl.DataType) -> str | None:
    """What `column` should hold, where `dtype` can't be meant for it in any row (a vector as a title); else None."""
    number = dtype.is_numeric() or isinstance(dtype, pl.Decimal)
    text = isinstance(dtype, (pl.String, pl.Binary, pl.Categorical, pl.Enum, pl.Null))
    time = isinstance(dtype, (pl.Datetime, pl.Date))
    if column == "price":
        return None if number or text else "numbers"
    if column == "updated_at":
        return None if number or text or time else "timestamps"
    if column == "is_deleted":
        return None if number or text or isinstance(dtype, pl.Boolean) else "true or false"
    return None if number or text or time or isinstance(dtype, pl.Boolean) else "text"


def cast(raw: pl.DataFrame) -> pl.DataFrame:
    """Rows in the feed's columns (those missing in `raw` are null) plus `row` and `cast_faults`.

    `row`: JSON of the row as it came, extra columns included. `cast_faults`: list of "column: value" of what could not
    be cast. Naive timestamps are UTC; numbers as timestamps are seconds, milli-, micro- or nanoseconds since 1970 by
    their size; `is_deleted` is false where it is missing.
    """
    columns: dict[str, pl.Series] = {}
    faults: dict[str, pl.Series] = {}
    if FAULT in raw.columns:
        faults["row"] = raw.select(pl.concat_str(pl.lit("row: "), FAULT).alias("row"))["row"]
    for name, dtype in FEED.items():
        if name not in raw.columns:
            columns[name] = pl.Series(name, [None], dtype=dtype).new_from_index(0, raw.height)
            continue
        given = raw[name]
        text = _as_text(given)
        columns[name] = value = _CASTS.get(name, _to_text)(given, text).alias(name).cast(dtype)
        stated = text.str.strip_chars() != ""
        # Text that can't be decoded has no text form, yet something was stated.
        lost = pl.select(
            (stated.fill_null(False) | (given.is_not_null() & text.is_null())) & value.is_null()
        ).to_series()
        if name in ("listing_id", "title"):
            lost = given.is_not_null() & value.is_null()
        if lost.any():
            shown = pl.Series([_shown(item) if bad else None for item, bad in zip(given, lost, strict=True)])
            faults[name] = pl.select(pl.lit(f"{name}: ") + shown.cast(pl.String)).to_series().alias(name)
    frame = pl.DataFrame(columns).with_columns(
        pl.col("is_deleted").fill_null(False), _json(raw).alias("row"), pl.col("currency").str.to_uppercase()
    )
    if not faults:
        return frame.with_columns(cast_faults=pl.lit([], dtype=pl.List(pl.String)))
    listed = pl.DataFrame(faults).select(pl.concat_list(pl.all()).list.drop_nulls().alias("cast_faults"))
    return pl.concat([frame, listed], how="horizontal")


def text_of(column: str, value: object) -> str | None:
    """A value out of a row's JSON as text that casts to what the value did, as far as JSON tells what it was."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    if column == "gtin" and not isinstance(value, bool):
        return next((text.zfill(length) for length in _GTIN_LENGTHS if len(text) <= length), text)
    return text


def _shown(value: object) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _as_text(given: pl.Series) -> pl.Series:
    """Every value as text; null where it is null, or is bytes that aren't UTF-8. Whole floats lose their `.0`."""
    if isinstance(given.dtype, pl.Binary):
        return pl.Series(given.name, [_decoded(value) for value in given], dtype=pl.String)
    if given.dtype.is_float():
        whole = given.cast(pl.Int64, strict=False)
        exact = (given == given.floor()) & (given.abs() < 2**53)
        return pl.select(pl.when(exact).then(whole.cast(pl.String)).otherwise(given.cast(pl.String))).to_series()
    return given.cast(pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _to_text(given: pl.Series, text: pl.Series) -> pl.Series:
    if given.name in _BLANK_IS_NULL:
        return pl.select(pl.when(text.str.strip_chars() != "").then(text)).to_series()
    if given.name in _STRIPPED:
        stripped = text.str.strip_chars()
        return pl.select(pl.when(stripped != "").then(stripped)).to_series()
    return text


def _to_title(_: pl.Series, text: pl.Series) -> pl.Series:
    """Composed (NFC): a title that comes decomposed one day is the same title, and has the same exact key."""
    return text.str.normalize("NFC")


def _to_gtin(given: pl.Series, text: pl.Series) -> pl.Series:
    """Digits without separators; a number gets back the zeros that it lost at its front."""
    codes = _to_text(given, text).str.replace_all(r"[\s\-]", "")
    if not given.dtype.is_numeric():
        return codes
    padded = pl.coalesce(
        *(pl.when(codes.str.len_chars() <= length).then(codes.str.zfill(length)) for length in _GTIN_LENGTHS), codes
    )
    return pl.select(padded).to_series()


def _to_price(given: pl.Series, text: pl.Series) -> pl.Series:
    if given.dtype.is_numeric() or isinstance(given.dtype, pl.Decimal):
        return given.cast(pl.Float64)
    return text.str.strip_chars().cast(pl.Float64, strict=False)


def _to_boolean(given: pl.Series, text: pl.Series) -> pl.Series:
    if isinstance(given.dtype, pl.Boolean):
        return given
    words = text.str.strip_chars().str.to_lowercase()
    true, false = (words.is_in(list(known)) for known in (_TRUE, _FALSE))
    return pl.select(pl.when(true).then(True).when(false).then(False)).to_series()


def _to_timestamp(given: pl.Series, text: pl.Series) -> pl.Series:
    if isinstance(given.dtype, pl.Date):
        return given.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(given.dtype, pl.Datetime):
        zoned = given if given.dtype.time_zone else given.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return pl.Series(given.name, [_timestamp(value) for value in text], dtype=TIMESTAMP)


def _timestamp(text: str | None) -> datetime | None:
    """A point in time in UTC, out of ISO 8601 text or a count since 1970; None where it is neither."""
    if text is None or not (text := text.strip()):
        return None
    try:
        if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit() and len(text) >= 9:
            count = float(text)
            return datetime.fromtimestamp(count / next(per for below, per in _EPOCH_UNITS if count < below), UTC)
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


_CASTS: dict[str, Callable[[pl.Series, pl.Series], pl.Series]] = {
    "title": _to_title,
    "gtin": _to_gtin,
    "price": _to_price,
    "updated_at": _to_timestamp,
    "is_deleted": _to_boolean,
}


def _json(raw: pl.DataFrame) -> pl.Series:
    """JSON of each row. A fault of form is part of it, so that a replay can't pass the row for a good one."""
    if FAULT not in raw.columns:
        return _encoded(raw)
    formed = _encoded(raw.drop(FAULT, SURPLUS, strict=False))
    return pl.select(pl.when(raw[FAULT].is_null()).then(formed).otherwise(_encoded(raw)).alias("row")).to_series()


def _encoded(raw: pl.DataFrame) -> pl.Series:
    """JSON of each row. Numbers that JSON has no word for (NaN, infinities) are written as text, so none is lost."""
    plain = raw.select(
        column if _encodes(column.dtype) else pl.Series(column.name, [_plain(item) for item in column], dtype=pl.String)
        for column in raw
    )
    floats = [column.name for column in plain.select(cs.float()) if not column.is_finite().fill_null(True).all()]
    encoded = plain.select(pl.struct(pl.all()).struct.json_encode().alias("row"))["row"]
    if not floats:
        return encoded
    odd = ~pl.all_horizontal(pl.col(floats).is_finite().fill_null(True))
    texts = plain.with_columns(pl.col(floats).cast(pl.String))
    spelled = texts.select(pl.struct(pl.all()).struct.json_encode().alias("row"))["row"]
    return pl.select(pl.when(plain.select(odd).to_series()).then(spelled).otherwise(encoded).alias("row")).to_series()


def _encodes(dtype: pl.DataType) -> bool:
    return not dtype.is_nested() and not isinstance(dtype, (pl.Binary, pl.Object))


def _plain(item: Any) -> str | None:
    if item is None:
        return None
    if isinstance(item, bytes):
        return item.decode("utf-8", "backslashreplace")
    if isinstance(item, pl.Series):
        item = item.to_list()
    return json.dumps(item, ensure_ascii=False, default=_spelled)


def _spelled(item: object) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "backslashreplace")
    return item.isoformat() if isinstance(item, date) else str(item)
