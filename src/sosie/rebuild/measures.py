"""What two embedding versions say of the same listings, as numbers. Frames in, plain values out."""

from typing import Any

import numpy as np
import polars as pl

from sosie.stability import population_stability
from sosie.tables import SIDES

VERDICTS = ("match", "review", "no_match")


def overlap(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """query_id, overlap: the share of each query's old neighbours that are neighbours under the new version too.

    `old` and `new` are neighbours frames (query_id, listing_id, …) of equal k. Queries without old ones are left out.
    """
    shared = old.join(new.select("query_id", "listing_id", kept=True), on=["query_id", "listing_id"], how="left")
    return (
        shared.group_by("query_id")
        .agg(overlap=pl.col("kept").fill_null(False).cast(pl.Float64).mean())
        .sort("query_id")
    )


def recalled(pairs: pl.DataFrame, neighbours: pl.DataFrame) -> float | None:
    """Share of `pairs` (left_id, right_id) of which one is among the other's neighbours; None of no pairs."""
    if pairs.is_empty():
        return None
    found = neighbours.select(
        left_id=pl.min_horizontal("query_id", "listing_id"), right_id=pl.max_horizontal("query_id", "listing_id")
    ).unique()
    return pairs.join(found, on=SIDES, how="semi").height / pairs.height


def agreement(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, Any]:
    """How often both say the same of a pair, and how often what became what.

    Both have left_id, right_id, score, verdict, for the same pairs. `agree` is the share of equal verdicts, None of no
    pairs; `verdicts` counts old → new.
    """
    both = old.select(*SIDES, "verdict").join(new.select(*SIDES, now="verdict"), on=SIDES)
    counts = dict.fromkeys((f"{was} → {now}" for was in VERDICTS for now in VERDICTS), 0)
    for was, now, rows in both.group_by("verdict", "now").len().iter_rows():
        counts[f"{was} → {now}"] = rows
    same = both.filter(pl.col("verdict") == pl.col("now")).height
    return {"pairs": both.height, "agree": same / both.height if both.height else None, "verdicts": counts}


def drift(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, Any]:
    """How the scores of the same pairs moved.

    `shift` and `distance` are the mean and the mean absolute difference; `psi` the population stability index; the
    deciles of both stand beside it.
    """
    both = old.select(*SIDES, "score").join(new.select(*SIDES, now="score"), on=SIDES)
    if both.is_empty():
        return {"shift": None, "distance": None, "psi": None, "deciles": {"old": [], "new": []}}
    was, now = both["score"].to_numpy(), both["now"].to_numpy()
    deciles = [np.quantile(scores, np.linspace(0.1, 0.9, 9)).round(4).tolist() for scores in (was, now)]
    return {
        "shift": float((now - was).mean()),
        "distance": float(np.abs(now - was).mean()),
        "psi": population_stability(was, now),
        "deciles": {"old": deciles[0], "new": deciles[1]},
    }


def flipped(old: pl.DataFrame, new: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The pairs whose verdict changed, those whose score moved furthest first: both scores and verdicts."""
    return (
        old.select(*SIDES, "score", "verdict")
        .join(new.select(*SIDES, new_score="score", new_verdict="verdict"), on=SIDES)
        .filter(pl.col("verdict") != pl.col("new_verdict"))
        .sort((pl.col("new_score") - pl.col("score")).abs(), *SIDES, descending=[True, False, False])
        .head(limit)
    )


def inside_clusters(clusters: pl.DataFrame) -> pl.DataFrame:
    """Every pair of two listings of one cluster: left_id < right_id."""
    member = clusters.select("listing_id", "cluster_id")
    return (
        member.rename({"listing_id": "left_id"})
        .join(member.rename({"listing_id": "right_id"}), on="cluster_id")
        .filter(pl.col("left_id") < pl.col("right_id"))
        .select(SIDES)
        .sort(SIDES)
    )


def concerns(found: dict[str, Any]) -> list[str]:
    """A sentence for each figure that speaks against the new version."""
    told = []
    for modality, counts in found["counts"].items():
        if counts["new"] != counts["expected"]:
            told.append(f"The new {modality} index holds {counts['new']:,} of {counts['expected']:,} listings.")
    for name, recall in found["recall"].items():
        if recall["old"] is not None and recall["old"] - recall["new"] > 0.01:
            told.append(
                f"Of the {recall['pairs']:,} pairs {name}, {recall['old']:.1%} were found by vectors before and "
                f"{recall['new']:.1%} are now."
            )
    verdicts = found["decisions"]
    if verdicts["agree"] is not None and verdicts["agree"] < 0.9:
        told.append(f"Both versions decide only {verdicts['agree']:.1%} of {verdicts['pairs']:,} pairs alike.")
    if found["drift"]["psi"] is not None and found["drift"]["psi"] > 0.25:
        told.append(f"Scores are distributed otherwise (stability index {found['drift']['psi']:.2f}, above 0.25).")
    return told
