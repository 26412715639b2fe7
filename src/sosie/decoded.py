"""Arrow copies of Parquet files, mapped into memory in place of decoding the files each time.

A copy takes its file's place only where that never changes, as those of Delta tables don't. All of them can be made
again, so whoever has no room may delete their folder.
"""

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import cast

import polars as pl
import structlog

log = structlog.get_logger("sosie")

_ABANDONED_SECONDS = 3_600
"""A copy that is being written for so long has nobody who writes it."""


def frame(file: str, folder: Path, columns: pl.Schema) -> pl.DataFrame:
    """The columns of a Parquet file, from its copy in `folder`, which is made where it is missing or has others.

    Where no copy can be written (no room, no right to) the file itself is read, and the log says so.
    """
    copy = _copy_of(file, folder)
    found = _whole(copy)
    return found if found is not None and found.schema == columns else _decoded(file, copy, columns)


def forget(folder: Path, files: Iterable[str]) -> None:
    """Delete the copies of all but these files, and what a writer that died left."""
    for copy in set(folder.glob("*")) - {_copy_of(file, folder) for file in files}:
        # Another process deletes as well, or this one has no right to and leaves it to one that has.
        with suppress(OSError):
            if copy.suffix != ".partial" or time.time() - copy.stat().st_mtime > _ABANDONED_SECONDS:
                copy.unlink()


def _copy_of(file: str, folder: Path) -> Path:
    return folder / f"{Path(file).stem}.arrow"


def _whole(copy: Path) -> pl.DataFrame | None:
    """None where it isn't there, can't be read, or is no Arrow file."""
    import pyarrow as pa

    try:
        return _mapped(copy) if copy.is_file() else None
    except (OSError, pa.ArrowException):
        return None


def _mapped(copy: Path) -> pl.DataFrame:
    import pyarrow as pa

    with pa.memory_map(str(copy)) as source:
        return cast(pl.DataFrame, pl.from_arrow(pa.ipc.open_file(source).read_all()))


def _decoded(file: str, copy: Path, columns: pl.Schema) -> pl.DataFrame:
    stored = pl.scan_parquet(file, hive_partitioning=False)
    there = stored.collect_schema()
    rows = stored.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(dtype).alias(name) for name, dtype in columns.items()
    ).collect()
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=copy.parent, suffix=".partial")
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                rows.write_ipc(stream, compression="uncompressed")
                stream.flush()
                os.fsync(handle)  # a power cut must not leave a copy whose name is there and whose rows aren't
            partial.chmod(0o644)
            found = _mapped(partial)  # before it has its name, by which others may delete it
            partial.replace(copy)
            return found
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a copy that spares decoding can't be written; make room or mend the rights", reason=str(error))
        return rows
