"""The landing folder: which files a run takes, and their rows.

A run takes every file up to its hour that no other run has taken: after an outage one run catches up on several
hours, and an hour that is run again takes its own files again.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl
import structlog
from rapidfuzz import fuzz, process

from sosie import hours
from sosie.errors import BatchRejected, SettingsError, StoreBusy
from sosie.landing import casting, formats
from sosie.tables import FEED, FEED_REQUIRED

log = structlog.get_logger(__name__)

SUFFIXES = (".parquet", ".csv", ".csv.gz")
UNFINISHED = (".tmp", ".part", ".partial")
PICTURES = "pictures"
FAULTS = pl.List(pl.String)
_HOUR = re.compile(rf"(?<!\d){hours.PATTERN}(?!\d)")


@dataclass(frozen=True)
class LandingFile:
    """A file as it was found. `path` is relative to the landing folder, in POSIX form; `hour` is "YYYY-MM-DDTHH"."""

    path: str
    sha256: str
    bytes: int
    hour: str | None

    @property
    def key(self) -> str:
        """What says that a file was taken: where it lay, and what was in it."""
        return key(self.path, self.sha256)


def key(path: str, sha256: str) -> str:
    """The key of a file in `done`: the same path with other content is another file."""
    return f"{sha256}:{path}"


def hour_of(path: str) -> str | None:
    """The hour that a file's name, or else its nearest folder's, tells; None where neither tells one."""
    for part in reversed(PurePosixPath(path).parts):
        for found in _HOUR.findall(part):
            try:
                hours.start(found)
            except ValueError:
                continue
            return str(found)
    return None


def files(landing: Path, run_id: str, done: Mapping[str, str]) -> list[LandingFile]:
    """The files that run `run_id` takes, by hour and name; those of no hour come first.

    `done`: `key(path, sha256)` → the run that took the file. Below `landing`, everything in a `pictures` folder, and
    every name that begins with `.` or `_` (as writers mark what is unfinished), is passed over. Raises `SettingsError`
    where there is no such folder, and `StoreBusy` where something in it can't be read.
    """
    if not landing.is_dir():
        raise SettingsError(
            f"There is no landing folder {landing}; create it, or point SOSIE_LANDING at the right one."
        )
    root = landing.resolve()
    found = []
    try:
        for path in _walk(root):
            relative = path.relative_to(root).as_posix()
            hour = hour_of(relative)
            if hour is not None and hour > run_id:
                continue
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            file = LandingFile(relative, digest, path.stat().st_size, hour)
            if done.get(file.key, run_id) == run_id:
                found.append(file)
    except OSError as error:
        raise StoreBusy(
            f"The landing folder {landing} can't be read in full ({error}). "
            "Let this user read what is in it, then run the hour again."
        ) from error
    return sorted(found, key=lambda file: (file.hour or "", file.path))


def passed_over(landing: Path, run_id: str) -> list[str]:
    """What is of an hour under an ending that no feed has, and is finished: paths below `landing`.

    Nothing where a feed's file of that hour is there too, taken or not: what lies beside it may be a manifest of it.
    """
    root = landing.resolve()
    own = [path for path in _named(root) if hour_of(path.relative_to(root).as_posix()) == run_id]
    if any(path.name.lower().endswith(SUFFIXES) for path in own):
        return []
    strange = (path for path in own if not path.name.lower().endswith(UNFINISHED) and path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in strange)


def _named(root: Path) -> Iterator[Path]:
    """Everything below the landing folder that is no picture and no writer's mark."""
    for folder, inner, names in os.walk(root, onerror=_raise):  # does not follow links to folders
        inner[:] = [name for name in inner if name != PICTURES and not name.startswith((".", "_"))]
        yield from (Path(folder) / name for name in (*names, *inner) if not name.startswith((".", "_")))


