"""Each vector blended with its nearest neighbour's, so that two that are nearest to each other come nearer still.

Average query expansion (Chum et al. 2007), weighed by a power of the cosine (Radenović et al. 2018, arXiv:1711.02512),
over one neighbour and on both sides of a comparison. How much a neighbour counts is fitted as a threshold is, on the
same rows.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sosie.evaluate import knn, metrics
from sosie.evaluate.metrics import Ints
from sosie.vectors import Vectors

POWERS = (2, 4, 8)
"""What is tried: the higher, the less a neighbour counts that is not very near."""


def blended(vectors: Vectors, power: int, *, block: int = 1024) -> Vectors:
    """float32 [n, width] of unit length → the same, each with its nearest other added by `cosine ** power`."""
    if len(vectors) < 2:
        return vectors
    nearest, cosine = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), block):
        rows = slice(start, min(start + block, len(vectors)))
        similar = vectors[rows] @ vectors.T
        similar[np.arange(len(similar)), np.arange(rows.start, rows.stop)] = -np.inf
        nearest[rows] = similar.argmax(axis=1)
        cosine[rows] = similar[np.arange(len(similar)), nearest[rows]]
    mixed = vectors + np.maximum(cosine, 0.0)[:, None] ** power * vectors[nearest]
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


def fit(
    links_of: Callable[[int], knn.Links], groups: Ints, *, rows: npt.NDArray[np.bool_] | None = None
) -> tuple[int, float]:
    """The power of `POWERS` and the threshold on its links that give the best mean row F1 over `rows` (default all)."""

    def best(power: int) -> tuple[float, int, float]:
        links = links_of(power)
        threshold = knn.fit_threshold(links, groups, rows=rows)
        found = metrics.counts_of_pairs(links.above(threshold), groups).row_f1
        return float(found[slice(None) if rows is None else rows].mean()), power, threshold

    _, power, threshold = max(map(best, POWERS))
    return power, threshold
