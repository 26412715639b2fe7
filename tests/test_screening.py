"""Exact neighbours by screening: whatever is rounded away first, what is found is what looking at all pairs finds."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sosie import screening
from sosie.errors import TerminalError
from sosie.vectors import Picked

Found = list[tuple[int, int, float]]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def found(queries: np.ndarray, held: np.ndarray | Picked, k: int, floor: float, own: np.ndarray | None = None) -> Found:
    blocks = screening.nearest(queries, held, k, floor, own=own)
    return [row for rows, places, products in blocks for row in zip(rows, places, products, strict=True)]


def looked_for(queries: np.ndarray, held: np.ndarray, k: int, floor: float, own: np.ndarray | None = None) -> Found:
    """Every pair worked out; of equal ones the first."""
    wanted = []
    for row, query in enumerate(queries):
        everyone = np.arange(len(held))
        products = screening.cosines(query[None], np.zeros(len(held), np.int64), held, everyone)
        ranked = sorted((-product, place) for place, product in enumerate(products) if product >= np.float32(floor))
        kept = [(row, place, -product) for product, place in ranked if own is None or place != own[row]]
        wanted += kept[:k]
    return wanted


@pytest.fixture(params=["eight bits", "floats"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of products, in blocks so small that a few vectors fill many."""
    if request.param == "floats":
        monkeypatch.setattr(screening, "multiplies_exactly", lambda: False)
    elif not screening.multiplies_exactly():
        pytest.skip("this processor does not multiply eight bits exactly")
    monkeypatch.setattr(screening, "HELD", 16)
    monkeypatch.setattr(screening, "QUERIES", 8)
    monkeypatch.setattr(screening, "_FEW", 0)
    monkeypatch.setattr(screening, "_MOST", 60)
    monkeypatch.setattr(screening, "_WIDEST", 20)
    return str(request.param)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(0, 30), st.integers(0, 90)),
    k=st.integers(0, 40),
    floor=st.sampled_from([-1.0, 0.0, 0.3, 0.9]),
    kinds=st.integers(1, 60),
    spread=st.sampled_from([0.0, 1e-3, 0.3]),
    width=st.sampled_from([1, 4, 128]),
)
def test_finds_what_looking_at_all_pairs_finds(
    arithmetic: str, seed: int, sizes: tuple[int, int], k: int, floor: float, kinds: int, spread: float, width: int
) -> None:
    """Equal vectors, nearly equal ones, and some of which one component is all there is."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((kinds, width)) * random.choice([1.0, 30.0], size=(kinds, width), p=[0.95, 0.05])

    def some(number: int) -> np.ndarray:
        drawn = centres[random.integers(kinds, size=number)]
        return unit(drawn + spread * random.standard_normal((number, width)))

    queries, held = map(some, sizes)
    assert found(queries, held, k, floor) == looked_for(queries, held, k, floor)
    elsewhere = Picked([held[::-1][: len(held) // 3], held[::-1][len(held) // 3 :]], np.arange(len(held))[::-1])
    assert found(queries, elsewhere, k, floor) == found(queries, held, k, floor)
    own = np.arange(len(held))
    assert found(held, held, k, floor, own) == looked_for(held, held, k, floor, own)


def test_blocks_as_large_as_in_use() -> None:
    random = np.random.default_rng(2)
    held = unit(random.standard_normal((700, 128))[random.integers(700, size=5_000)] + 0.1)
    queries = held[:1_500]
    own = np.arange(1_500)
    got = found(queries, held, 20, -1.0, own)
    some = random.choice(1_500, 20, replace=False)
    wanted = {(int(some[row]), place, product) for row, place, product in
              looked_for(queries[some], held, 20, -1.0, own[some])}  # fmt: skip
    assert {row for row in got if row[0] in set(some.tolist())} == wanted
    assert len(got) == 1_500 * 20


def test_thousands_of_copies_are_not_held_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are as near as each other, so that no bound parts them; the first ones are found all the same."""
    random, widest = np.random.default_rng(4), []
    held = unit(random.standard_normal((20_000, 32)))
    held[1_000:] = held[1_000]
    by_row = screening._by_row
    monkeypatch.setattr(screening, "_by_row", lambda *given: (widest.append(np.bincount(given[1]).max(initial=0)),
                                                              by_row(*given))[1])  # fmt: skip
    got = found(held[1_000:1_040], held, 5, 0.5, np.arange(1_000, 1_040))
    assert [place for row, place, _ in got if row == 39] == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert max(widest) <= screening._WIDEST


def test_most_pairs_need_no_second_look() -> None:
    random, k = np.random.default_rng(6), 20
    held = unit(random.standard_normal((20_000, 128)))
    queries = held[:200]
    for screen in (screening._Rounded.of(held), screening._Floats(held)):
        rows, _ = screening._screened(screen, screen.turned(queries), k, -1.0, queries, held)
        assert k * len(queries) <= len(rows) < 20 * k * len(queries)


def test_a_vector_of_no_numbers_is_refused() -> None:
    held = unit(np.eye(4))
    held[2, 1] = np.nan
    with pytest.raises(TerminalError, match="NaN"):
        found(unit(np.eye(4)), held, 2, -1.0)


def test_what_two_bytes_cannot_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that adds two products up in sixteen bits ends at 32,767 where 64,770 is due."""
    assert screening._Product(4)(np.full((4, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)).shape == (4, 32)
    screening.multiplies_exactly.cache_clear()
    monkeypatch.setattr(
        screening._Product, "__call__", lambda self, left, right: np.full((4, 32), 32 * 32_767 - 64 * 128 * 127)
    )
    assert not screening.multiplies_exactly()
    screening.multiplies_exactly.cache_clear()
