"""Gradient-boosted trees as they are served: a pair's log-odds, and what each of its features adds to them.

Contributions are those of the decision path (Saabas 2014, "Interpreting random forests"): a step down a tree moves the
log-odds from what the tree would say if it ended at the node to what it would at the child, and the move is the
feature's that the node asks for. Like TreeSHAP's (Lundberg et al., arXiv:1802.03888) they add up to the log-odds, and
mostly name the same reasons; as they look at the one path that a pair takes, not at all that it might, they cost a
small part (both in benchmarks/decider.py).
"""

from collections.abc import Iterator
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
        from scipy.sparse import csr_matrix

        dump = self.booster.dump_model()
        trees = [tree["tree_structure"] for tree in dump["tree_info"]]
        first_leaf = np.cumsum([0, *(tree["num_leaves"] for tree in dump["tree_info"][:-1])])
        moves = [
            (first + leaf, feature, move)
            for tree, first in zip(trees, first_leaf.tolist(), strict=True)
            for leaf, way in _ways(tree)
            for feature, move in way
        ]
        leaf, feature, move = zip(*moves, strict=True) if moves else ((), (), ())
        shape = (sum(tree["num_leaves"] for tree in dump["tree_info"]), len(dump["feature_names"]))
        return Paths(csr_matrix((move, (leaf, feature)), shape=shape), first_leaf, sum(_said(tree) for tree in trees))


def _ways(node: dict[str, Any], way: tuple[tuple[int, float], ...] = ()) -> Iterator[tuple[int, Any]]:
    """Each leaf below a node, and the (feature, move) of each step down to it."""
    if "split_feature" not in node:
        yield node.get("leaf_index", 0), way
        return
    for child in (node["left_child"], node["right_child"]):
        yield from _ways(child, (*way, (node["split_feature"], _said(child) - _said(node))))


def _said(node: dict[str, Any]) -> float:
    """What the tree would say if it ended at this node."""
    return float(node["internal_value"] if "split_feature" in node else node["leaf_value"])
