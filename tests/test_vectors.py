"""Vectors that stay where they lie: whatever is asked of them is what a copy of all would give."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sosie.tables import DIM, VECTOR
from sosie.vectors import Picked, frame, matrix


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 9), max_size=5),
    bounds=st.tuples(st.integers(-12, 12), st.integers(-12, 12)),
)
def test_a_part_is_what_a_copy_of_all_would_give(seed: int, sizes: list[int], bounds: tuple[int, int]) -> None:
    """In pieces as files are, some of them empty; rows in any order, some of them twice."""
    random = np.random.default_rng(seed)
    parts = [random.standard_normal((size, DIM), dtype=np.float32) for size in sizes]
    column = pl.concat([pl.Series(dtype=VECTOR), *(pl.Series(part).cast(VECTOR) for part in parts)], rechunk=False)
    rows = random.integers(sum(sizes), size=12) if sum(sizes) else np.empty(0, np.int64)
    whole = np.concatenate([np.empty((0, DIM), np.float32), *parts])[rows]
    picked, part = Picked.of(column, pl.Series(rows)), slice(*bounds)
    assert len(picked) == len(whole)
    assert np.array_equal(picked[part], whole[part])
    assert picked[part].dtype == np.float32
    some = random.integers(len(rows), size=7) if len(rows) else np.empty(0, np.int64)
    assert np.array_equal(picked[some], whole[some])


def test_nothing_is_copied_but_what_is_asked_for() -> None:
    column = frame(pl.Series(["a", "b"]), np.eye(2, DIM, dtype=np.float32))["vector"]
    picked = Picked.of(column, pl.Series([1, 0, 1]))
    assert np.shares_memory(picked.parts[0], matrix(column.to_frame()))


def test_another_width_is_refused() -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        matrix(pl.DataFrame({"vector": [[1.0, 0.0]]}, schema={"vector": VECTOR}))
