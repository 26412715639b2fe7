"""A pair among the pairs around it: worked examples, and the laws that incremental runs stand on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.decider.neighbourhood import FLOOR, NAMES, surroundings


def of(edges: list[tuple[int, int, float]], listings: int = 6) -> list[dict[str, float]]:
    if not edges:
        return []
    found = surroundings(
        np.array([edge[:2] for edge in edges], np.int64), np.array([edge[2] for edge in edges]), listings
    )
    return [dict(zip(NAMES, row.tolist(), strict=True)) for row in found]


def test_a_triangle_speaks_for_each_of_its_sides() -> None:
    side = of([(0, 1, 0.5), (0, 2, 0.9), (1, 2, 0.8)])[0]
    assert side["first_score"] == 0
    np.testing.assert_allclose((side["gap_less"], side["gap_more"]), (-0.4, -0.3), atol=1e-6)
    assert (side["rank_better"], side["rank_worse"]) == (1, 1)
    np.testing.assert_allclose((side["others_less"], side["others_more"]), (0.8, 0.9), atol=1e-6)
    np.testing.assert_allclose((side["shared_best"], side["shared_sum"]), (0.8, 0.8), atol=1e-6)
    np.testing.assert_allclose((side["linked_less"], side["linked_more"]), (0.8, 0.9), atol=1e-6)


def test_a_chain_has_nobody_in_common() -> None:
    link = of([(0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.9)])[1]
    assert link["shared_best"] == link["shared_sum"] == 0
    assert link["linked_less"] == link["linked_more"] == 0


def test_alone_there_is_nothing_to_compare_with() -> None:
    (only,) = of([(0, 1, 0.7)])
    assert (only["rank_better"], only["rank_worse"], only["others_more"]) == (0, 0, 0)
    assert np.isnan(only["linked_less"])
    assert np.isnan(only["linked_more"])
    np.testing.assert_allclose(only["gap_less"], 0.7, atol=1e-6)


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[int, int, float]]:
    pairs = draw(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda ends: ends[0] < ends[1])))
    score = st.floats(0.0, 1.0).map(lambda value: round(value, 2))
    return [(left, right, draw(score)) for left, right in sorted(pairs)]


@settings(deadline=None, max_examples=200)
@given(graphs(), st.permutations(range(8)), st.randoms())
def test_neither_names_nor_sides_nor_order_matter(edges, names, random) -> None:
    if not edges:
        return
    order = list(range(len(edges)))
    random.shuffle(order)
    turned = [(names[edges[i][1]], names[edges[i][0]], edges[i][2]) for i in order]
    for place, row in zip(order, of(turned, 8), strict=True):
        np.testing.assert_allclose(list(row.values()), list(of(edges, 8)[place].values()), atol=1e-5)


@settings(deadline=None, max_examples=200)
@given(graphs(), st.integers(0, 7))
def test_only_pairs_of_a_pair_s_own_ends_matter(edges, end) -> None:
    """What an hourly run relies on: with all pairs of both ends at hand, the rest of the catalogue changes nothing."""
    whole = of(edges, 8)
    for place, (left, right, _) in enumerate(edges):
        near = [edge for edge in edges if {left, right} & set(edge[:2])]
        alone = of(near, 8)[near.index(edges[place])]
        np.testing.assert_allclose(list(alone.values()), list(whole[place].values()), atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(graphs(), graphs())
def test_pairs_below_the_floor_are_no_surroundings(edges, others) -> None:
    known = {edge[:2] for edge in edges}
    faint = [(left, right, score * FLOOR * 0.99) for left, right, score in others if (left, right) not in known]
    for row, beside in zip(of(edges, 8), of(edges + faint, 8), strict=False):
        np.testing.assert_allclose(list(row.values()), list(beside.values()), atol=1e-6)
