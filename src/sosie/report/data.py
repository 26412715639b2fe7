"""What a report shows, gathered before a word of it is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from sosie.lake import Lake
from sosie.report.counts import Counts
from sosie.tables import LISTINGS

TREND = pl.Schema(
    {
        "run_id": pl.String,
        "changed": pl.Int64,
        "match": pl.Int64,
        "review": pl.Int64,
        "quarantined": pl.Int64,
        "seconds": pl.Float64,
    }
)
"""One row a run, oldest first, this run last."""


@dataclass(frozen=True)
class Listing:
    """A listing as a reader meets it. `picture` is an encoded thumbnail, for a page that carries it inside."""

    listing_id: str
    title: str = ""
    seller_id: str | None = None
    marketplace: str | None = None
    brand: str | None = None
    gtin: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None
    is_deleted: bool = False
    image_hash: str | None = None
    picture: bytes | None = None


def listings(lake: Lake, ids: Iterable[str]) -> dict[str, Listing]:
    """Each of `ids`, without its picture; one that the lake does not hold appears by its id alone."""
    found = {listing_id: Listing(listing_id) for listing_id in ids}
    columns = [name for name in Listing.__dataclass_fields__ if name != "picture"]
    for row in lake.lookup(LISTINGS, "listing_id", list(found), columns=columns).iter_rows(named=True):
        found[row["listing_id"]] = Listing(**{**row, "title": row["title"] or ""})
    return found


@dataclass(frozen=True)
class Reason:
    """A pair feature, what it was, and what it added to (or took from) the log-odds of a match."""

    feature: str
    value: float | None
    contribution: float


@dataclass(frozen=True)
class Pair:
    left: Listing
    right: Listing
    score: float
    verdict: str
    reasons: tuple[Reason, ...] = ()
    blocked_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """A cluster that this run touched. `members` begins with the canonical one and is cut; `size` is the whole."""

    cluster_id: str
    kinds: tuple[str, ...]  # formed, grew, shrank, merged, split, dissolved
    size: int
    canonical_id: str | None
    members: tuple[Listing, ...]
    joined: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()  # the clusters it was merged from or split into


@dataclass(frozen=True)
class QuarantinedRow:
    source_file: str
    row_number: int
    detail: str
    listing_id: str | None
    row: str


@dataclass(frozen=True)
class BrokenRule:
    rule: str
    rows: int
    examples: tuple[QuarantinedRow, ...]


@dataclass(frozen=True)
class ReportData:
    """All of one report. `score_bins[i]` counts this run's (match, review) pairs in the i-th of equal bins over 0…1."""

    manifest: Mapping[str, Any]
    pairs: tuple[Pair, ...] = ()
    pairs_found: Mapping[str, int] = field(default_factory=dict)  # by verdict, those with a new verdict or score
    clusters: tuple[Cluster, ...] = ()
    clusters_found: int = 0
    broken_rules: tuple[BrokenRule, ...] = ()
    score_bins: tuple[tuple[int, int], ...] = ()
    trend: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TREND))
    data_docs: str | None = None

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    @property
    def counts(self) -> Counts:
        return Counts(self.manifest)
