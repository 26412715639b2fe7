"""Judged pairs on disk: a folder that has all that is needed to learn from them.

pairs.parquet      left_id, right_id, label (True: the same product), group
listings.parquet   both ends of every pair: the feed's columns and image_hash, as they were when exported
around.parquet     left_id, right_id, first_score: other pairs of these listings, as the live decider saw them
pictures/          small copies of their pictures, as the lake holds them
about.json         catalogue: live listings of the lake; and what the export tells
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from sosie.errors import DatasetError
from sosie.tables import FEED

Part = Literal["learn", "held"]

PAIRS = pl.Schema({"left_id": pl.String, "right_id": pl.String, "label": pl.Boolean, "group": pl.String})
AROUND = pl.Schema({"left_id": pl.String, "right_id": pl.String, "first_score": pl.Float64})
LISTINGS = pl.Schema({**FEED, "image_hash": pl.String})
PICTURES = "pictures"


@dataclass(frozen=True)
class Judged:
    """Frames as the files of a folder have them."""

    pairs: pl.DataFrame
    listings: pl.DataFrame
    around: pl.DataFrame
    about: Mapping[str, Any]

    @classmethod
    def none(cls) -> "Judged":
        return cls(PAIRS.to_frame(), LISTINGS.to_frame(), AROUND.to_frame(), {"catalogue": 0})

    @classmethod
    def read(cls, folder: Path) -> "Judged":
        """No judgement where there is no such folder. Raises `DatasetError` where what is in it can't be read."""
        if not folder.is_dir():
            return cls.none()
        try:
            pairs, listings, around = (
                pl.read_parquet(folder / f"{name}.parquet") for name in ("pairs", "listings", "around")
            )
            about = json.loads((folder / "about.json").read_text())
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise DatasetError(
                f"{folder} holds damaged judgements ({error}); remove it, then run `sosie judgements export` again."
            ) from None
        return cls(pairs, listings, around, about)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pairs", "listings", "around"):
            getattr(self, name).write_parquet(folder / f"{name}.parquet")
        (folder / "about.json").write_text(json.dumps(self.about, indent=2, sort_keys=True) + "\n")

    def of(self, pairs: pl.DataFrame) -> "Judged":
        """The same with some of the pairs, and with what belongs to their listings."""
        ids = pl.concat([pairs["left_id"], pairs["right_id"].alias("left_id")]).unique().implode()
        touching = pl.col("left_id").is_in(ids) | pl.col("right_id").is_in(ids)
        listings = self.listings.filter(pl.col("listing_id").is_in(ids))
        return Judged(pairs, listings, self.around.filter(touching), {"catalogue": self.about["catalogue"]})
