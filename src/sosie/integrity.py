"""Whether a lake has lost a table: one that is not there reads as an empty one, and an empty catalogue would spread."""

from sosie.errors import TerminalError
from sosie.lake import Lake
from sosie.tables import (
    CLUSTER_EVENTS,
    CLUSTERS,
    DECISIONS,
    IMAGE_EMBEDDINGS,
    LISTINGS,
    NEIGHBOURS,
    PAIRS,
    TEXT_EMBEDDINGS,
    Table,
)

MADE_OF: tuple[tuple[Table, tuple[Table, ...]], ...] = (
    (LISTINGS, (TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS, NEIGHBOURS, PAIRS, CLUSTERS, DECISIONS)),
    (CLUSTERS, (CLUSTER_EVENTS,)),
)
"""A table, and those that runs make of it: where one of these has rows, it was there too.

`pairs` is not among them: a catalogue without one has clusters as soon as somebody judges two listings the same.
"""


def lost(lake: Lake) -> list[Table]:
    """Tables that are gone while others that were made of them are there."""
    return [
        table
        for table, made in MADE_OF
        if lake.version(table) < 0 and any(lake.scan(other).head(1).collect().height for other in made)
    ]


def check(lake: Lake) -> None:
    """Raises `TerminalError` where a table is gone: whoever goes on would take a lost catalogue for an empty one."""
    if gone := lost(lake):
        names = ", ".join(table.name for table in gone)
        raise TerminalError(
            f"Table {names} is gone from {lake.uri}, while what was made of it is there. Nothing was changed. "
            "Restore its folder from a backup."
        )
