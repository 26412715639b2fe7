"""Gradient-boosted trees as they are served: a pair's log-odds, and what each of its features adds to them.

Contributions are those of the decision path (Saabas 2014, "Interpreting random forests"): a step down a tree moves the
log-odds from what the tree would say if it ended at the node to what it would at the child, and the move is the
feature's that the node asks for. Like TreeSHAP's (Lundberg et al., arXiv:1802.03888) they add up to the log-odds, and
mostly name the same reasons; as they look at the one path that a pair takes, not at all that it might, they cost a
small part (both in benchmarks/decider.py).
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_AT_ONCE = 3_000
"""Pairs whose leaves are in memory together: about 100 MB with 1,200 trees."""


class Paths(NamedTuple):
    """The way to each leaf of all trees: a scipy CSR matrix `[leaves, features]` of what each feature adds on it, the
    number of each tree's first leaf int64 `[trees]`, and the log-odds before any question, `start`."""

    moves: Any
    first_leaf: npt.NDArray[np.int64]
    start: float


@dataclass(frozen=True)
class Trees:
    """A LightGBM model of log-odds. `threads` 0 takes every core."""

    booster: Any
    threads: int = 0

    @classmethod
    def load(cls, file: Path, threads: int = 0) -> "Trees":
        import lightgbm

        return cls(lightgbm.Booster(model_file=str(file)), threads)

    def log_odds(self, values: npt.NDArray[np.float32], hopeless: float = -np.inf) -> npt.NDArray[np.float64]:
        """`values` float32 [pairs, features], NaN where something is missing → float64 [pairs].

        Pairs whose log-odds are not above `hopeless` after an eighth of the trees keep what those say (a cascade, Viola
        and Jones 2001): most candidates are no duplicates, and few trees are enough to see it.
        """
        asked = {"num_threads": self.threads, "raw_score": True}
        few = self.booster.num_trees() // 8
        if not few or hopeless == -np.inf or not len(values):
            return np.asarray(self.booster.predict(values, **asked))
        found = np.asarray(self.booster.predict(values, num_iteration=few, **asked))
        further = np.flatnonzero(found > hopeless)
        if len(further):
            found[further] += self.booster.predict(values[further], start_iteration=few, num_iteration=-1, **asked)
        return found

    def contributions(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What each feature adds, float64 [pairs, features]; with `paths.start` a row's sum is its log-odds."""
        from scipy.sparse import csr_matrix

        moves, first_leaf, _ = self.paths
        told = np.empty(values.shape)
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            leaves = self.booster.predict(part, num_threads=self.threads, pred_leaf=True).astype(np.int64) + first_leaf
            pairs, trees = leaves.shape
            bounds = np.arange(0, pairs * trees + 1, trees)
            reached = csr_matrix((np.ones(pairs * trees), leaves.ravel(), bounds), shape=(pairs, moves.shape[0]))
            told[start : start + _AT_ONCE] = (reached @ moves).toarray()
        return told

    @cached_property
    def paths(self) -> Paths:
        """Read from LightGBM's own text of the model, as its JSON takes several times as long."""
        from scipy.sparse import csr_matrix

        text = self.booster.model_to_string()
        leaves = _numbers(text, "num_leaves", int).ravel()
        splits, first_leaf, first_split = leaves - 1, _before(leaves), _before(leaves - 1)
        # All nodes of all trees, splits before leaves; a child that is a leaf is told as -1 - its number.
        feature = _numbers(text, "split_feature", int)
        value = np.concatenate([_numbers(text, "internal_value", float), _numbers(text, "leaf_value", float)])
        parent = np.full(len(value), -1)
        for side in ("left_child", "right_child"):
            child, split = _numbers(text, side, int), np.arange(len(feature))
            own = np.where(
                child >= 0,
                child + np.repeat(first_split, splits),
                len(feature) - 1 - child + np.repeat(first_leaf, splits),
            )
            parent[own] = split
        moves, leaf = [], np.arange(leaves.sum())
        node = leaf + len(feature)
        while len(node):
            below = parent[node] >= 0
            node, leaf = node[below], leaf[below]
            up = parent[node]
            moves.append((leaf, feature[up], value[node] - value[up]))
            node = up
        at, asked, move = (np.concatenate(each) for each in zip(*moves, strict=True))
        shape = (int(leaves.sum()), self.booster.num_feature())
        return Paths(csr_matrix((move, (at, asked)), shape=shape), first_leaf, float(value[parent < 0].sum()))


def _numbers(text: str, name: str, kind: type) -> npt.NDArray[Any]:
    """Numbers of one name of all trees, one tree after the other."""
    lines = re.findall(rf"^{name}=(.*)$", text, flags=re.MULTILINE)
    return np.array(" ".join(lines).split(), dtype=kind)


def _before(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many there are in all trees before each."""
    return np.cumsum(counts) - counts
