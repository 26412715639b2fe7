"""Run a matcher over a labelled dataset and score what it found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.errors import DatasetError
from sosie.evaluate import baselines, datasets, metrics, tfidf
from sosie.evaluate.dataset import Dataset
from sosie.evaluate.matching import Clock, Labelled, Matching
from sosie.settings import Settings
from sosie.settings import settings as current_settings

MATCHERS = ("sosie", "tfidf", "tfidf_char", "knn_threshold")
PAIR_MATCHERS = ("sosie", "tfidf", "tfidf_char")
_ANALYZER: dict[str, tfidf.Analyzer] = {"tfidf": "word", "tfidf_char": "char"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of one matcher on one dataset.

    `metrics` has one entry a scope. For groups the scopes are `all` rows and `unseen` (rows of the test half's groups,
    found in the whole pool), each with rows, groups, row, pairwise, bcubed (precision, recall, f1) and
    row_f1_standard_error. For labelled pairs the scope is `test` with pairs, precision, recall, f1, macro_f1.
    """

    dataset: str
    shape: str
    rows: int
    groups: int
    matcher: str
    thresholds: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
    candidates: Mapping[str, float]
    about: Mapping[str, Any]
    seconds: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, keys in a fixed order."""
        return asdict(self)


def evaluate(
    dataset: Path, matcher: str = "sosie", *, fit: bool = False, settings: Settings | None = None
) -> Evaluation:
    """Score `matcher` (one of `MATCHERS`) on the dataset at a path.

    `sosie` uses its model's thresholds unless `fit`; the baselines have none of their own and always fit. Thresholds
    are fitted on the train half (for labelled pairs: on the valid part). Raises `DatasetError`, `ModelError`.
    """
    if matcher not in MATCHERS:
        raise DatasetError(f"Received matcher {matcher!r}. Valid ones are {', '.join(MATCHERS)}.")
    settings = settings or current_settings()
    clock = Clock()
    with clock("load"):
        loaded = datasets.load(dataset)
    if not loaded.has_groups:
        return _of_pairs(loaded, matcher, clock, settings, fit=fit)
    labelled = Labelled.of(loaded)
    matching = _match(labelled, matcher, clock, settings, fit=fit)
    answer = matching.pairs if matching.clusters is None else matching.clusters
    recall = metrics.pair_recall(matching.candidates, labelled.groups)
    return Evaluation(
        dataset=loaded.name,
        shape=loaded.shape,
        rows=loaded.listings.height,
        groups=len(np.unique(labelled.groups)),
        matcher=matcher,
        thresholds=matching.thresholds,
        metrics=_scopes(answer, labelled),
        variants={name: _scopes(found, labelled) for name, found in matching.variants.items()},
        candidates={"pairs": len(matching.candidates), "pair_recall": recall},
        about=matching.about,
        seconds=clock.seconds,
    )


def _match(labelled: Labelled, matcher: str, clock: Clock, settings: Settings, *, fit: bool) -> Matching:
    if matcher in _ANALYZER:
        return baselines.match_tfidf(labelled, clock, _ANALYZER[matcher])
    if matcher == "knn_threshold":
        return baselines.match_knn(labelled, clock, settings)
    from sosie.evaluate.sosie_matcher import match_sosie

    return match_sosie(labelled, clock, settings, fit=fit)


def _scopes(found: metrics.Ints, labelled: Labelled) -> dict[str, dict[str, Any]]:
    """Scores of pairs (int64 [m, 2]) or clusters (int64 [n]) over all rows and over the unseen groups' rows."""
    groups = labelled.groups
    counts = (metrics.counts_of_pairs if found.ndim == 2 else metrics.counts_of_clusters)(found, groups)
    scopes = {"all": np.ones(len(groups), dtype=bool), "unseen": ~labelled.train}
    return {name: _scope(counts.of(rows), groups[rows]) for name, rows in scopes.items() if rows.any()}


def _scope(counts: metrics.RowCounts, groups: metrics.Ints) -> dict[str, Any]:
    return {
        "rows": len(groups),
        "groups": len(np.unique(groups)),
        **metrics.score(counts).to_dict(),
        "row_f1_standard_error": metrics.standard_error(counts.row_f1, groups),
    }


def _of_pairs(loaded: Dataset, matcher: str, clock: Clock, settings: Settings, *, fit: bool) -> Evaluation:
    """Labelled pairs: the score of each given pair decides."""
    if matcher not in PAIR_MATCHERS:
        raise DatasetError(
            f"{loaded.name} holds labelled pairs, which {matcher} can't score; take one of {', '.join(PAIR_MATCHERS)}."
        )
    pairs, listings = loaded.pairs, loaded.listings
    about: dict[str, Any] = {}
    if matcher == "sosie":
        from sosie.evaluate.sosie_matcher import score_pairs

        scores, threshold, about = score_pairs(pairs, listings, clock, settings)
        origin = "the decider's model card" if settings.decider.match_at is None else "settings"
    else:
        with clock("tfidf"):
            scores = baselines.score_pairs_tfidf(pairs, listings, _ANALYZER[matcher])
    label, part = pairs["label"].to_numpy(), pairs["part"].to_numpy()
    if fit or matcher != "sosie":
        threshold, origin = best_f1(scores[part == "valid"], label[part == "valid"]), "the valid part's pairs"
    test = part == "test"
    predicted, actual = scores[test] >= threshold, label[test]
    found = {"pairs": int(test.sum()), "duplicates": int(actual.sum()), **asdict(metrics.binary(predicted, actual))}
    return Evaluation(
        dataset=loaded.name,
        shape=loaded.shape,
        rows=listings.height,
        groups=0,
        matcher=matcher,
        thresholds={"score": threshold, "fitted_on": origin},
        metrics={"test": {**found, "macro_f1": metrics.macro_f1(predicted, actual)}},
        variants={},
        candidates={"pairs": pairs.height},
        about=about,
        seconds=clock.seconds,
    )


def best_f1(scores: npt.NDArray[Any], label: npt.NDArray[np.bool_]) -> float:
    """The score at which the F1 of duplicates is best, exactly."""
    ranked = pl.DataFrame({"score": scores.astype(np.float64), "label": label}).sort("score", descending=True)
    found = ranked.with_columns(hits=pl.col("label").cum_sum(), taken=pl.int_range(1, pl.len() + 1))
    last = found.group_by("score", maintain_order=True).last()  # equal scores go together
    f1 = 2 * last["hits"] / (last["taken"] + int(label.sum()))
    best = f1.arg_max()
    return 0.5 if best is None else float(last["score"][best])
