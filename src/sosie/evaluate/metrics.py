"""How good found duplicates are. Everything follows from three counts a row: found, true, and both.

Each row has a predicted set (itself and what was matched to it) and a true set (its group, itself included).

- *row*: mean over rows of the F1 between the two sets, as in Kaggle's Shopee competition.
- *pairwise*: precision, recall and F1 over unordered pairs of rows.
- *bcubed*: mean precision and mean recall over rows (Bagga and Baldwin 1998), F1 their harmonic mean.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowCounts:
    """int64 [n] each: size of the row's predicted set, of its true set, and of what they share. All at least 1."""

    predicted: Ints
    actual: Ints
    shared: Ints

    def of(self, rows: npt.NDArray[np.bool_]) -> "RowCounts":
        """The same counts for some rows; the others have taken part in the matching all the same."""
        return RowCounts(self.predicted[rows], self.actual[rows], self.shared[rows])

    @property
    def row_f1(self) -> Floats:
        return 2 * self.shared / (self.predicted + self.actual)


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1, each between 0 and 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Scores:
    """The three families."""

    row: Score
    pairwise: Score
    bcubed: Score

    def to_dict(self) -> dict[str, dict[str, float]]:
        return {family: asdict(getattr(self, family)) for family in ("row", "pairwise", "bcubed")}


def counts_of_pairs(pairs: Ints, groups: Ints) -> RowCounts:
    """Counts where a row's predicted set is itself and the rows it is paired with, and no further.

    `pairs` is int64 [m, 2], row numbers, each unordered pair once and none with itself; `groups` int64 [n].
    """
    n = len(groups)
    hits = pairs[groups[pairs[:, 0]] == groups[pairs[:, 1]]]
    return RowCounts(1 + _degree(pairs, n), _sizes(groups), 1 + _degree(hits, n))


def counts_of_clusters(predicted: Ints, groups: Ints) -> RowCounts:
    """Counts where the predicted sets are the classes of a partition. Both are int64 [n] of class numbers."""
    _, cells = np.unique(np.stack([predicted, groups], axis=1), axis=0, return_inverse=True)
    return RowCounts(_sizes(predicted), _sizes(groups), _sizes(cells.reshape(-1)))


def score(counts: RowCounts) -> Scores:
    """All three families. A pair that is half outside these rows counts by half."""
    precision = counts.shared / counts.predicted
    recall = counts.shared / counts.actual
    predicted, actual, shared = (float((sizes - 1).sum()) for sizes in (counts.predicted, counts.actual, counts.shared))
    return Scores(
        row=Score(_mean(precision), _mean(recall), _mean(counts.row_f1)),
        pairwise=_score(shared, predicted, actual),
        bcubed=_harmonic(_mean(precision), _mean(recall)),
    )


def standard_error(values: Floats, groups: Ints) -> float:
    """Standard error of the mean of `values` [n] when whole groups, not rows, were drawn (cluster-robust)."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return float("nan")
    residuals = np.bincount(codes.reshape(-1), weights=values - values.mean())
    return float(np.sqrt(np.square(residuals).sum() * len(sizes) / (len(sizes) - 1)) / len(values))


def binary(predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> Score:
    """Of labelled pairs, those that are duplicates: the number that the entity-matching literature gives."""
    return _score(float((predicted & actual).sum()), float(predicted.sum()), float(actual.sum()))


def macro_f1(predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> float:
    """Mean of the F1 of duplicates and the F1 of the others."""
    return (binary(predicted, actual).f1 + binary(~predicted, ~actual).f1) / 2


def pair_recall(pairs: Ints, groups: Ints) -> float:
    """Share of the true pairs that are among `pairs`, int64 [m, 2], each once."""
    counts = counts_of_pairs(pairs, groups)
    return score(counts).pairwise.recall


def codes(labels: pl.Series) -> Ints:
    """int64 [n] class numbers of any labels."""
    return labels.rank("dense").to_numpy().astype(np.int64) - 1


def _score(shared: float, predicted: float, actual: float) -> Score:
    """Nothing claimed is nothing wrong; nothing to find is nothing missed."""
    return Score(
        precision=shared / predicted if predicted else 1.0,
        recall=shared / actual if actual else 1.0,
        f1=2 * shared / (predicted + actual) if predicted + actual else 1.0,
    )


def _harmonic(precision: float, recall: float) -> Score:
    return Score(precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sizes(labels: Ints) -> Ints:
    _, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return sizes[places.reshape(-1)].astype(np.int64)


def _degree(pairs: Ints, n: int) -> Ints:
    return np.bincount(pairs.reshape(-1), minlength=n).astype(np.int64)
