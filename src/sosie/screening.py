"""Exact nearest neighbours in process: all pairs are screened in eight bits, and only what may be near is worked out.

A vector x is rounded to x' of eight bits, and what that took away has a known length. As x·y − x'·y' is
(x − x')·y + x'·(y − y'), it is at most |x − x'| + |x'| |y − y'| where y is of unit length: a pair whose rounded product
lies lower than the k-th best by more than that is not among the k nearest, and needs no second look. Products of eight
bits are cheap where a processor has them exact (VNNI, ARM's dot product); where it has not, floats are multiplied.
What is found is the same, and exact: the few pairs that are left are worked out in double precision, each by itself.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sosie.errors import TerminalError
from sosie.vectors import Picked, Places, Vectors

Ints = npt.NDArray[np.int32]

QUERIES, HELD = 1_024, 2_048
"""Rows of one product: its result, of four bytes a pair, stays in a core's share of the cache."""
_FEW = 128
"""Queries for which it would take longer to round what is held than to multiply it as it is."""

_NOISE = 2e-5
"""More than single precision loses in products of unit vectors."""
_FULL = 127
_MOST, _WIDEST = 4_000_000, 8_192
"""Pairs, and pairs of one query, that are left open at most: copies of a vector are as near as each other, so that no
bound parts them, and are worked out as soon as there are so many."""
_PAIRS_AT_ONCE = 1_000
"""Both sides in double precision are twice a megabyte, which a core's cache holds."""


