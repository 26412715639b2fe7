"""How well vectors of titles find those of the same product, on groups that the encoder never saw."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sosie.evaluate import knn, metrics
from sosie.training.text.titles import Titles

Array = npt.NDArray[np.float32]
NEIGHBOURS = 40


def compared(titles: Titles, vectors: Array) -> dict[str, dict[str, float]]:
    """For each corpus as a pool of its own: mean row F1 of a cosine threshold, and the pairs among the 40 nearest.

    The threshold is fitted on every second group and scored on the others. `vectors` [n, d] of unit length.
    """
    found = {}
    for corpus in sorted(set(titles.corpora)):
        mine = np.flatnonzero(np.array(titles.corpora) == corpus)
        found[corpus] = of_pool(vectors[mine], titles.groups[mine])
    return found


def of_pool(vectors: Array, groups: metrics.Ints) -> dict[str, Any]:
    """The same for one pool."""
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    links = knn.nearest(vectors, NEIGHBOURS)
    fit = codes % 2 == 0
    threshold = knn.fit_threshold(links, codes, rows=fit)
    counts = metrics.counts_of_pairs(links.above(threshold), codes)
    return {
        "rows": len(codes),
        "threshold": round(threshold, 4),
        "row_f1": round(metrics.score(counts.of(~fit)).row.f1, 4),
        "recall_at_40": round(metrics.pair_recall(links.pairs, codes), 4),
    }
