"""What people said of pairs. The last word on a pair holds until it is taken back; nothing is ever deleted."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from sosie.errors import TerminalError, UnknownListing
from sosie.lake import Lake
from sosie.pairs import ordered
from sosie.tables import JUDGEMENTS, LISTINGS, PAIRS

VERDICTS = ("same", "different")


def judge(lake: Lake, one: str, other: str, verdict: str, who: str, note: str | None = None) -> tuple[str, str]:
    """Record a judgement. Raises `UnknownListing` for an id that the lake doesn't hold."""
    pair = ordered(one, other)
    judge_all(lake, [pair], verdict, who, note)
    return pair


def judge_all(lake: Lake, pairs: Iterable[tuple[str, str]], verdict: str, who: str, note: str | None = None) -> None:
    """Record one verdict of many ordered pairs, all or none. Raises as `judge`."""
    if verdict not in VERDICTS:
        raise TerminalError(f"Received verdict {verdict!r}. Valid values are {', '.join(VERDICTS)}.")
    pairs = list(dict.fromkeys(pairs))
    wanted = sorted({listing for pair in pairs for listing in pair})
    known = set(lake.lookup(LISTINGS, "listing_id", wanted, columns=["listing_id"])["listing_id"])
    if missing := [listing for listing in wanted if listing not in known]:
        raise UnknownListing(f"No listing {' and no listing '.join(map(repr, missing))} in {lake.uri}; check the id.")
    said = {"verdict": verdict, "who": who, "when": datetime.now(UTC), "note": note, "retracted_at": None}
    rows = [{"left_id": left, "right_id": right, **said} for left, right in pairs]
    lake.append(JUDGEMENTS, pl.DataFrame(rows, schema=JUDGEMENTS.schema))


def said_of(judged: pl.DataFrame, left: str, right: str) -> dict[str, Any] | None:
    """Of judgements that stand, the one of an ordered pair, as tables.JUDGEMENTS; None where there is none."""
    held = judged.filter(pl.col("left_id") == left, pl.col("right_id") == right)
    return held.row(0, named=True) if held.height else None


def retract_act(lake: Lake, who: str, when: datetime) -> None:
    """Take back all that was said in one act, as a split says of many pairs, at once.

    It stays in the table; what was said of the pairs before it holds again.
    """
    held = lake.read(JUDGEMENTS, pl.col("who") == who, pl.col("when") == when)
    if held.is_empty():
        raise TerminalError(f"{who} made no judgement at {when}.")
    stands = held.filter(pl.col("retracted_at").is_null())
    lake.upsert(JUDGEMENTS, stands.with_columns(retracted_at=pl.lit(datetime.now(UTC))))


def standing(lake: Lake) -> pl.DataFrame:
    """The last judgement of each pair that was not taken back, as tables.JUDGEMENTS, by pair."""
    return (
        lake.scan(JUDGEMENTS)
        .filter(pl.col("retracted_at").is_null())
        .sort("when", "who")
        .unique(["left_id", "right_id"], keep="last", maintain_order=True)
        .sort("left_id", "right_id")
        .collect()
    )


def active(lake: Lake) -> pl.DataFrame:
    """left_id, right_id, verdict: the last judgement of each pair that was not taken back."""
    return standing(lake).select("left_id", "right_id", "verdict")


def waiting(lake: Lake) -> pl.DataFrame:
    """left_id, right_id of the pairs that wait for a person: unsure, and not judged."""
    unsure = lake.read(PAIRS, pl.col("verdict") == "review", columns=["left_id", "right_id"])
    return unsure.join(active(lake), on=["left_id", "right_id"], how="anti")