def nearest(
    queries: Vectors, held: Vectors | Picked, k: int, floor: float, *, own: Places | None = None
) -> Iterator[tuple[Places, Places, Vectors]]:
    """The `k` of `held` with the largest inner product with each query, none below `floor`.

    Vectors are float32 [n, width], of unit length. `own` int64 [queries] is the row of `held` that is the query itself
    and not to be found, -1 where there is none. Of equal ones those that are held first are found.
    Gives (query row, held row, inner product) in blocks, in order of queries, nearest first. Beside the vectors, which
    for many queries are there a second time in eight bits, memory is that of what is found and of a block a core.
    Raises `TerminalError` where a vector has numbers that are none.
    """
    if not (len(queries) and len(held) and k):
        return
    own = np.full(len(queries), -1, np.int64) if own is None else own
    screen = _Rounded.of(held) if len(queries) > _FEW and multiplies_exactly() else _Floats(held)
    cores = (os.cpu_count() or 1) if screen.one_core_each else 1
    size = min(QUERIES, -(-len(queries) // cores))
    turned = screen.turned(_checked(queries))  # all at once: from several threads BLAS would get into its own way

    def block(start: int) -> tuple[Places, Places, Vectors]:
        asked = queries[start : start + size]
        rows, places = _screened(screen, turned[start : start + size], k + 1, floor, asked, held)
        other = places != own[start + rows]
        rows, places = rows[other], places[other]
        rows, places, products = _best(len(asked), rows, places, cosines(asked, rows, held, places), k, floor)
        return start + rows, places, products

    with ThreadPoolExecutor(cores) as pool:
        yield from pool.map(block, range(0, len(queries), size))


def cosines(left: Vectors | Picked, left_rows: Places, right: Vectors | Picked, right_rows: Places) -> Vectors:
    """Inner products of pairs of rows, float32 [n], each worked out in double precision by itself.

    A matrix product's last bits depend on what else is in it, and on which of the two asks; these depend on the pair.
    """
    products = np.empty(len(left_rows), dtype=np.float32)
    for start in range(0, len(left_rows), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        one, other = left[left_rows[part]].astype(np.float64), right[right_rows[part]].astype(np.float64)
        products[part] = np.einsum("ij,ij->i", one, other)
    return products


def _checked(vectors: Vectors) -> Vectors:
    """The same. Raises where one of their numbers is none, which makes the sum none."""
    if not np.isfinite(vectors.sum()):
        raise TerminalError("A vector has numbers that are none (NaN or infinite): embed its listing again.")
    return vectors


def _screened(
    held: "_Rounded | _Floats", turned: Vectors, k: int, floor: float, queries: Vectors, vectors: Vectors | Picked
) -> tuple[Places, Places]:
    """(query row, held row) of all pairs that may be among the `k` largest of their query and not below `floor`.

    Sorted by neither. A query's bar is the k-th best of the lowest that the products met so far can be. It is raised in
    the first block and after the second, fourth, eighth ..., so that about as many come to be left each time as `k`.
    """
    asked = held.ask(turned)
    bar = np.full(len(turned), floor - _NOISE, np.float32)
    flags = np.empty((len(turned), HELD), dtype=bool)
    met: list[tuple[Ints, Ints, Vectors, Vectors]] = []
    for number, start in enumerate(range(0, held.rows, HELD), 1):
        product, scale, doubt = asked(start)
        if number == 1 and product.shape[1] > k:
            best = np.partition(product, -k, axis=1)[:, -k]
            bar = np.maximum(bar, best.astype(np.float32) * scale - doubt)
        least = held.bar((bar - doubt) / scale)
        over = np.flatnonzero(np.greater_equal(product, least[:, None], out=flags[:, : product.shape[1]]))
        row, column = (part.astype(np.int32) for part in np.divmod(over.astype(np.uint32), product.shape[1]))
        found, off = product.ravel()[over].astype(np.float32) * scale[row], doubt[row]
        met.append((row, column + np.int32(start), found - off, found + off))
        many = sum(len(part[0]) for part in met) > _MOST
        if many or (number > 1 and number & (number - 1) == 0) or start + HELD >= held.rows:
            rows, places, lows, highs = (np.concatenate(parts) for parts in zip(*met, strict=True))
            if many or np.bincount(rows).max(initial=0) > _WIDEST:
                rows, places, lows = _settled(rows, places, cosines(queries, rows, vectors, places), k)
                highs = lows
            table, _ = _by_row(len(turned), rows, lows, -np.inf)
            if table.shape[1] >= k:
                bar = np.maximum(bar, np.partition(table, -k, axis=1)[:, -k])
            kept = np.flatnonzero(highs >= bar[rows])
            met = [(rows[kept], places[kept], lows[kept], highs[kept])]
    rows, places, _, _ = met[0]
    return rows.astype(np.int64), places.astype(np.int64)


def _settled(rows: Ints, places: Ints, products: Vectors, k: int) -> tuple[Ints, Ints, Vectors]:
    """The `k` largest of each row, by place where they are equal."""
    order = np.lexsort((places, -products, rows))
    counts = np.bincount(rows)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < k]
    return rows[kept], places[kept], products[kept]


def _best(
    queries: int, rows: Places, places: Places, products: Vectors, k: int, floor: float
) -> tuple[Places, Places, Vectors]:
    """The `k` largest of each row that are not below `floor`, in order of rows, the largest first, then by place."""
    kept = products >= floor
    rows, places, products = rows[kept], places[kept], products[kept]
    # One number a pair, which is the smaller the earlier it comes: the product from above, then the place.
    bits = products.view(np.int32).astype(np.int64)
    falling = np.where(bits < 0, bits & 0x7FFFFFFF, -bits)
    table, counts = _by_row(queries, rows, (falling << 32) + places, np.iinfo(np.int64).max)
    table.sort(axis=1)
    shown = np.arange(min(k, table.shape[1])) < np.minimum(counts, k)[:, None]
    keys = table[:, : shown.shape[1]][shown]
    falling, places = keys >> 32, keys & 0xFFFFFFFF
    bits = np.where(falling > 0, falling | ~0x7FFFFFFF, -falling).astype(np.int32)
    return np.nonzero(shown)[0], places, bits.view(np.float32)


def _by_row(number: int, rows: Places, values: npt.NDArray[Any], empty: float) -> tuple[npt.NDArray[Any], Places]:
    """Values as a table of a line a row, filled up with `empty`, and how many each line has."""
    counts = np.bincount(rows, minlength=number)
    order = np.argsort(rows.astype(np.uint16), kind="stable")  # of so small integers the sort is by radix
    starts = np.cumsum(counts) - counts
    table = np.full((number, int(counts.max(initial=0))), empty, values.dtype)
    table[rows[order], np.arange(len(rows)) - np.repeat(starts, counts)] = values[order]
    return table, counts


@dataclass(frozen=True)
class _Floats:
    """Products in single precision, by as many cores as numpy takes."""

    held: Vectors | Picked
    one_core_each = False

    @property
    def rows(self) -> int:
        return len(self.held)

    def turned(self, queries: Vectors) -> Vectors:
        """Queries as `ask` takes them."""
        return queries

    def bar(self, least: Vectors) -> Vectors:
        """The least that a product may be, in the numbers that products have."""
        return least

    def ask(self, queries: Vectors) -> Any:
        """Start of a block → (products [queries, block], what one of them is worth, how far it may be off)."""
        worth, off = np.ones(len(queries), np.float32), np.full(len(queries), _NOISE, np.float32)
        return lambda start: (queries @ _checked(self.held[start : start + HELD]).T, worth, off)


@dataclass(frozen=True)
class _Rounded:
    """Held vectors of eight bits in blocks: numbers, how long a step is, and what rounding took from the worst."""

    rows: int
    turn: Vectors
    blocks: list[tuple[npt.NDArray[np.int8], float, float]]
    one_core_each = True

    @classmethod
    def of(cls, held: Vectors | Picked) -> "_Rounded":
        """Turned first, so that no component is much larger than the others, for which all would have long steps."""
        turn = _rotation(held[:1].shape[1])
        blocks = []
        for start in range(0, len(held), HELD):
            turned = _checked(held[start : start + HELD]) @ turn
            step = (float(np.abs(turned).max()) or 1.0) / _FULL
            numbers = np.rint(turned / step)
            lost = float(np.linalg.norm(turned - step * numbers, axis=1).max())
            blocks.append((np.ascontiguousarray(numbers.T.astype(np.int8)), step, lost))
        return cls(len(held), turn, blocks)

    def turned(self, queries: Vectors) -> Vectors:
        return np.asarray(queries @ self.turn)

    def bar(self, least: Vectors) -> Ints:
        return np.floor(np.minimum(least, 2**30)).astype(np.int32)

    def ask(self, turned: Vectors) -> Any:
        """As `_Floats.ask`, in whole numbers."""
        largest = np.abs(turned).max(axis=1)
        steps = np.where(largest > 0, largest, 1.0) / _FULL
        numbers = np.rint(turned / steps[:, None])
        lost = np.linalg.norm(turned - steps[:, None] * numbers, axis=1)
        length = np.linalg.norm(steps[:, None] * numbers, axis=1)
        shifted, product = (numbers + 128).astype(np.uint8), _Product(len(turned))

        def block(start: int) -> tuple[Ints, Vectors, Vectors]:
            other, step, other_lost = self.blocks[start // HELD]
            doubt = np.asarray(lost + length * other_lost + _NOISE, np.float32)
            return product(shifted, other), np.asarray(steps * step, np.float32), doubt

        return block


@lru_cache
def _rotation(width: int) -> Vectors:
    """A fixed rotation float32 [width, width]."""
    drawn = np.random.default_rng(0).standard_normal((width, width))
    return np.asarray(np.linalg.qr(drawn)[0], dtype=np.float32)


@dataclass(frozen=True)
class _Product:
    """(uint8 [rows, width] − 128) · int8 [width, n] into the same memory each time."""

    rows: int

    @cached_property
    def _memory(self) -> Ints:
        return np.empty(self.rows * HELD, np.int32)

    def __call__(self, left: npt.NDArray[np.uint8], right: npt.NDArray[np.int8]) -> Ints:
        made = self._memory[: len(left) * right.shape[1]].reshape(len(left), right.shape[1])
        binding = _products().io_binding()
        binding.bind_cpu_input("left", left)
        binding.bind_cpu_input("right", right)
        binding.bind_output("product", "cpu", 0, np.int32, made.shape, made.ctypes.data)
        _products().run_with_iobinding(binding)
        return made


@cache
def _products() -> Any:
    """ONNX Runtime's product of integers, on one core."""
    import onnxruntime
    from onnx import TensorProto, helper

    def tensor(name: str, kind: int, *shape: str) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right", "shift"], ["product"])],
        "product",
        [tensor("left", TensorProto.UINT8, "rows", "width"), tensor("right", TensorProto.INT8, "width", "others")],
        [tensor("product", TensorProto.INT32, "rows", "others")],
        [helper.make_tensor("shift", TensorProto.UINT8, [], [128])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def multiplies_exactly() -> bool:
    """Whether this processor's products of eight bits are exact: older ones add two of them up in sixteen bits."""
    left, right = np.full((4, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)
    return bool((_Product(4)(left, right) == 64 * 127 * 127).all())
