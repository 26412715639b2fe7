"""What every labelled dataset is read into."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from sosie.tables import FEED

UPDATED_AT = datetime(2000, 1, 1, tzinfo=UTC)
"""Stands where a dataset has no time of its own."""

PAIRS = pl.Schema({"left_id": pl.String, "right_id": pl.String, "label": pl.Boolean, "part": pl.String})
TRUTH = pl.Schema({"listing_id": pl.String, "group": pl.String})


@dataclass(frozen=True)
class Dataset:
    """Listings with the truth about them.

    `listings` has the feed's columns, titles as they came. `truth` has one row a listing (listing_id, group); it is
    empty where the truth is `pairs` (left_id, right_id, label, part of train/valid/test) instead.
    Relative `image_uri` are relative to `root`.
    """

    name: str
    shape: str
    listings: pl.DataFrame
    truth: pl.DataFrame
    pairs: pl.DataFrame
    root: Path

    @property
    def has_groups(self) -> bool:
        return not self.truth.is_empty()


def feed(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with every column of the feed, in its order and types; what is absent is null."""
    fill = {"updated_at": pl.lit(UPDATED_AT), "is_deleted": pl.lit(False)}
    return rows.select(
        (pl.col(name) if name in rows.columns else fill.get(name, pl.lit(None))).cast(dtype).alias(name)
        for name, dtype in FEED.items()
    )
