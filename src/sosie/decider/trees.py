"""Gradient-boosted trees as they are served: a pair's log-odds, and what each of its features adds to them.

LightGBM grows them; ONNX Runtime asks them, in half the time (benchmarks/decider.py).

Contributions are those of the decision path (Saabas 2014, "Interpreting random forests"): a step down a tree moves the
log-odds from what the tree would say if it ended at the node to what it would at the child, and the move is the
feature's that the node asks for. So each leaf has its contributions, and a pair's are the sum over the leaves that it
comes to. Like TreeSHAP's (Lundberg et al., arXiv:1802.03888) they add up to the log-odds, and mostly name the same
reasons; as they look at the one path that a pair takes, not at all that it might, they cost a small part.
"""

import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sosie.embedding.text import side_by_side
from sosie.errors import ModelError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_AT_ONCE = 5_000
_UNKEPT = ("split_gain=", "leaf_weight=", "internal_weight=", "tree_sizes=")
"""Lines of LightGBM's text, nearly half of it, that neither an answer nor its TreeSHAP reads; it loads without them."""

_ZERO, _NAN = 1, 2
"""What LightGBM takes for missing, where it is not nothing at all; NaN counts as 0 there."""


@dataclass(frozen=True)
class Trees:
    """A LightGBM model of log-odds, by its text. `threads` 0 takes every core.

    A file of it is that text in gzip, without what nobody asks for.
    """

    text: str
    threads: int = 0

    @classmethod
    def load(cls, file: Path, threads: int = 0) -> Self:
        held = file.read_bytes()
        return cls((gzip.decompress(held) if file.suffix == ".gz" else held).decode(), threads)

    def save(self, file: Path) -> None:
        kept = [line for line in self.text.splitlines(keepends=True) if not line.startswith(_UNKEPT)]
        file.write_bytes(gzip.compress("".join(kept).encode(), mtime=0))

    def log_odds(self, values: npt.NDArray[np.float32], hopeless: float = -np.inf) -> Floats:
        """`values` float32 [pairs, features], NaN where something is missing → float64 [pairs].

        Pairs whose log-odds are not above `hopeless` after an eighth of the trees keep what those say (a cascade, Viola
        and Jones 2001): most candidates are no duplicates, and few trees are enough to see it.
        """
        if not self._few:
            return self._asked(self._further, values)[:, 0]
        found = self._asked(self._first, values)[:, 0]
        further = np.flatnonzero(found > hopeless)
        found[further] += self._asked(self._further, values[further])[:, 0]
        return found

    def contributions(self, values: npt.NDArray[np.float32]) -> Floats:
        """What each feature adds, float64 [pairs, features]; with `start` a row's sum is its log-odds."""
        return self._asked(self._moves, values)

    @property
    def start(self) -> float:
        """The log-odds before any question."""
        return float(self._forest.value[self._forest.parent < 0].sum())

    def _asked(self, session: Any, values: npt.NDArray[np.float32]) -> Floats:
        found = np.zeros((len(values), session.get_outputs()[0].shape[1]))

        def ask(part: slice) -> None:
            found[part] = session.run(None, {"values": values[part].astype(np.float64)})[0]

        side_by_side(ask, (slice(at, at + _AT_ONCE) for at in range(0, len(values), _AT_ONCE)), self.threads)
        return found

    @cached_property
    def _forest(self) -> "_Forest":
        return _Forest.read(self.text)

    @cached_property
    def _first(self) -> Any:
        return _session(self._forest.summed(0, self._few))

    @cached_property
    def _further(self) -> Any:
        return _session(self._forest.summed(self._few, len(self._forest.leaves)))

    @cached_property
    def _moves(self) -> Any:
        return _session(self._forest.explained())

    @property
    def _few(self) -> int:
        return len(self._forest.leaves) // 8


