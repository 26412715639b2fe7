"""What people said of pairs. The last word on a pair holds until it is taken back; nothing is ever deleted."""

from datetime import UTC, datetime

import polars as pl

from sosie.errors import TerminalError, UnknownListing
from sosie.lake import Lake
from sosie.tables import JUDGEMENTS, LISTINGS, PAIRS

VERDICTS = ("same", "different")


def ordered(one: str, other: str) -> tuple[str, str]:
    """The pair as every table holds it. Raises `TerminalError` for a listing with itself."""
    if one == other:
        raise TerminalError(f"A pair needs two listings; {one!r} was given twice.")
    return min(one, other), max(one, other)


def judge(lake: Lake, one: str, other: str, verdict: str, who: str, note: str | None = None) -> tuple[str, str]:
    """Record a judgement. Raises `UnknownListing` for an id that the lake doesn't hold."""
    if verdict not in VERDICTS:
        raise TerminalError(f"Received verdict {verdict!r}. Valid values are {', '.join(VERDICTS)}.")
    left, right = ordered(one, other)
    known = set(lake.lookup(LISTINGS, "listing_id", [left, right], columns=["listing_id"])["listing_id"])
    if missing := [listing for listing in (left, right) if listing not in known]:
        raise UnknownListing(f"No listing {' and no listing '.join(map(repr, missing))} in {lake.uri}; check the id.")
    row = {"left_id": left, "right_id": right, "verdict": verdict, "who": who, "when": datetime.now(UTC), "note": note}
    lake.append(JUDGEMENTS, pl.DataFrame([{**row, "retracted_at": None}], schema=JUDGEMENTS.schema))
    return left, right


def active(lake: Lake) -> pl.DataFrame:
    """left_id, right_id, verdict: the last judgement of each pair that was not taken back."""
    return (
        lake.scan(JUDGEMENTS)
        .filter(pl.col("retracted_at").is_null())
        .sort("when", "who")
        .unique(["left_id", "right_id"], keep="last", maintain_order=True)
        .select("left_id", "right_id", "verdict")
        .sort("left_id", "right_id")
        .collect()
    )


def waiting(lake: Lake) -> pl.DataFrame:
    """left_id, right_id of the pairs that wait for a person: unsure, and not judged."""
    unsure = lake.read(PAIRS, pl.col("verdict") == "review", columns=["left_id", "right_id"])
    return unsure.join(active(lake), on=["left_id", "right_id"], how="anti")
