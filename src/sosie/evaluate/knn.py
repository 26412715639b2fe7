"""Scored links between rows, and the threshold on them that gives the best mean row F1."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sosie.evaluate.metrics import Ints

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Links:
    """Unordered pairs of row numbers, int64 [m, 2] with the smaller first, each once, and their score, float32 [m]."""

    pairs: Ints
    scores: Floats32

    @classmethod
    def of(cls, left: Ints, right: Ints, scores: Floats32) -> "Links":
        """From directed hits in any order; self hits go, and of a pair met twice the higher score stays."""
        low, high = np.minimum(left, right), np.maximum(left, right)
        keep = low != high
        low, high, scores = low[keep], high[keep], scores[keep]
        order = np.lexsort((-scores, high, low))
        low, high, scores = low[order], high[order], scores[order]
        first = np.ones(len(low), dtype=bool)
        first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
        return cls(np.stack([low[first], high[first]], axis=1).astype(np.int64), scores[first].astype(np.float32))

    def above(self, threshold: float) -> Ints:
        """Pairs that score at least `threshold`."""
        return self.pairs[self.scores >= threshold]

    def within(self, rows: npt.NDArray[np.bool_]) -> "Links":
        """Links of which both ends are among `rows`; row numbers stay."""
        keep = rows[self.pairs[:, 0]] & rows[self.pairs[:, 1]]
        return Links(self.pairs[keep], self.scores[keep])


def nearest(vectors: Floats32, k: int, *, block: int = 1024) -> Links:
    """Links of every row to its `k` nearest by inner product, found exactly, a block of rows at a time."""
    n = len(vectors)
    k = min(k, n - 1)
    if k < 1:
        return Links(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    left, right, scores = [], [], []
    for start in range(0, n, block):
        similar = vectors[start : start + block] @ vectors.T
        rows = np.arange(start, start + len(similar))
        similar[np.arange(len(similar)), rows] = -np.inf
        hits = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        left.append(np.repeat(rows, k))
        right.append(hits.reshape(-1))
        scores.append(np.take_along_axis(similar, hits, axis=1).reshape(-1))
    return Links.of(np.concatenate(left), np.concatenate(right), np.concatenate(scores))


def fit_threshold(
    links: Links, groups: Ints, *, rows: npt.NDArray[np.bool_] | None = None, free: Ints | None = None
) -> float:
    """The threshold of the best mean row F1, found exactly: links are let in one by one, best first.

    `groups` is int64 [n]. Only `rows` (bool [n], default all) are scored, though every row can be linked to them.
    `free` are pairs, int64 [f, 2], that count as matched whatever the threshold.
    """
    n = len(groups)
    sizes = np.bincount(groups, minlength=int(groups.max()) + 1)[groups].astype(np.float64)
    pairs, scores = links.pairs, links.scores.astype(np.float64)
    if free is not None and len(free):
        pairs = np.concatenate([free, pairs])
        given = np.full(len(free), np.inf)
        kept = Links.of(pairs[:, 0], pairs[:, 1], np.concatenate([given, scores]).astype(np.float32))
        pairs, scores = kept.pairs, kept.scores.astype(np.float64)
    if not np.isfinite(scores).any():
        return 1.0
    order = np.argsort(-scores, kind="stable")
    hit = (groups[pairs[:, 0]] == groups[pairs[:, 1]])[order]
    # Per row, in order of arrival: how many links it then has, and how many of them are true.
    ends = pairs[order].reshape(-1)
    hits = np.repeat(hit, 2).astype(np.int64)
    arrival = np.argsort(ends, kind="stable")
    by_row, row_hits = ends[arrival], hits[arrival]
    firsts = np.searchsorted(by_row, np.arange(n + 1))
    running = np.cumsum(row_hits)
    before = np.concatenate([[0], running])[firsts[by_row]]
    shared = 1 + running - before
    predicted = 2 + np.arange(len(by_row)) - firsts[by_row]
    f1 = 2 * shared / (predicted + sizes[by_row])
    f1_before = 2 * (shared - row_hits) / (predicted - 1 + sizes[by_row])
    gain = np.empty(len(ends))
    gain[arrival] = f1 - f1_before
    if rows is not None:
        gain *= rows[ends]
    total = np.cumsum(gain.reshape(-1, 2).sum(1))
    ranked = scores[order]
    last_of_score = np.append(ranked[1:] != ranked[:-1], True) & np.isfinite(ranked)
    places = np.flatnonzero(last_of_score)
    best = places[np.argmax(total[places])]
    fixed = int(np.isinf(ranked).sum())
    if total[best] <= (total[fixed - 1] if fixed else 0.0):
        return float(np.nextafter(np.float32(ranked[fixed]), np.float32(np.inf)))  # none of them helps
    return float(ranked[best])


def fit_union(
    links: Mapping[str, Links], groups: Ints, *, rows: npt.NDArray[np.bool_] | None = None, free: Ints | None = None
) -> dict[str, float]:
    """A threshold for each kind of link, one after another: each beside what `free` and those before it matched."""
    matched = np.empty((0, 2), np.int64) if free is None else free
    thresholds = {}
    for name, each in links.items():
        thresholds[name] = fit_threshold(each, groups, rows=rows, free=matched)
        matched = union(matched, each.above(thresholds[name]))
    return thresholds


def above(links: Mapping[str, Links], thresholds: Mapping[str, float], free: Ints | None = None) -> Ints:
    """Pairs that any kind of link matches at its threshold, and those that are `free`."""
    return union(
        *(each.above(thresholds[name]) for name, each in links.items()),
        np.empty((0, 2), np.int64) if free is None else free,
    )


def union(*pairs: Ints) -> Ints:
    """Pairs that are in any of these, each once, smaller row first."""
    every = np.concatenate(pairs)
    return np.unique(np.sort(every, axis=1), axis=0) if len(every) else every.reshape(0, 2)
