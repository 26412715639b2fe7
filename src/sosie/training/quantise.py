"""int8 quantisation of a transformer's ONNX graph, a scale per token (or patch) and a scale per output channel.

ONNX Runtime's own dynamic quantisation takes one scale per activation tensor, so that a title's vector depends on the
other titles in its batch (cosine to itself 0.99 here). A scale per token (vector-wise quantisation, Dettmers et al.
2022, arXiv:2208.07339) gives a title the same vector in every batch and halves the distance to float32.

Weights use seven of the eight bits: CPUs without VNNI add pairs of products in int16, which eight bits overflow, and
the same title would get another vector on another machine.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sosie.errors import ModelError

_WEIGHT_LEVELS = 63
_LEVELS = 127
PARITY = 0.99
_LARGE = 10_000
"""Tables with fewer numbers stay in float."""


def held_to_parity(encoder: str, parity: dict[str, float]) -> dict[str, float]:
    """`parity` itself, of cosines to the model in float32. Raises `ModelError` where the mean is below 0.99."""
    if parity["cosine_mean"] < PARITY:
        raise ModelError(
            f"The quantised graph of {encoder} has a mean cosine of {parity['cosine_mean']} to the model that was "
            f"trained; at least {PARITY} is asked for. Serving it would be serving another model."
        )
    return parity


def quantise(source: Path, out: Path) -> None:
    """Replace every product with a constant and every lookup in a large table by their int8 forms.

    `source` and `out` may be the same file.
    """
    model = onnx.load(source)
    graph = model.graph
    work = _Work({held.name: held for held in graph.initializer})
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in work.constants:
            work.product(node)
        elif node.op_type == "Gemm" and node.input[1] in work.constants and work.is_plain(node):
            work.layer(node)
        elif node.op_type == "Gather" and work.is_large_table(node.input[0]):
            work.lookup(node)
        else:
            work.nodes.append(node)
    kept = [held for held in graph.initializer if held.name not in work.replaced]
    del graph.node[:]
    graph.node.extend(work.nodes)
    del graph.initializer[:]
    graph.initializer.extend([*kept, *work.added.values()])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.checker.check_model(model)
    onnx.save(model, out)


@dataclass
class _Work:
    constants: dict[str, TensorProto]
    nodes: list[NodeProto] = field(default_factory=list)
    added: dict[str, TensorProto] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    quantised: set[str] = field(default_factory=set)

    def is_large_table(self, name: str) -> bool:
        held = self.constants.get(name)
        return held is not None and held.data_type == TensorProto.FLOAT and int(np.prod(held.dims)) >= _LARGE

    def is_plain(self, node: NodeProto) -> bool:
        """Whether a Gemm is `x @ w.T + bias`, as torch writes a layer over a matrix, and nothing more."""
        told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        extras = {"alpha": 1.0, "beta": 1.0, "transA": 0} | {k: v for k, v in told.items() if k != "transB"}
        return len(node.input) == 3 and told.get("transB") == 1 and extras == {"alpha": 1.0, "beta": 1.0, "transA": 0}

    def product(self, node: NodeProto) -> None:
        """`x @ w` → integers times a scale per token and a scale per column."""
        x, name = node.input
        self._product(x, name, self._take(name), node.output[0])

    def layer(self, node: NodeProto) -> None:
        """`x @ w.T + bias`."""
        x, name, bias = node.input
        y = node.output[0]
        self._product(x, name, self._take(name).T, f"{y}/product")
        self._add("Add", [f"{y}/product", bias], y)

    def _product(self, x: str, name: str, weight: np.ndarray, y: str) -> None:
        scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / _WEIGHT_LEVELS
        integers = self._constant(f"{name}/int8", np.round(weight / scale).astype(np.int8))
        columns = self._constant(f"{name}/scale", scale.astype(np.float32))
        self._quantise_tokens(x, width=weight.shape[0])
        # ONNX Runtime's own form of MatMulInteger scales the columns while the product is in the cache.
        whole = self._constant("quantise/whole", np.float32(1.0))
        inputs = [f"{x}/int8", integers, whole, columns, self._zero()]
        self._add("MatMulIntegerToFloat", inputs, f"{y}/float", domain="com.microsoft")
        self._add("Mul", [f"{y}/float", f"{x}/scale"], y)

    def lookup(self, node: NodeProto) -> None:
        """A row of a float table → a row of int8 and its scale."""
        name, places = node.input
        table = self._take(name)
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / _LEVELS
        integers = self._constant(f"{name}/int8", np.round(table / scale).astype(np.int8))
        scales = self._constant(f"{name}/scale", scale.astype(np.float32))
        y = node.output[0]
        self._add("Gather", [integers, places], f"{y}/int8", axis=0)
        self._add("Cast", [f"{y}/int8"], f"{y}/float", to=TensorProto.FLOAT)
        self._add("Gather", [scales, places], f"{y}/scale", axis=0)
        self._add("Mul", [f"{y}/float", f"{y}/scale"], y)

    def _quantise_tokens(self, x: str, width: int) -> None:
        """`x` [.., tokens, width] → `x/int8` (uint8 about 128) and `x/scale` [.., tokens, 1]; once for each `x`."""
        if x in self.quantised:
            return
        self.quantised.add(x)
        self._add("Abs", [x], f"{x}/abs")
        self._add("ReduceMax", [f"{x}/abs"], f"{x}/max", axes=[-1], keepdims=1)
        self._add("Max", [f"{x}/max", self._constant("quantise/least", np.float32(1e-12))], f"{x}/range")
        self._add("Mul", [f"{x}/range", self._constant("quantise/step", np.float32(1 / _LEVELS))], f"{x}/scale")
        # QuantizeLinear knows one scale a row only of a matrix, and does in one pass what takes four nodes otherwise.
        rows = self._constant(f"quantise/rows_of_{width}", np.array([-1, width], dtype=np.int64))
        self._add("Reshape", [x, rows], f"{x}/matrix")
        line = self._constant("quantise/line", np.array([-1], dtype=np.int64))
        self._add("Reshape", [f"{x}/scale", line], f"{x}/scales")
        self._add("Shape", [f"{x}/scales"], f"{x}/count")
        self._add("Expand", [self._zero(), f"{x}/count"], f"{x}/zeros")
        self._add("QuantizeLinear", [f"{x}/matrix", f"{x}/scales", f"{x}/zeros"], f"{x}/integers", axis=0)
        self._add("Shape", [x], f"{x}/shape")
        self._add("Reshape", [f"{x}/integers", f"{x}/shape"], f"{x}/int8")

    def _zero(self) -> str:
        return self._constant("quantise/zero", np.uint8(128))

    def _take(self, name: str) -> np.ndarray:
        self.replaced.add(name)
        return np.asarray(numpy_helper.to_array(self.constants[name]), dtype=np.float32)

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self.added.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
