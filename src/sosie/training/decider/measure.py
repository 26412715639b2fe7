"""What the decider is worth: on pairs, on rows after clustering, beside a plain cosine threshold on the same pool."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.metrics import average_precision_score

from sosie.clusters import resolve
from sosie.decider.features import NAMES
from sosie.decider.model import Decider
from sosie.evaluate import datasets, metrics
from sosie.settings import Blocking, Clusters
from sosie.training.decider.pools import Catalogue, Mask, Pool, candidates, labelled, true_pairs

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


def by_pool(pools: list[Pool], raw: list[Floats], score: list[Floats], at: float) -> dict[str, Any]:
    """Out-of-fold figures of each training pool, and the calibration error before and after."""
    return {
        f"{place} {pool.name}": {
            **of_pairs(score[place], pool.label, at),
            "ece_raw": round(calibration_error(raw[place], pool.label), 5),
            "ece": round(calibration_error(score[place], pool.label), 5),
        }
        for place, pool in enumerate(pools)
    }


def clustered(
    catalogue: Catalogue,
    pairs: pl.DataFrame,
    score: Floats,
    match_at: float,
    review_at: float,
    only: Mask | None = None,
) -> dict[str, float]:
    """Row, pairwise and B-cubed figures after clustering as the pipeline does it, over the listings in `only`."""
    known = score >= review_at
    verdict = pl.Series(np.where(score >= match_at, "match", "review").tolist(), dtype=pl.String)
    scored = pairs.select("left_id", "right_id", score=pl.Series(score), verdict=verdict).filter(pl.Series(known))
    rules = Clusters()
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
    counts = metrics.counts_of_clusters(rows["group_right"].to_numpy(), actual)
    if only is not None:
        counts, actual = counts.of(only), actual[only]
    figures = metrics.score(counts)
    return {
        "row_f1": round(figures.row.f1, 4),
        "row_precision": round(figures.row.precision, 4),
        "row_recall": round(figures.row.recall, 4),
        "pairwise_f1": round(figures.pairwise.f1, 4),
        "bcubed_f1": round(figures.bcubed.f1, 4),
        "row_f1_standard_error": round(metrics.standard_error(counts.row_f1, actual), 4),
    }


def unclustered(catalogue: Catalogue, pairs: pl.DataFrame, kept: Mask, only: Mask | None = None) -> float:
    """Mean row F1 where a row's set is what it is paired with, and no further."""
    rows = catalogue.listings.select("listing_id").join(catalogue.truth, on="listing_id", maintain_order="left")
    number = pl.DataFrame({"id": rows["listing_id"], "row": np.arange(rows.height)})
    sides = [
        pairs.filter(pl.Series(kept))
        .join(number, left_on=side, right_on="id", how="left", maintain_order="left")["row"]
        .to_numpy()
        for side in ("left_id", "right_id")
    ]
    counts = metrics.counts_of_pairs(np.stack(sides, axis=1).astype(np.int64), metrics.codes(rows["group"]))
    return metrics.score(counts if only is None else counts.of(only)).row.f1


def cosine_threshold(catalogue: Catalogue, pairs: pl.DataFrame, cosine: Floats, only: Mask | None = None) -> float:
    """The threshold on the text cosine with the best mean row F1 *on this very pool*: the most that it could reach."""
    grid = np.arange(0.5, 0.99, 0.02)
    return float(max(grid, key=lambda at: unclustered(catalogue, pairs, cosine >= at, only)))


def on_test_half(catalogue: Catalogue, decider: Decider, rules: Blocking) -> dict[str, Any]:
    """Every figure on the test half as a catalogue of its own."""
    return _measured(catalogue.half("test"), decider, rules, None)


def in_full(catalogue: Catalogue, decider: Decider, rules: Blocking) -> dict[str, Any]:
    """The same in the whole catalogue, over listings of test groups and pairs with one of them."""
    halves = catalogue.listings.select("listing_id").join(catalogue.truth, on="listing_id", maintain_order="left")
    return _measured(catalogue, decider, rules, (datasets.split(halves["group"]) == "test").to_numpy())


def _measured(catalogue: Catalogue, decider: Decider, rules: Blocking, only: Mask | None) -> dict[str, Any]:
    match_at, review_at = decider.thresholds()
    pairs = candidates(catalogue, rules, decider.vocabulary)
    features = decider.features(pairs, catalogue.listings, catalogue.text, catalogue.image)
    score, label = decider.score(features), labelled(pairs, catalogue.truth)
    cosine = np.nan_to_num(features[:, NAMES.index("text_cosine")].astype(np.float64), nan=-1)
    mine, truth = np.ones(len(label), dtype=bool), catalogue.truth
    if only is not None:
        ids = catalogue.listings["listing_id"].filter(pl.Series(only))
        truth = truth.filter(pl.col("listing_id").is_in(ids.implode()))
        mine = (pairs["left_id"].is_in(ids.implode()) | pairs["right_id"].is_in(ids.implode())).to_numpy()
    at = cosine_threshold(catalogue, pairs, cosine, only)
    waiting = (score >= review_at) & (score < match_at) & mine
    return {
        "listings": catalogue.listings.height,
        "scored_listings": truth.height,
        "candidates": int(mine.sum()),
        "candidate_recall": round(float(label[mine].sum() / true_pairs(truth)), 4),
        "pairs": of_pairs(score[mine], label[mine], match_at),
        "ece": round(calibration_error(score[mine], label[mine]), 5),
        "review": {"pairs": int(waiting.sum()), "duplicates": round(float(label[waiting].mean()), 4)},
        "clusters": clustered(catalogue, pairs, score, match_at, review_at, only),
        "row_f1_without_clustering": round(unclustered(catalogue, pairs, score >= match_at, only), 4),
        "cosine_threshold": {
            "threshold": round(at, 2),
            "row_f1": round(unclustered(catalogue, pairs, cosine >= at, only), 4),
            **of_pairs(cosine[mine], label[mine], at),
        },
    }
