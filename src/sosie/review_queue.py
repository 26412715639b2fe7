"""What waits for a person, most valuable first.

Two kinds: pairs that the decider is not sure of, and matches whose two ends were not joined. Of the latter, one stands
for all matches between its two clusters, with the cause that kept them apart. Among them, a share of pairs is asked to
learn from and to measure by (`sosie.sampling`); who judges such a pair is told nothing of what is thought of it.
"""

import polars as pl

from sosie import sampling
from sosie.lake import Lake
from sosie.sampling import Shares
from sosie.tables import CLUSTERS, HELD_MERGES, LISTINGS, PAIRS, SIDES

CAUSES = {
    "unsure": "Unsure",
    "weak_link": "Weak link",
    "cluster_too_large": "Too large",
    "judged_different": "Judged apart",
    "sample": "Sample",
}
MEANING = {
    "unsure": "The decider is not sure of this pair.",
    "weak_link": "This pair matches, but its two clusters hang together by too few matches to be joined.",
    "cluster_too_large": "This pair matches, but joining its two clusters would pass the limit of members.",
    "judged_different": "This pair matches, but a person said of other listings of the two clusters that they differ.",
    "sample": "One of those that are asked to learn from and to measure by: what is thought of it stays hidden.",
}
SAMPLED_AT_MOST = 5_000
"""Pairs of each kind that are kept in memory to sample from."""

HELD_UNCERTAINTY = 0.25
"""What a held match counts at least: its score may be near 1, and still it divides two clusters."""

_GROUPS = ["one", "other"]


def waiting(lake: Lake) -> pl.DataFrame:
    """Pairs for review, and matches whose ends are in two clusters, whatever people said: the part that reads much.

    Columns: left_id, right_id, score, verdict, left_size, right_size, `one`, `other`: both clusters in order, and
    `cause`: why the last hour did not join the two of a match.
    """
    pairs = lake.scan(PAIRS).filter(pl.col("verdict") != "no_match").select(*SIDES, "score", "verdict")
    apart = pl.col("one") != pl.col("other")
    causes = lake.scan(HELD_MERGES).select(*SIDES, "cause")
    return (
        _placed(pairs, lake)
        .filter((pl.col("verdict") == "review") | apart)
        .join(causes, on=SIDES, how="left")
        .select(*SIDES, "score", "verdict", "left_size", "right_size", *_GROUPS, "cause")
        .collect()
    )