def _walk(root: Path) -> Iterator[Path]:
    for path in _named(root):
        if path.is_dir():
            if path.is_symlink():
                _ignored(path, "links to folders are not followed")
        elif path.name.lower().endswith(SUFFIXES):
            if not path.resolve().is_relative_to(root):
                _ignored(path, "leaves the landing folder")
            elif path.is_file():
                yield path


def _ignored(link: Path, why: str) -> None:
    log.warning("landing_link_ignored", path=str(link), target=str(link.resolve()), why=why)


def _raise(error: OSError) -> None:
    raise error


def read(
    landing: Path, file: LandingFile, *, allow_extra_columns: bool = False, max_bytes: int | None = None
) -> pl.DataFrame:
    """All rows of a file: the feed's columns, cast leniently, plus `source_file`, `row_number`, `row`, `cast_faults`.

    `row_number` counts from 0 in the file's order; `row` is JSON of the row as it came; `cast_faults` lists
    "column: value" of what could not be cast. Raises `BatchRejected` where the file as a whole can't be trusted, or has
    more than `max_bytes`, packed or not, and `StoreBusy` where it is no longer the file that was found.
    """
    formats.check_size(file.bytes, file.path, max_bytes)
    try:
        data = (landing / file.path).read_bytes()
    except FileNotFoundError:
        raise StoreBusy(f"{file.path} is gone from {landing} since it was found; run the hour again.") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise StoreBusy(
            f"{file.path} changed after it was found: it is still being written. "
            "Run the hour again, and let the feed write to a name ending in .tmp and rename it when done."
        )
    raw = formats.parse(data, file.path, max_bytes)
    check_columns(raw, file.path, allow_extra_columns=allow_extra_columns)
    return (
        casting.cast(raw)
        .with_row_index("row_number")
        .select(
            *FEED,
            pl.lit(file.path).alias("source_file"),
            pl.col("row_number").cast(pl.Int64),
            "row",
            "cast_faults",
        )
    )


def empty() -> pl.DataFrame:
    """What `read` returns, with no row: an hour without a file."""
    return pl.DataFrame(
        schema={**FEED, "source_file": pl.String, "row_number": pl.Int64, "row": pl.String, "cast_faults": FAULTS}
    )


def check_columns(rows: pl.DataFrame, name: str, *, allow_extra_columns: bool = False) -> None:
    """Raises `BatchRejected` where a mandatory column is missing, or one is unknown or holds another kind of thing."""
    given = [column for column in rows.columns if column not in (casting.FAULT, casting.SURPLUS)]
    extra = [column for column in given if column not in FEED]
    missing = [column for column in FEED_REQUIRED if column not in given]
    hints = _hints(extra, missing or [column for column in FEED if column not in given])
    if missing:
        raise BatchRejected(
            f"{name} lacks the mandatory column{_s(missing)} {_listed(missing)}; it has {_listed(given)}."
            f"{hints} Add or rename what is missing and land the file again."
        )
    if extra and not allow_extra_columns:
        raise BatchRejected(
            f"{name} has {len(extra)} column{_s(extra)} that a feed does not have: {_listed(extra)}.{hints} "
            "If the schema grew on purpose, set validation.allow_extra_columns in params.yaml "
            "(SOSIE_VALIDATION__ALLOW_EXTRA_COLUMNS=true) and what is unknown is left out; "
            f"else take {'it' if len(extra) == 1 else 'them'} out of the file."
        )
    for column in given:
        wanted = casting.unfit(column, rows.schema[column]) if column in FEED else None
        if wanted:
            raise BatchRejected(
                f"{name}: column {column} holds {rows.schema[column]} in every row where {wanted} should be; "
                "map the feed's columns anew and land the file again."
            )


def _hints(extra: list[str], wanted: list[str]) -> str:
    near = {
        column: best[0]
        for column in extra
        if (best := process.extractOne(column, wanted, scorer=fuzz.ratio, processor=str.lower, score_cutoff=65))
    }
    return "".join(f" Is {column!r} meant to be {meant!r}?" for column, meant in near.items())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "no columns"


def _s(names: list[str]) -> str:
    return "" if len(names) == 1 else "s"
