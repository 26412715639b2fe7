"""Which pairs people are asked of, beside the most valuable ones: those that a decider learns most from, and a few at
random among those that it is sure of, so that what it is sure of can be measured.

Everything here is a function of frames, and the same pairs give the same answer: "at random" is by a digest of a pair's
ids, which has nothing to do with what the pair is like.
"""

import hashlib
import math
from dataclasses import dataclass

import polars as pl

from sosie.tables import SIDES

MATCH_FROM, OTHER_TO = 0.9, 0.1
"""First scores from which on, and up to which, a decider is sure of a pair by its two listings alone."""

CERTAIN = 0.05
"""A pair nearer than this to 0 or 1 teaches little."""


@dataclass(frozen=True)
class Shares:
    """Of all that is asked: pairs to learn from; pairs at random of which a decider is sure, half of them matches."""

    learning: float
    random: float


def uncertainty(score: pl.Expr) -> pl.Expr:
    """Closeness of a probability to a coin's toss: 4·p·(1 - p)."""
    return 4 * score * (1 - score)


def to_learn(pairs: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """Unjudged pairs that are not certain, the best to learn from first: uncertain ones, of kinds seldom judged.

    `pairs` has left_id, right_id, score, `kind` (pairs alike in what they teach) and `one`, `other` (what a second pair
    of which would tell the same: the two clusters). A pair's worth is its uncertainty, over one more than the better
    pairs between the same two clusters, over one more than the judged and the better pairs of its kind: what a greedy
    choice would take next, pair by pair. `judged` has left_id, right_id.
    """
    known = pairs.join(judged, on=SIDES, how="semi").group_by("kind").agg(judged=pl.len())
    worst_last = [True, False, False]
    return (
        pairs.filter(pl.col("score").is_between(CERTAIN, 1 - CERTAIN))
        .join(judged, on=SIDES, how="anti")
        .with_columns(worth=uncertainty(pl.col("score")))
        .sort("worth", *SIDES, descending=worst_last)
        .with_columns(worth=pl.col("worth") / (1 + pl.int_range(pl.len()).over("one", "other")))
        .sort("worth", *SIDES, descending=worst_last)
        .join(known, on="kind", how="left", maintain_order="left")
        .with_columns(worth=pl.col("worth") / (1 + pl.col("judged").fill_null(0) + pl.int_range(pl.len()).over("kind")))
        .sort("worth", *SIDES, descending=worst_last)
        .drop("judged")
    )


def lot(pairs: pl.DataFrame) -> pl.Series:
    """A number from 0 to 1 for each pair, uniform, from its ids alone."""
    both = pairs.select(pl.concat_str(SIDES, separator="\0").cast(pl.Binary)).to_series()
    drawn = [int.from_bytes(hashlib.blake2b(ids, digest_size=6).digest(), "big") / 2**48 for ids in both]
    return pl.Series("lot", drawn, dtype=pl.Float64)


def sure(pairs: pl.DataFrame, *, matches: bool) -> pl.DataFrame:
    """Pairs (with first_score) of which a decider is sure that they match, or that they don't, by lot."""
    banded = pairs.filter(pl.col("first_score") >= MATCH_FROM if matches else pl.col("first_score") <= OTHER_TO)
    return banded.with_columns(lot(banded)).sort("lot", *SIDES)


def mixed(
    queue: pl.DataFrame, learning: pl.DataFrame, matches: pl.DataFrame, others: pl.DataFrame, shares: Shares
) -> pl.DataFrame:
    """left_id, right_id, sampled: the queue, its share of pairs to learn from and to measure by spread in it evenly.

    All are in order and have left_id, right_id; `matches` and `others` are sure pairs by lot. A pair of the queue that
    is to be learnt from comes once, as that. Shares are of all that is asked, samples included, as far as there are
    enough of each kind. Nothing is sampled where nothing waits.
    """
    if queue.is_empty():
        return queue.select(*SIDES, sampled=pl.lit(False))
    # One to learn from that waits anyway takes a place of the queue; any other one makes the whole larger, and so the
    # number that are to be learnt from.
    waits = queue.select(*SIDES, waits=pl.lit(True))
    added = pl.col("waits").is_null().cum_sum()
    share = shares.learning / (1 - shares.random)  # of all but pairs by lot
    taught = (
        learning.select(SIDES)
        .join(waits, on=SIDES, how="left", maintain_order="left")
        .filter(pl.int_range(1, pl.len() + 1) - 0.5 <= share * (queue.height + added))
        .select(SIDES)
    )
    rest = queue.select(SIDES).join(taught, on=SIDES, how="anti", maintain_order="left")
    asked = pl.concat([rest, taught])
    drawn = asked.height * shares.random / (1 - shares.random)
    chance = [
        each.select(SIDES).join(asked, on=SIDES, how="anti", maintain_order="left").head(round(drawn / 2))
        for each in (matches, others)
    ]
    streams = [(rest, False), (taught, True), *((each, True) for each in chance)]
    spread = [
        each.with_columns(
            at=(pl.int_range(pl.len()) + 0.5) / max(each.height, 1), stream=pl.lit(number), sampled=pl.lit(sampled)
        )
        for number, (each, sampled) in enumerate(streams)
    ]
    return pl.concat(spread).sort("at", "stream").unique(SIDES, keep="first", maintain_order=True).drop("at", "stream")


@dataclass(frozen=True)
class Estimate:
    """How many of `judged` sure pairs people found to be the same, and the 95 % interval of that share (Wilson)."""

    judged: int
    same: int
    low: float
    high: float


def estimate(drawn: pl.DataFrame, judged: pl.DataFrame) -> Estimate | None:
    """Of sure pairs by lot (`sure`), from what people said (left_id, right_id, verdict); None where that says nothing.

    Only pairs count before whose lot every other one is judged too: those are a random sample, however they came to be
    asked. What somebody picked out counts from when the lot has come to it.
    """
    said = drawn.sort("lot").join(judged.select(*SIDES, "verdict"), on=SIDES, how="left", maintain_order="left")
    open_ = said["verdict"].is_null().arg_true()
    sample = said.head(int(open_[0]) if len(open_) else said.height)
    if sample.is_empty():
        return None
    same = int((sample["verdict"] == "same").sum())
    return Estimate(sample.height, same, *wilson(same, sample.height))


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Interval of a share (Wilson 1927) that holds it 19 times in 20, for `of` > 0."""
    share, z = hits / of, 1.96
    middle, spread = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - spread) / (1 + z * z / of)), min(1.0, (middle + spread) / (1 + z * z / of))
