"""Whether a lake has lost a table: one that is not there reads as an empty one, and that would spread."""

from collections.abc import Sequence

import polars as pl

from sosie.errors import TerminalError
from sosie.lake import Lake
from sosie.tables import (
    CLUSTERS,
    DECISIONS,
    IMAGE_EMBEDDINGS,
    LISTINGS,
    NEIGHBOURS,
    PAIRS,
    RUNS,
    TEXT_EMBEDDINGS,
    Table,
)

MADE_OF_LISTINGS = (TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS, NEIGHBOURS, PAIRS, CLUSTERS, DECISIONS)
"""Where one of these has rows, `listings` was there before: it is the first that an hour writes.

Of no other table can that be said. People make clusters where there are no pairs, and an hour that died has told of
clusters that it had not written yet.
"""


def lost(lake: Lake) -> Table | None:
    """The table that is gone and that nothing else can be made again from: the catalogue, or clusters with their names.

    Pairs are not among those, as an hour decides them again (`without_pairs`).
    """
    if lake.version(LISTINGS) < 0 and any(lake.scan(made).head(1).collect().height for made in MADE_OF_LISTINGS):
        return LISTINGS
    return CLUSTERS if _gone(lake, CLUSTERS, "cluster", ["clusters"]) else None


def without_pairs(lake: Lake) -> bool:
    """Whether `pairs` is gone, and not just empty so far."""
    return _gone(lake, PAIRS, "match", ["match", "review"])


def check(lake: Lake) -> None:
    """Raises `TerminalError` where a table is lost: whoever goes on would take it for an empty one."""
    if table := lost(lake):
        raise TerminalError(f"{told(lake, table)} Nothing was changed. Restore its folder from a backup.")


def told(lake: Lake, table: Table) -> str:
    """In a sentence, that the table is lost."""
    return f"Table {table.name} is gone from {lake.uri}, while what was made of it is there."


def _gone(lake: Lake, table: Table, step: str, counts: Sequence[str]) -> bool:
    """Whether there is no table, while `step` of an hour that came to its end told of rows that it wrote there."""
    if lake.version(table) >= 0:
        return False
    hours = lake.read(RUNS, pl.col("state") == "succeeded", columns=["steps"])
    steps = hours.explode("steps").unnest("steps").filter(pl.col("name") == step)
    counted = steps.select("counts").explode("counts").unnest("counts")
    return not counted.filter(pl.col("name").is_in(counts), pl.col("value") > 0).is_empty()
