"""Which listing a person wants to stand for its cluster. The newest choice among a cluster's members holds."""

from datetime import UTC, datetime

import polars as pl

from sosie.errors import UnknownListing
from sosie.lake import Lake
from sosie.tables import CANONICAL_CHOICES, LISTINGS


def choose(lake: Lake, listing_id: str, who: str) -> None:
    """Prefer this listing in whatever cluster it is. Raises `UnknownListing`."""
    if lake.lookup(LISTINGS, "listing_id", [listing_id], columns=["listing_id"]).is_empty():
        raise UnknownListing(f"No listing {listing_id!r} in {lake.uri}; check the id.")
    row = {"listing_id": listing_id, "who": who, "when": datetime.now(UTC)}
    lake.append(CANONICAL_CHOICES, pl.DataFrame([row], schema=CANONICAL_CHOICES.schema))


def chosen(lake: Lake) -> dict[str, datetime]:
    """When each listing was last chosen."""
    rows = lake.scan(CANONICAL_CHOICES).group_by("listing_id").agg(pl.col("when").max()).collect()
    return dict(rows.iter_rows())


def unheeded(lake: Lake, held: pl.DataFrame) -> pl.Series:
    """Chosen listings that don't stand for their cluster yet; `held` has rows of tables.CLUSTERS."""
    when = pl.DataFrame(
        list(chosen(lake).items()), schema={"listing_id": pl.String, "when": pl.Datetime("us", "UTC")}, orient="row"
    )
    newest = held.join(when, on="listing_id").sort("when", "listing_id").unique("cluster_id", keep="last")
    return newest.filter(pl.col("canonical_id") != pl.col("listing_id"))["listing_id"].sort()