@dataclass(frozen=True)
class _Forest:
    """Nodes of all trees in arrays, all splits before all leaves.

    `leaves` int64 [trees] says how many leaves a tree has, and one split less. Of each node `tree`, `number` in it,
    `value` (what the tree would say if it ended there) and `parent` (-1 where there is none); of each split `feature`,
    `threshold`, `missing` (1 where NaN goes left) and both children's numbers.
    """

    width: int
    leaves: Ints
    tree: Ints
    number: Ints
    value: Floats
    parent: Ints
    feature: Ints
    threshold: Floats
    missing: Ints
    left: Ints
    right: Ints

    @classmethod
    def read(cls, text: str) -> Self:
        """From LightGBM's own text of a model, as its JSON takes several times as long.

        Raises `ModelError` where trees have a kind of question that ours never ask and this doesn't read.
        """
        told: dict[str, list[str]] = {}
        for line in text.splitlines():
            name, _, numbers = line.partition("=")
            told.setdefault(name, []).append(numbers)

        def all_of(name: str, kind: type) -> npt.NDArray[Any]:
            return np.fromstring(" ".join(told[name]), dtype=kind, sep=" ")

        leaves = all_of("num_leaves", np.int64)
        trees, splits = np.arange(len(leaves)), leaves - 1
        split_tree, leaf_tree = np.repeat(trees, splits), np.repeat(trees, leaves)
        split_count, first_split, first_leaf = splits[split_tree], _before(splits), _before(leaves)
        split_number = np.arange(len(split_tree)) - first_split[split_tree]
        leaf_number = np.arange(len(leaf_tree)) - first_leaf[leaf_tree] + splits[leaf_tree]
        parent = np.full(len(split_tree) + len(leaf_tree), -1)
        sides = {}
        for side in ("left_child", "right_child"):
            child = all_of(side, np.int64)  # a leaf is told as -1 - its number
            at_split = child + first_split[split_tree]
            at_leaf = len(split_tree) - 1 - child + first_leaf[split_tree]
            parent[np.where(child >= 0, at_split, at_leaf)] = np.arange(len(child))
            sides[side] = np.where(child >= 0, child, split_count - 1 - child)
        threshold, decision = all_of("threshold", np.float64), all_of("decision_type", np.int64)
        # Bit 0: a category is asked for; bit 1: what is missing goes left; bits 2 and 3 say what that is.
        absent = (decision >> 2) & 3
        if (decision & 1).any() or (absent == _ZERO).any() or any(flag != "0" for flag in told.get("is_linear", ())):
            raise ModelError(
                "The decider's trees ask for categories, take zero for missing or end in linear models, which is not "
                "served; train it again with `make train`, or restore it with `git checkout -- models`."
            )
        missing = np.where(absent == _NAN, (decision >> 1) & 1, threshold >= 0)
        return cls(
            int(told["max_feature_idx"][0]) + 1,
            leaves,
            np.concatenate([split_tree, leaf_tree]),
            np.concatenate([split_number, leaf_number]),
            np.concatenate([all_of("internal_value", np.float64), all_of("leaf_value", np.float64)]),
            parent,
            all_of("split_feature", np.int64),
            threshold,
            missing.astype(np.int64),
            sides["left_child"],
            sides["right_child"],
        )

    def summed(self, first: int, last: int) -> bytes:
        """An ONNX model of the trees from `first` to before `last`: what their leaves say together, [pairs, 1]."""
        leaf = np.arange(len(self.feature), len(self.tree))
        return self._model(first, last, leaf, np.zeros(len(leaf), np.int64), self.value[leaf], 1)

    def explained(self) -> bytes:
        """An ONNX model of all trees: what each feature adds, [pairs, features]."""
        leaf = node = np.arange(len(self.feature), len(self.tree))
        moves = [(leaf, np.zeros(len(leaf), np.int64), np.zeros(len(leaf)))]  # a tree may ask nothing
        while len(node):
            below = self.parent[node] >= 0
            node, leaf = node[below], leaf[below]
            up = self.parent[node]
            moves.append((leaf, self.feature[up], self.value[node] - self.value[up]))
            node = up
        at, asked, move = (np.concatenate(each) for each in zip(*moves, strict=True))
        return self._model(0, len(self.leaves), at, asked, move, self.width)

    def _model(self, first: int, last: int, leaf: Ints, target: Ints, weight: Floats, targets: int) -> bytes:
        """Trees of which a `leaf` (a node) adds a `weight` to a `target`."""
        from onnx import TensorProto, helper, numpy_helper

        nodes = np.argsort(self.tree, kind="stable")  # a tree's first node is where ONNX Runtime starts
        nodes = nodes[(self.tree[nodes] >= first) & (self.tree[nodes] < last)]
        mine = (self.tree[leaf] >= first) & (self.tree[leaf] < last)

        def of_splits(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.concatenate([column, np.zeros(len(self.tree) - len(column), column.dtype)])[nodes]

        forest = helper.make_node(
            "TreeEnsembleRegressor",
            ["values"],
            ["told"],
            domain="ai.onnx.ml",
            n_targets=targets,
            nodes_treeids=self.tree[nodes].tolist(),
            nodes_nodeids=self.number[nodes].tolist(),
            nodes_modes=np.where(nodes < len(self.feature), "BRANCH_LEQ", "LEAF").tolist(),
            nodes_featureids=of_splits(self.feature).tolist(),
            nodes_values_as_tensor=numpy_helper.from_array(of_splits(self.threshold)),
            nodes_truenodeids=of_splits(self.left).tolist(),
            nodes_falsenodeids=of_splits(self.right).tolist(),
            nodes_missing_value_tracks_true=of_splits(self.missing).tolist(),
            target_treeids=self.tree[leaf[mine]].tolist(),
            target_nodeids=self.number[leaf[mine]].tolist(),
            target_ids=target[mine].tolist(),
            target_weights_as_tensor=numpy_helper.from_array(weight[mine]),
        )
        graph = helper.make_graph(
            [forest],
            "trees",
            [helper.make_tensor_value_info("values", TensorProto.DOUBLE, ["pairs", self.width])],
            [helper.make_tensor_value_info("told", TensorProto.FLOAT, ["pairs", targets])],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def _session(model: bytes) -> Any:
    """Without threads of its own: several parts are asked side by side."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _before(counts: Ints) -> Ints:
    """How many there are in all trees before each."""
    return np.cumsum(counts) - counts
