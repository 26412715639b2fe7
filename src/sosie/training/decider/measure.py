"""What the decider is worth on pools whose products its model never saw: on pairs, and on rows after clustering."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.metrics import average_precision_score

from sosie.clusters import resolve
from sosie.evaluate import metrics
from sosie.settings import Clusters
from sosie.training.decider.pools import Catalogue, Mask, Pool

Floats = npt.NDArray[np.float64]
_BINS = 20


def calibration_error(score: Floats, label: Mask) -> float:
    """Expected calibration error: mean |share of duplicates - mean probability| over 20 equal bins, by size."""
    place = np.minimum((score * _BINS).astype(int), _BINS - 1)
    number = np.bincount(place, minlength=_BINS)
    gap = np.bincount(place, weights=label - score, minlength=_BINS)
    return float(np.abs(gap).sum() / max(number.sum(), 1))


def of_pairs(score: Floats, label: Mask, at: float) -> dict[str, float]:
    """Average precision, and precision, recall, F1 and macro-F1 at a threshold, over candidate pairs."""
    found = metrics.binary(score >= at, label)
    return {
        "average_precision": round(float(average_precision_score(label, score)), 4),
        "precision": round(found.precision, 4),
        "recall": round(found.recall, 4),
        "f1": round(found.f1, 4),
        "macro_f1": round(metrics.macro_f1(score >= at, label), 4),
    }


def by_pool(pools: list[Pool], first: list[Floats], score: list[Floats], at: float, review: float) -> dict[str, Any]:
    """Out-of-fold figures of each training pool, of the first step alone and of both."""
    return {
        f"{place} {pool.name}": {
            "first": _figures(pool, first[place], at, review),
            "both": _figures(pool, score[place], at, review),
        }
        for place, pool in enumerate(pools)
    }


def _figures(pool: Pool, score: Floats, at: float, review: float) -> dict[str, float]:
    of_taught, label = score[pool.taught], pool.label[pool.taught]
    rows = clustered(pool.catalogue, pool.pairs, score, at, review) if pool.catalogue.has_groups else {}
    return {
        **of_pairs(of_taught, label, at),
        **rows,
        "calibration_error": round(calibration_error(of_taught, label), 5),
    }


def clustered(
    catalogue: Catalogue,
    pairs: pl.DataFrame,
    score: Floats,
    match_at: float,
    review_at: float,
    rules: Clusters | None = None,
) -> dict[str, float]:
    """Row, pairwise and B-cubed figures after clustering as the pipeline does it, by its own rules or by `rules`.

    Bystanders are clustered with the others, and not scored.
    """
    known = score >= review_at
    verdict = pl.Series(np.where(score >= match_at, "match", "review").tolist(), dtype=pl.String)
    scored = pairs.select("left_id", "right_id", score=pl.Series(score), verdict=verdict).filter(pl.Series(known))
    rules = rules or Clusters()
    grouping = resolve(
        scored,
        pl.DataFrame(schema={"left_id": pl.String, "right_id": pl.String, "verdict": pl.String}),
        min_mean_link=rules.min_mean_link,
        max_size=rules.max_size,
        listings=catalogue.listings["listing_id"],
    )
    rows = catalogue.listings.select("listing_id").join(catalogue.truth, on="listing_id", maintain_order="left")
    rows = rows.join(grouping.groups, on="listing_id", how="left", maintain_order="left")
    actual = metrics.codes(rows["group"])
    apart = catalogue.bystanders
    scored_rows = np.ones(rows.height, bool) if apart is None else ~rows["listing_id"].is_in(apart.implode()).to_numpy()
    counts = metrics.counts_of_clusters(rows["group_right"].to_numpy(), actual).of(scored_rows)
    figures = metrics.score(counts)
    return {
        "row_f1": round(figures.row.f1, 4),
        "row_precision": round(figures.row.precision, 4),
        "row_recall": round(figures.row.recall, 4),
        "pairwise_f1": round(figures.pairwise.f1, 4),
        "bcubed_f1": round(figures.bcubed.f1, 4),
        "row_f1_standard_error": round(metrics.standard_error(counts.row_f1, actual[scored_rows]), 4),
    }
