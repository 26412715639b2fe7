"""Blocking: exact neighbours, exact keys, and a union that is symmetric, capped and counted."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sosie import blocking
from sosie.blocking import ExactKeys

IDS = st.integers(0, 12).map(lambda number: f"l{number:02}")


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def neighbours(rows: list[tuple[str, str, float]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=blocking.NEIGHBOURS, orient="row")


def keyed(rows: list[tuple[str, str, str]]) -> ExactKeys:
    return ExactKeys(
        pl.DataFrame(rows, schema=dict.fromkeys(("query_id", "listing_id", "source"), pl.String), orient="row")
    )


DIRECTED = st.lists(st.tuples(IDS, IDS, st.floats(0, 1, width=32)), unique_by=lambda row: row[:2], max_size=60)
KEYED = st.lists(st.tuples(IDS, IDS, st.sampled_from(["gtin", "title"])), unique=True, max_size=20)


def test_join_is_the_exact_inner_product() -> None:
    random = np.random.default_rng(1)
    vectors = unit(random.normal(size=(300, 16)))
    ids = pl.Series([f"l{number:03}" for number in range(300)])
    found = blocking.join(ids[:50], vectors[:50], ids, vectors, k=7, min_similarity=-1)

    similar = vectors[:50] @ vectors.T
    np.fill_diagonal(similar, -2)
    best = np.argsort(-similar, axis=1)[:, :7]
    assert found["listing_id"].to_list() == [ids[int(place)] for place in best.ravel()]
    np.testing.assert_allclose(found["similarity"], np.sort(similar, axis=1)[:, :-8:-1].ravel(), atol=1e-5)
    assert dict(found.schema) == dict(blocking.NEIGHBOURS)


def test_join_keeps_the_floor_and_never_finds_the_listing_itself() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32))
    ids = pl.Series(["a", "b", "c"])
    found = blocking.join(ids, vectors, ids, vectors, k=10, min_similarity=0.5)
    assert found.select("query_id", "listing_id").rows() == [("a", "b"), ("b", "a")]


@pytest.mark.parametrize(("queries", "held", "k"), [(0, 3, 2), (3, 0, 2), (3, 3, 0)])
def test_join_of_nothing_is_empty(queries: int, held: int, k: int) -> None:
    vectors = unit(np.ones((3, 4)))
    ids = pl.Series(["a", "b", "c"])
    found = blocking.join(ids[:queries], vectors[:queries], ids[:held], vectors[:held], k, 0.0)
    assert found.is_empty()
    assert dict(found.schema) == dict(blocking.NEIGHBOURS)


def test_join_does_not_depend_on_row_order_even_with_equal_vectors() -> None:
    vectors = unit(np.array([[1, 0]] * 6 + [[0, 1]] * 3, dtype=np.float32))
    ids = pl.Series([f"l{number}" for number in range(9)])
    order = np.random.default_rng(0).permutation(9)
    first = blocking.join(ids, vectors, ids, vectors, 3, 0.1)
    second = blocking.join(ids.gather(order), vectors[order], ids.gather(order), vectors[order], 3, 0.1)
    assert_frame_equal(first, second)


CATALOGUE = pl.DataFrame(
    {
        "listing_id": ["a", "b", "c", "d", "e"],
        "title": ["Red Shoe, 42", "red shoe 42!", "★", None, "Blue"],
        "gtin": ["0012345678905", "12345678905", None, "12345678905", ""],
        "image_hash": ["x", None, "x", "y", "z"],
        "image_phash": ["FF00", "ff00", None, "", "1"],
    }
)


def test_exact_keys_join_what_is_equal_and_nothing_that_is_empty() -> None:
    found = blocking.exact_keys(pl.Series(["a"]), blocking.keyed(CATALOGUE), limit=10)
    assert found.pairs.rows() == [
        ("a", "b", "gtin"),
        ("a", "b", "phash"),
        ("a", "b", "title"),
        ("a", "c", "image_hash"),
        ("a", "d", "gtin"),
    ]
    assert set(found.skipped.values()) == {0}


def test_a_key_that_too_many_share_is_skipped_and_counted() -> None:
    found = blocking.exact_keys(CATALOGUE["listing_id"], blocking.keyed(CATALOGUE), limit=2)
    assert found.skipped == {"gtin": 1, "image_hash": 0, "phash": 0, "title": 0}
    assert "gtin" not in found.pairs["source"]


def test_exact_keys_work_on_the_columns_that_are_there() -> None:
    found = blocking.exact_keys(
        CATALOGUE["listing_id"], blocking.keyed(CATALOGUE.select("listing_id", "gtin")), limit=5
    )
    assert set(found.pairs["source"]) == {"gtin"}
    assert blocking.keyed(CATALOGUE.select("listing_id")).is_empty()
    nothing = blocking.exact_keys(pl.Series([], dtype=pl.String), blocking.keyed(CATALOGUE), limit=5)
    assert nothing.pairs.is_empty()


def test_candidates_say_every_source_that_proposed_them() -> None:
    found = blocking.candidates(
        {"text": neighbours([("b", "a", 0.9)]), "image": neighbours([("a", "b", 0.8), ("a", "c", 0.7)])},
        keyed([("a", "b", "gtin")]),
    )
    assert found.pairs.rows() == [("a", "b", ["gtin", "image", "text"]), ("a", "c", ["image"])]
    assert found.by_source == {"gtin": 1, "image": 2, "text": 1}
    assert found.counts["candidates"] == 2


def test_the_cap_prefers_exact_keys_then_rank_and_is_counted() -> None:
    text = neighbours([("a", other, 0.9 - place / 100) for place, other in enumerate("bcdef")])
    found = blocking.candidates({"text": text}, keyed([("a", "z", "gtin")]), per_listing_cap=3)
    assert found.pairs["right_id"].to_list() == ["b", "c", "z"]
    assert (found.capped_listings, found.capped_pairs) == (1, 3)


def test_no_sources_no_candidates() -> None:
    found = blocking.candidates({}, None)
    assert found.pairs.is_empty()
    assert dict(found.pairs.schema) == dict(blocking.PAIRS)
    assert blocking.candidates({"text": neighbours([])}, keyed([])).pairs.is_empty()


@settings(deadline=None, max_examples=60)
@given(text=DIRECTED, image=DIRECTED, keys=KEYED, cap=st.integers(1, 6), seed=st.integers(0, 99))
def test_candidates_are_ordered_unique_capped_and_independent_of_row_order(
    text: list[tuple[str, str, float]],
    image: list[tuple[str, str, float]],
    keys: list[tuple[str, str, str]],
    cap: int,
    seed: int,
) -> None:
    sources = {"text": neighbours(text), "image": neighbours(image)}
    exact = keyed(keys)
    found = blocking.candidates(sources, exact, cap)
    pairs = found.pairs
    assert (pairs["left_id"] < pairs["right_id"]).all()
    assert pairs.select("left_id", "right_id").is_unique().all()
    queries = {row[0] for row in (*text, *image, *keys) if row[0] != row[1]}
    assert pairs.height <= cap * len(queries)
    proposed = {frozenset(row[:2]) for row in (*text, *image, *keys) if row[0] != row[1]}
    assert {frozenset(row) for row in pairs.select("left_id", "right_id").iter_rows()} <= proposed
    assert found.capped_pairs == len(proposed) - pairs.height
    if not found.capped_listings:
        assert found.capped_pairs == 0

    shuffled = blocking.candidates(
        {name: frame.sample(fraction=1, shuffle=True, seed=seed) for name, frame in sources.items()},
        ExactKeys(exact.pairs.sample(fraction=1, shuffle=True, seed=seed)),
        cap,
    )
    assert_frame_equal(pairs, shuffled.pairs)


@settings(deadline=None, max_examples=40)
@given(text=DIRECTED)
def test_uncapped_candidates_are_symmetric(text: list[tuple[str, str, float]]) -> None:
    """A pair comes out the same whichever of its ends asked."""
    turned = [(other, query, similarity) for query, other, similarity in text]
    assert_frame_equal(
        blocking.candidates({"text": neighbours(text)}, None, 1_000).pairs,
        blocking.candidates({"text": neighbours(turned)}, None, 1_000).pairs,
    )
