"""What the lake knows of the hours before."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from sosie.lake import Lake
from sosie.tables import CHANGES, RUNS


def last_end(lake: Lake) -> datetime | None:
    """When the last hour that succeeded was at its end: what was decided until then is published. None before any.

    An hour that is run again was at its end before.
    """
    ended = lake.read(RUNS, pl.col("state").is_in(["succeeded", "running"]), columns=["finished_at"])
    last = ended["finished_at"].max()
    return last if isinstance(last, datetime) else None


def succeeded_before(lake: Lake, run_id: str, count: int, columns: Sequence[str] = tuple(RUNS.columns)) -> pl.DataFrame:
    """Rows of the last `count` hours before one that succeeded, oldest first."""
    hours = lake.scan(RUNS).filter(pl.col("run_id") < run_id, pl.col("state") == "succeeded")
    return hours.select(columns).sort("run_id").tail(count).collect()


def unfinished(lake: Lake) -> pl.LazyFrame:
    """Change sets of hours that have not come to their end, as tables.CHANGES."""
    done = lake.scan(RUNS).filter(pl.col("state") == "succeeded").select("run_id")
    return lake.scan(CHANGES).join(done, on="run_id", how="anti")
