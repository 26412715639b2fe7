"""Quarantined rows sent through the pipeline again: they land as a file that the next run takes like any other.

Worth it after whatever refused them was mended: a rule, a setting, a picture's server. A row of another form than its
header is left where it is: nobody knows which of its fields is which, and it could pass for a good one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import structlog

from sosie.errors import SettingsError, TerminalError
from sosie.lake import Lake, Written
from sosie.landing.casting import FAULT, text_of
from sosie.settings import Settings
from sosie.tables import FEED, FEED_REQUIRED, QUARANTINE, RUNS

log = structlog.get_logger("sosie")

_NAME = re.compile(r"[^A-Za-z0-9_]+")

FILE = r"^(?P<hour>[^/]+)/replay-(?P<rule>[A-Za-z0-9_-]+)-\d+\.csv$"
"""Paths of such files below the landing folder."""


_WELL_FORMED = pl.col("row").str.json_path_match(f"$.{FAULT}").is_null()


@dataclass(frozen=True)
class Replay:
    """`file` lies below the landing folder; `waiting` until a run has taken it."""

    file: str
    waiting: bool


def replays(settings: Settings, run_id: str, rule: str) -> list[Replay]:
    """What was landed again of one rule's rows of an hour, oldest first, also where a run's file was cleared away."""
    name = f"replay-{_NAME.sub('-', rule)}-"
    found = (settings.landing / run_id).glob(f"{name}[0-9]*.csv")
    there = {path.relative_to(settings.landing).as_posix() for path in found}
    runs = Lake(settings.lake_uri).scan(RUNS).explode("files").select(pl.col("files").struct.field("path", "rows"))
    known = runs.filter(pl.col("path").str.starts_with(f"{run_id}/{name}")).collect()
    taken = set(known.filter(pl.col("rows") > 0)["path"])  # of a refused file no row was taken
    paths = sorted(there.union(known["path"]), key=lambda path: (len(path), path))
    return [Replay(path, waiting=path in there - taken) for path in paths]


def replay(settings: Settings, run_id: str, rule: str) -> tuple[Replay, int]:
    """Land the rows that broke `rule` in the hour `run_id` and were not replayed; returns the file and their number.

    Raises `TerminalError` where there are none, or none that is well formed, or where they were landed and no run has
    taken them yet, and `SettingsError` where there is no landing folder.
    """
    if not settings.landing.is_dir():
        raise SettingsError(
            f"There is no landing folder {settings.landing}; name the one that runs take files from "
            "(--landing, or SOSIE_LANDING)."
        )
    done = replays(settings, run_id, rule)
    if done and done[-1].waiting:
        raise TerminalError(f"{settings.landing / done[-1].file} holds these rows already and waits for the next run.")
    asked = pl.col("run_id") == run_id, pl.col("rule") == rule, pl.col("replayed_run").is_null()
    rows = Lake(settings.lake_uri).read(QUARANTINE, *asked)
    rows = rows.unique(["source_file", "row_number"]).sort("source_file", "row_number")
    if rows.is_empty():
        raise TerminalError(
            f"Nothing of hour {run_id!r} that was not replayed is in quarantine by the rule {rule!r}; `sosie replay` "
            "lists what is."
        )
    came = [json.loads(row) for row in rows.filter(_WELL_FORMED)["row"]]
    if not came:
        fault = f"{rows['source_file'][0]}: {json.loads(rows['row'][0])[FAULT]}"
        raise TerminalError(
            f"No row of hour {run_id!r} that broke the rule {rule!r} can be landed again, as none has the form of its "
            f"header ({fault}). Have them sent anew: nobody knows which of their fields is which."
        )
    if left := rows.height - len(came):
        log.warning("rows stay in quarantine that have another form than their header; have them sent anew", rows=left)
    given = [name for name in FEED if name in FEED_REQUIRED or any(row.get(name) is not None for row in came)]
    text = pl.DataFrame(
        [{name: text_of(name, row.get(name)) for name in given} for row in came], schema=dict.fromkeys(given, pl.String)
    )
    folder: Path = settings.landing / run_id
    folder.mkdir(parents=True, exist_ok=True)
    number = int(Path(done[-1].file).stem.rpartition("-")[2]) + 1 if done else 1
    file = folder / f"replay-{_NAME.sub('-', rule)}-{number}.csv"
    part = file.with_suffix(".part")
    text.write_csv(part)
    part.replace(file)
    return Replay(file.relative_to(settings.landing).as_posix(), waiting=True), len(came)


def waiting(lake: Lake) -> pl.DataFrame:
    """run_id, rule, rows: what lies in quarantine and no run took again, by hour and rule."""
    return (
        lake.scan(QUARANTINE)
        .filter(pl.col("replayed_run").is_null())
        .group_by("run_id", "rule")
        .agg(rows=pl.struct("source_file", "row_number").n_unique())
        .sort("run_id", "rule")
        .collect()
    )


def heed(lake: Lake, files: Mapping[str, pl.Series], run_id: str) -> Written:
    """Note in quarantine which run took its rows again. `files`: path of a landing file → JSON of each of its rows.

    Files that are no replay are passed. What was refused again, out of such a file, is a row of its own, and waits.
    """
    replays = {path: found for path in files if (found := re.match(FILE, path))}
    if not replays:
        return Written(0)
    again = pl.DataFrame(
        [(found["hour"], found["rule"], _said(row)) for path, found in replays.items() for row in files[path]],
        schema=dict.fromkeys(("hour", "rule", "said"), pl.String),
        orient="row",
    )
    rows = lake.read(QUARANTINE, pl.col("run_id").is_in(again["hour"].unique().implode()), _WELL_FORMED)
    rows = rows.filter(~pl.col("source_file").is_in(list(replays))).with_columns(
        slug=pl.col("rule").str.replace_all(_NAME.pattern, "-"),
        said=pl.col("row").map_elements(_said, return_dtype=pl.String),
    )
    taken = rows.join(again, left_on=["run_id", "slug", "said"], right_on=["hour", "rule", "said"], how="semi")
    taken = taken.select(*QUARANTINE.columns).with_columns(replayed_run=pl.lit(run_id))
    return lake.upsert(QUARANTINE, taken, run_id=run_id)


def _said(row: str) -> str:
    """What a row says, alike for the JSON of the row as it came and of the same row landed again."""
    came = json.loads(row)
    return json.dumps({name: text for name in FEED if (text := text_of(name, came.get(name)))})
