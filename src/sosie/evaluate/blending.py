"""Each vector blended with its nearest neighbour's, so that two that are nearest to each other come nearer still.

Average query expansion (Chum et al. 2007), weighed by a power of the cosine (Radenović et al. 2018, arXiv:1711.02512),
over one neighbour and on both sides of a comparison. How much a neighbour counts is fitted as a threshold is, on the
same rows.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sosie import screening
from sosie.evaluate import knn, metrics
from sosie.evaluate.metrics import Ints
from sosie.vectors import Vectors

POWERS = (2, 4, 8)
"""What is tried: the higher, the less a neighbour counts that is not very near."""


def blended(vectors: Vectors, power: int) -> Vectors:
    """float32 [n, width] of unit length → the same, each with its nearest other added by `cosine ** power`."""
    if len(vectors) < 2:
        return vectors
    anything = -2.0  # below every cosine
    found = screening.nearest(vectors, vectors, 1, anything, own=np.arange(len(vectors)))
    _, nearest, cosine = map(np.concatenate, zip(*found, strict=True))
    mixed = vectors + np.maximum(cosine, 0.0)[:, None] ** power * vectors[nearest]
    return np.asarray(mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def fit(
    links_of: Callable[[int], knn.Links], groups: Ints, *, rows: npt.NDArray[np.bool_] | None = None
) -> tuple[int, float, knn.Links]:
    """The power of `POWERS` and the threshold with the best mean row F1 over `rows` (default all), and its links."""
    fits = []
    for power in POWERS:
        links = links_of(power)
        threshold = knn.fit_threshold(links, groups, rows=rows)
        f1 = metrics.counts_of_pairs(links.above(threshold), groups).row_f1
        fits.append((float(f1[slice(None) if rows is None else rows].mean()), power, threshold, links))
    _, power, threshold, links = max(fits, key=lambda fit: fit[:2])
    return power, threshold, links
