"""Grouping: what joins, what doesn't, and what no order of rows can change."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sosie.clusters import Grouping, resolve

PAIRS = {"left_id": pl.String, "right_id": pl.String, "score": pl.Float64, "verdict": pl.String}
JUDGED = {"left_id": pl.String, "right_id": pl.String, "verdict": pl.String}


def group(pairs: list[tuple], judged: list[tuple] = [], *, link: float = 0.4, size: int = 50) -> Grouping:  # noqa: B006
    return resolve(
        pl.DataFrame(pairs, schema=PAIRS, orient="row"),
        pl.DataFrame(judged, schema=JUDGED, orient="row"),
        min_mean_link=link,
        max_size=size,
    )


def sets(grouping: Grouping) -> set[frozenset[str]]:
    return {
        frozenset(members) for members in grouping.groups.group_by("group").agg("listing_id")["listing_id"].to_list()
    }


def test_matches_join_and_reviews_do_not() -> None:
    found = group([("a", "b", 0.9, "match"), ("c", "d", 0.5, "review")])
    assert sets(found) == {frozenset("ab")}


def test_a_single_match_between_two_tight_groups_is_held_as_a_weak_link() -> None:
    found = group(
        [("a", "b", 0.95, "match"), ("b", "c", 0.6, "match"), ("c", "d", 0.95, "match")],
    )
    assert sets(found) == {frozenset("ab"), frozenset("cd")}
    assert found.held.rows() == [("b", "c", "weak_link")]


def test_reviews_between_groups_weigh_in() -> None:
    chain = [("a", "b", 0.95, "match"), ("b", "c", 0.6, "match"), ("c", "d", 0.95, "match")]
    unsure = [("a", "c", 0.45, "review"), ("a", "d", 0.45, "review"), ("b", "d", 0.45, "review")]
    assert sets(group(chain + unsure)) == {frozenset("abcd")}


def test_different_is_never_joined_whatever_the_scores() -> None:
    clique = [(a, b, 0.99, "match") for a, b in ("ab", "ac", "ad", "bc", "bd", "cd")]
    found = group(clique, [("a", "d", "different")])
    assert not any({"a", "d"} <= members for members in sets(found))
    assert ("a", "d", "judged_different") in found.held.rows()


def test_same_joins_what_no_model_proposed() -> None:
    assert sets(group([], [("a", "b", "same")])) == {frozenset("ab")}
    assert sets(group([("b", "c", 0.9, "match")], [("a", "b", "same")])) == {frozenset("abc")}
    assert sets(group([("b", "c", 0.6, "match")], [("a", "b", "same")])) == {frozenset("ab"), frozenset("c")}


def test_a_group_at_its_limit_takes_no_more_and_says_so() -> None:
    ids = [f"{i:03d}" for i in range(30)]
    clique = [(a, b, 0.9, "match") for a in ids for b in ids if a < b]
    found = group(clique, size=10)
    assert max(map(len, sets(found))) <= 10
    assert set(found.held["cause"]) == {"cluster_too_large"}


def test_nothing_in_nothing_out() -> None:
    assert group([]).groups.is_empty()
    assert group([]).held.is_empty()


nodes = st.sampled_from("abcdefgh")
edges = st.dictionaries(
    st.tuples(nodes, nodes).filter(lambda pair: pair[0] < pair[1]),
    st.integers(30, 100).map(lambda n: n / 100),
    max_size=20,
)
rulings = st.dictionaries(
    st.tuples(nodes, nodes).filter(lambda pair: pair[0] < pair[1]), st.sampled_from(["same", "different"]), max_size=4
)


def scored(edges: dict[tuple[str, str], float]) -> list[tuple]:
    return [(*pair, score, "match" if score >= 0.5 else "review") for pair, score in edges.items()]


@given(edges, rulings, st.randoms())
def test_row_order_changes_nothing(edges, rulings, random) -> None:
    rows, said = scored(edges), [(*pair, verdict) for pair, verdict in rulings.items()]
    first = sets(group(rows, said))
    random.shuffle(rows)
    random.shuffle(said)
    assert sets(group(rows, said)) == first


@given(edges, rulings)
def test_every_match_is_joined_or_held_and_no_group_spans_components_or_vetoes(edges, rulings) -> None:
    rows, said = scored(edges), [(*pair, verdict) for pair, verdict in rulings.items()]
    found = group(rows, said, size=4)
    place = {member: members for members in sets(found) for member in members}
    held = {(left, right) for left, right, _ in found.held.rows()}
    for (left, right), score in edges.items():
        if score >= 0.5:
            assert (place[left] == place[right]) != ((left, right) in held)
    for (left, right), verdict in rulings.items():
        if verdict == "different":
            assert place.get(left) is None or place.get(left) != place.get(right)
    assert all(len(members) <= 4 for members in place.values())


@given(edges)
def test_components_are_independent(edges) -> None:
    """What one component holds can't change how another is cut, so only affected ones need a new look."""
    other = [("x", "y", 0.9, "match"), ("y", "z", 0.45, "review")]
    alone, together = sets(group(scored(edges))), sets(group(scored(edges) + other))
    assert together == alone | {frozenset("xy")}
