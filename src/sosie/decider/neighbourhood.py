"""A pair seen among the other pairs of its two listings: who else is as likely, and who speaks for both.

One wrong pair looks right by itself; beside a better partner, or beside partners that want nothing of each other, it
does not. All of it is worked out from first scores of pairs, so a pair's surroundings are the pairs of its two ends and
those of their partners, and nothing of the catalogue beyond.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FLOOR = 0.02
"""Pairs whose first score is lower are no part of anybody's surroundings."""

STRONG = 0.5
_AT_ONCE = 100_000

REASONS = {
    "first_score": "how far the pair's own log-odds hold among the other pairs",
    "rank_better": "place among the partners of the listing where it stands higher",
    "rank_worse": "place among the partners of the listing where it stands lower",
    "gap_less": "lead over the best other partner of the one listing",
    "gap_more": "lead over the best other partner of the other listing",
    "others_less": "expected other partners of the listing that has fewer",
    "others_more": "expected other partners of the listing that has more",
    "shared_best": "the best third listing that both go with",
    "shared_sum": "third listings that both go with",
    "linked_less": "how well the one's sure partners go with the other, at worst",
    "linked_more": "how well the one's sure partners go with the other, at best",
}
NAMES = tuple(REASONS)


def surroundings(sides: Ints, score: npt.NDArray[np.floating[Any]], listings: int) -> Floats:
    """Features `[pairs, len(NAMES)]` float32, symmetric in the two sides; NaN where there is nothing to compare with.

    `sides` int64 [pairs, 2] are numbers below `listings`, each unordered pair once; `score` [pairs] is the first score,
    a probability. Only pairs of at least `FLOOR` surround others.
    """
    if not len(sides):
        return np.empty((0, len(NAMES)), dtype=np.float32)
    from scipy.sparse import csr_matrix

    score = np.asarray(score, dtype=np.float32)
    left, right = sides[:, 0], sides[:, 1]
    near = score >= FLOOR
    ends = np.concatenate([left[near], right[near]]), np.concatenate([right[near], left[near]])
    graph = csr_matrix((np.tile(score[near], 2), ends), shape=(listings, listings), dtype=np.float32)
    sure = graph.copy()
    sure.data = (sure.data >= STRONG).astype(np.float32)
    sure.eliminate_zeros()

    best, second, total = _of_rows(graph)
    own = np.where(near, score, 0).astype(np.float32)
    values = np.empty((len(sides), len(NAMES)), dtype=np.float32)

    def both(name: str, one: np.ndarray, other: np.ndarray) -> None:
        """The smaller and the larger under the two names that start alike."""
        low, high = (place for place, known in enumerate(NAMES) if known.startswith(f"{name}_"))
        values[:, low], values[:, high] = np.fmin(one, other), np.fmax(one, other)

    values[:, 0] = _log_odds(score)
    rivals = [np.where(own >= best[end], second[end], best[end]) for end in (left, right)]
    both("gap", *(score - rival for rival in rivals))
    both("others", *(total[end] - own for end in (left, right)))
    both("rank", *(_rank(graph, end, score) for end in (left, right)))
    shared_best, shared_sum, linked = np.empty_like(own), np.empty_like(own), np.empty((2, len(own)), np.float32)
    for start in range(0, len(sides), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        a, b = graph[left[part]], graph[right[part]]
        shared = a.minimum(b)
        shared_best[part], shared_sum[part] = (
            shared.max(axis=1).toarray().ravel(),
            np.asarray(shared.sum(axis=1)).ravel(),
        )
        for side, (mine, other) in enumerate(((left, b), (right, a))):
            friends = sure[mine[part]]
            count = np.diff(friends.indptr) - (own[part] >= STRONG)
            reached = np.asarray(friends.multiply(other).sum(axis=1)).ravel()
            linked[side, part] = np.where(count > 0, reached / np.maximum(count, 1), np.nan)
    values[:, NAMES.index("shared_best")], values[:, NAMES.index("shared_sum")] = shared_best, shared_sum
    both("linked", *linked)
    return values


def _of_rows(graph: Any) -> tuple[Floats, Floats, Floats]:
    """Each listing's best score, its second best and the sum of all; 0 where there is none."""
    size = graph.shape[0]
    best, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
    row = np.repeat(np.arange(size), np.diff(graph.indptr))
    order = np.lexsort((-graph.data, row))
    row, data = row[order], graph.data[order]
    place = np.arange(len(row)) - graph.indptr[row]
    best[row[place == 0]], second[row[place == 1]] = data[place == 0], data[place == 1]
    return best, second, np.asarray(graph.sum(axis=1), dtype=np.float32).ravel()


def _rank(graph: Any, end: Ints, score: Floats) -> Floats:
    """How many partners of `end` score higher than this pair does."""
    size = graph.shape[0]
    row = np.repeat(np.arange(size), np.diff(graph.indptr))
    # One sorted key a partner: the listing's number, then its scores from high to low, all below one.
    keys = np.sort(row + (1 - graph.data.astype(np.float64)) / 2)
    asked = end + (1 - score.astype(np.float64)) / 2
    return np.asarray(np.searchsorted(keys, asked, side="left") - graph.indptr[end], dtype=np.float32)


def _log_odds(score: Floats) -> Floats:
    clipped = np.clip(score, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float32)
