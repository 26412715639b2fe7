"""The clock, the disk, the folders, the lake and the feature store."""

import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import polars as pl

from sosie import integrity, tables
from sosie.doctor.finding import Finding, fault, fine, warning
from sosie.lake import Lake
from sosie.runs import last_end
from sosie.settings import Settings

GIB = 2**30
SAMPLE = 200


def clock(settings: Settings) -> Iterator[Finding]:
    """Runs are named and data is dated by this clock."""
    now = datetime.now(UTC)
    runs = Lake(settings.lake_uri).read(tables.RUNS, columns=["finished_at"])
    newest = runs["finished_at"].max()
    if isinstance(newest, datetime) and newest > now + timedelta(minutes=10):
        yield fault(
            "clock",
            f"This clock says {now:%Y-%m-%d %H:%M} UTC, but a run finished at {newest:%Y-%m-%d %H:%M}.",
            "Set the clock by NTP (`timedatectl set-ntp true`); hours would be run under wrong names.",
        )
    else:
        yield fine("clock", f"{now:%Y-%m-%d %H:%M} UTC")


def disk(settings: Settings, *, least: int = GIB, wanted: int = 10 * GIB) -> Iterator[Finding]:
    """Room where embedded stores, scratch and reports lie."""
    place = _nearest(settings.home)
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free at {place}"
    if free < least:
        yield fault("disk", detail, "Free some or move SOSIE_HOME; a full disk stops every run.")
    elif free < wanted:
        yield warning("disk", detail, "Free some soon, or move SOSIE_HOME to a larger disk.")
    else:
        yield fine("disk", detail)
    parts = (settings.home / name for name in ("feast", "milvus", "registry"))
    for folder in (settings.home, settings.reports, *(part for part in parts if part.exists())):
        yield from _writable("disk", folder)


def _writable(check: str, folder: Path) -> Iterator[Finding]:
    probe = folder / f".sosie-probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
        yield fine(check, f"{folder} can be written")
    except OSError as error:
        yield fault(
            check,
            f"{folder} can't be written ({error.strerror or error}).",
            f"Give this user the right to write {folder}.",
        )


def _nearest(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def landing(settings: Settings) -> Iterator[Finding]:
    folder = settings.landing
    if not folder.is_dir():
        yield fault(
            "landing", f"{folder} is no folder.", "Make it, or point SOSIE_LANDING at the folder that feeds write to."
        )
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield fault("landing", f"{folder} can't be read.", f"Give this user the right to read {folder}.")
        return
    hours = sorted(path.name for path in folder.glob("????-??-??T??") if path.is_dir())
    unread = [path for path in folder.glob("????-??-??T??/*") if not os.access(path, os.R_OK)]
    if not os.access(folder, os.W_OK):
        yield warning(
            "landing",
            f"{folder} can't be written, so nothing in quarantine can be replayed.",
            f"Give this user the right to write {folder}, where rows are to be replayed.",
        )
    if unread:
        yield fault("landing", f"{len(unread)} files can't be read, such as {unread[0]}.", "Let this user read them.")
    elif hours:
        yield fine("landing", f"{len(hours):,} hours, the newest {hours[-1]}")
    else:
        yield warning("landing", f"{folder} holds no hour.", "Have feeds write to <YYYY-MM-DDTHH>/ below it.")


def lake(settings: Settings) -> Iterator[Finding]:
    """Can be written, and every table can be read and has the columns that this program writes."""
    held, rows = Lake(settings.lake_uri), 0
    held.version(tables.RUNS)  # says in a sentence that an object store is out of reach; fsspec's clients don't
    fs, probe = fsspec.core.url_to_fs(held.below(f"_staging/.probe-{uuid.uuid4().hex}"))
    try:
        fs.makedirs(probe.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(probe, b"probe")
        fs.rm_file(probe)
    except OSError as error:
        yield fault(
            "lake",
            f"{settings.lake_uri} can't be written ({error.strerror or error}).",
            "Give this user the right to write it, or move it with SOSIE_LAKE_URI.",
        )
        return
    for table in tables.ALL:
        try:
            rows += held.scan(table).select(pl.len()).collect().item()
            held.scan(table).head(1).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            yield fault(
                "lake",
                f"Table {table.name} can't be read ({str(error).splitlines()[0]}).",
                "Restore its folder from a backup, or the columns it lacks by the upgrade guide.",
            )
            return
    if lost := integrity.lost(held):
        remedy = "Restore its folder from a backup; no hour runs and nothing is rebuilt until then."
        yield fault("lake", integrity.told(held, lost), remedy)
        return
    if integrity.without_pairs(held):
        remedy = "Restore its folder from a backup, or let the next hour decide all pairs again."
        yield warning("lake", integrity.told(held, tables.PAIRS), remedy)
    there = sum(held.version(table) >= 0 for table in tables.ALL)
    yield fine("lake", f"{there} of {len(tables.ALL)} tables, {rows:,} rows, at {settings.lake_uri}")


def features(settings: Settings) -> Iterator[Finding]:
    """Feast's registry is that of the definitions, and its online store answers as the lake says."""
    from sosie import features as feast
    from sosie.features import online

    held = Lake(settings.lake_uri)
    decided = held.scan(tables.DECISIONS).sort("event_timestamp", "created_timestamp")
    # What was decided since the last hour ended, as a veto is, may be told by now, and is by the next hour.
    end = pl.lit(last_end(held), dtype=tables.DECISIONS.columns["created_timestamp"])
    until = (pl.col("created_timestamp") <= end).fill_null(True)
    before, told = (
        rows.unique("listing_id", keep="last").select("listing_id", "is_duplicate", "canonical_id").sort("listing_id")
        for rows in pl.collect_all([decided.filter(until), decided])
    )
    feast.store(settings)  # the definitions can be read
    if told.is_empty():
        yield fine("features", "nothing was published yet")
        return
    if not feast.is_applied(settings):
        yield fault(
            "features",
            "Feast's registry is not there, or not that of the definitions and versions in use.",
            "Run an hour again: `publish_features` applies them.",
        )
        return
    if (kind := online.kind(feast.store(settings))) not in online.FORGETTING:
        yield warning(
            "features",
            f"Vectors of deleted listings stay in the online store, as it is {kind}.",
            "Let that store expire them, or take SQLite or Redis, which single rows can be taken out of.",
        )
    some = told.gather_every(max(1, told.height // SAMPLE))
    answered = feast.lookup(settings, some["listing_id"].to_list()).select(some.columns)
    unheard = told.join(before, on="listing_id", how="anti").with_columns(
        pl.lit(None, told.schema[name]).alias(name) for name in ("is_duplicate", "canonical_id")
    )
    wrong = answered.join(pl.concat([before, told, unheard]), on=some.columns, how="anti", nulls_equal=True)
    if wrong.is_empty():
        yield fine("features", f"{some.height:,} of {told.height:,} decisions asked for, all as the lake has them")
    else:
        yield fault(
            "features",
            f"The online store answers {wrong.height:,} of {some.height:,} listings otherwise than the lake, such as "
            f"{wrong['listing_id'][0]}.",
            "Run `sosie upkeep`, which mends it.",
        )
