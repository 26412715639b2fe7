"""Whether a lake has lost its catalogue: a table that is not there reads as an empty one, and that would spread."""

from sosie.errors import TerminalError
from sosie.lake import Lake
from sosie.tables import CLUSTERS, DECISIONS, IMAGE_EMBEDDINGS, LISTINGS, NEIGHBOURS, PAIRS, TEXT_EMBEDDINGS

MADE_OF_LISTINGS = (TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS, NEIGHBOURS, PAIRS, CLUSTERS, DECISIONS)
"""Where one of these has rows, `listings` was there before: it is the first that an hour writes.

Of no other table can that be said. People make clusters where there are no pairs, and an hour that died has told of
clusters that it had not written yet.
"""


def lost(lake: Lake) -> bool:
    """Whether `listings` is gone while something that was made of it is there."""
    return lake.version(LISTINGS) < 0 and any(lake.scan(made).head(1).collect().height for made in MADE_OF_LISTINGS)


def check(lake: Lake) -> None:
    """Raises `TerminalError` where the catalogue is lost: whoever goes on would take it for an empty one."""
    if lost(lake):
        raise TerminalError(
            f"Table listings is gone from {lake.uri}, while what was made of it is there. Nothing was changed. "
            "Restore its folder from a backup."
        )