def ranked(waiting: pl.DataFrame, standing: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """left_id, right_id, score, cause, left_size, right_size, together, more, value: one row for each thing to judge.

    `value` is the closeness of the score to a coin's toss (4·p·(1 - p)) times the listings that hang on it; `more`
    counts the other matches between the same two clusters; `together`: both ends are in one. What is judged already
    (`standing`) is left out.
    """
    told = standing.select(*SIDES, "verdict")
    barred = told.lazy().filter(pl.col("verdict") == "different")
    apart = _placed(barred, lake).select(*_GROUPS, barred=True).unique().collect()
    left = waiting.join(told, on=SIDES, how="anti")
    unsure = left.filter(pl.col("verdict") == "review").with_columns(
        cause=pl.lit("unsure"), more=pl.lit(0, dtype=pl.Int64)
    )
    held = (
        left.filter(pl.col("verdict") == "match")
        .sort("score", *SIDES, descending=[True, False, False])
        .with_columns(more=pl.len().over(_GROUPS).cast(pl.Int64) - 1)
        .unique(_GROUPS, keep="first", maintain_order=True)
        .join(apart, on=_GROUPS, how="left")
        .with_columns(
            cause=pl.when("barred").then(pl.lit("judged_different")).otherwise(pl.col("cause").fill_null("weak_link"))
        )
        .drop("barred")
    )
    uncertainty = sampling.uncertainty(pl.col("score"))
    both = pl.col("left_size") + pl.col("right_size")
    hangs = pl.when(pl.col("one") == pl.col("other")).then("left_size").otherwise(both)
    floor = pl.when(pl.col("cause") == "unsure").then(0.0).otherwise(HELD_UNCERTAINTY)
    return (
        pl.concat([unsure, held.select(unsure.columns)])
        .with_columns(
            value=pl.max_horizontal(uncertainty, floor) * hangs,
            together=pl.col("one") == pl.col("other"),
        )
        .select(*SIDES, "score", "cause", "left_size", "right_size", "together", "more", "value")
        .sort("value", *SIDES, descending=[True, False, False])
    )


def sampled(lake: Lake) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Pairs to learn from, sure matches and sure others, judged or not: the part that reads much.

    Columns: left_id, right_id, score, first_score, left_size, right_size, `one`, `other`; to learn from also `kind`
    (the category, and what speaks most strongly for or against), of sure ones also `lot`.
    """
    shown = [*SIDES, "score", "first_score", "left_size", "right_size", *_GROUPS]
    category = lake.scan(LISTINGS).select(left_id="listing_id", category="category")
    uncertain = lake.scan(PAIRS).filter(pl.col("score").is_between(sampling.CERTAIN, 1 - sampling.CERTAIN))
    found = (
        _placed(uncertain, lake)
        .join(category, on="left_id", how="left")
        .select(
            *shown,
            kind=pl.concat_str(
                pl.col("category").fill_null(""),
                pl.col("reasons").list.first().struct.field("feature").fill_null(""),
                separator=" / ",
            ),
        )
        .collect()
    )
    unsure = sampling.to_learn(found, found.select(SIDES).clear()).head(SAMPLED_AT_MOST)
    # Nearly all pairs are sure ones: lots are drawn by their ids, and only what is kept is placed.
    scores = lake.read(PAIRS, columns=[*SIDES, "score", "first_score"])
    matches, others = (
        _placed(sampling.sure(scores, matches=wanted).head(SAMPLED_AT_MOST).lazy(), lake)
        .select(*shown, "lot")
        .sort("lot", *SIDES)
        .collect()
        for wanted in (True, False)
    )
    return unsure.drop("worth"), matches, others


def asked(
    ranked: pl.DataFrame,
    sampled: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame],
    standing: pl.DataFrame,
    shares: Shares,
) -> pl.DataFrame:
    """`ranked` with pairs to learn from and to measure by among them, whose cause is "sample"."""
    unsure, matches, others = sampled
    fresh = [each.join(standing, on=SIDES, how="anti", maintain_order="left") for each in (matches, others)]
    order = sampling.mixed(ranked, sampling.to_learn(unsure, standing), fresh[0], fresh[1], shares)
    drawn = pl.concat(sampled, how="diagonal")
    samples = drawn.unique(SIDES, keep="first").select(
        *SIDES, "score", "left_size", "right_size",
        cause=pl.lit("sample"), together=pl.col("one") == pl.col("other"), more=pl.lit(0, dtype=pl.Int64),
        value=pl.lit(None, dtype=pl.Float64), sampled=pl.lit(True),
    )  # fmt: skip
    known = pl.concat([ranked.with_columns(sampled=pl.lit(False)), samples.select(*ranked.columns, "sampled")])
    return order.join(known, on=[*SIDES, "sampled"], how="left", maintain_order="left").select(ranked.columns)


def _placed(pairs: pl.LazyFrame, lake: Lake) -> pl.LazyFrame:
    """Pairs with the size of each end's cluster and both clusters' names in order; a listing in none is its own."""
    for side in ("left", "right"):
        cluster = lake.scan(CLUSTERS).select(
            pl.col("listing_id").alias(f"{side}_id"),
            pl.col("cluster_id").alias(f"{side}_group"),
            pl.col("size").alias(f"{side}_size"),
        )
        pairs = pairs.join(cluster, on=f"{side}_id", how="left").with_columns(
            pl.col(f"{side}_group").fill_null("listing " + pl.col(f"{side}_id")), pl.col(f"{side}_size").fill_null(1)
        )
    groups = ("left_group", "right_group")
    return pairs.with_columns(one=pl.min_horizontal(*groups), other=pl.max_horizontal(*groups))
