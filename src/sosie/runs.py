"""What the lake knows of the hours before."""

from datetime import datetime

import polars as pl

from sosie.lake import Lake
from sosie.tables import RUNS


def last_end(lake: Lake) -> datetime | None:
    """When the last hour that succeeded was at its end: what was decided until then is published. None before any."""
    ended = lake.read(RUNS, pl.col("state") == "succeeded", columns=["finished_at"])["finished_at"].max()
    return ended if isinstance(ended, datetime) else None
