"""Cluster ids that stay, and the events that tell what happened."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sosie.lineage import Lineage, evolve
from sosie.tables import CLUSTERS

LISTINGS = ("listing_id", "first_seen_run", "image_hash", "gtin", "brand", "description", "price")


def listings(ids: str) -> pl.DataFrame:
    """Listings seen in the order of their letters."""
    rows = [(i, f"2026-01-05T{ord(i) - ord('a'):02d}", None, None, None, None, None) for i in ids]
    return pl.DataFrame(rows, schema=dict.fromkeys(LISTINGS, pl.String), orient="row")


def groups(*parts: str) -> pl.DataFrame:
    rows = [(member, number) for number, part in enumerate(parts) for member in part]
    return pl.DataFrame(rows, schema={"listing_id": pl.String, "group": pl.Int64}, orient="row")


NOTHING = pl.DataFrame(schema=CLUSTERS.schema)


def step(held: pl.DataFrame, run: str, *parts: str) -> Lineage:
    return evolve(held, groups(*parts), listings("".join(parts)), run)


def events(lineage: Lineage) -> list[tuple[str, str]]:
    return sorted(lineage.events.select("kind", "cluster_id").rows())


def ids(lineage: Lineage) -> dict[str, str]:
    return dict(lineage.rows.select("listing_id", "cluster_id").iter_rows())


def test_a_cluster_forms_grows_shrinks_and_dissolves_under_one_id() -> None:
    formed = step(NOTHING, "h1", "ab", "c")
    (cluster,) = set(ids(formed).values())
    assert events(formed) == [("formed", cluster)]
    grown = step(formed.rows, "h2", "abc")
    assert events(grown) == [("grew", cluster)]
    shrunk = step(grown.rows, "h3", "ab", "c")
    assert events(shrunk) == [("shrank", cluster)]
    assert shrunk.gone["listing_id"].to_list() == ["c"]
    gone = step(shrunk.rows, "h4", "a", "b")
    assert events(gone) == [("dissolved", cluster)]
    assert gone.rows.is_empty()


def test_a_merge_keeps_the_older_id_and_a_split_gives_it_to_the_older_part() -> None:
    start = step(NOTHING, "h1", "ad", "bc")
    older, newer = ids(start)["a"], ids(start)["b"]
    merged = step(start.rows, "h2", "abcd")
    assert set(ids(merged).values()) == {older}
    assert events(merged) == [("merged", older)]
    assert merged.events["before"].item().to_list() == sorted([older, newer])
    split = step(merged.rows, "h3", "ad", "bc")
    assert ids(split)["a"] == older
    assert ids(split)["b"] not in {older, newer}
    assert ("split", older) in events(split)


def test_a_cluster_that_loses_its_oldest_listing_keeps_its_id() -> None:
    start = step(NOTHING, "h1", "abc")
    left = evolve(start.rows, groups("bc"), listings("bc"), "h2")
    assert set(ids(left).values()) == set(ids(start).values())
    assert events(left) == [("shrank", ids(start)["a"])]
    assert left.gone["listing_id"].to_list() == ["a"]


def test_an_hour_run_again_after_a_veto_gives_no_id_twice() -> None:
    first = step(NOTHING, "h1", "bc", "ad")
    merged = step(first.rows.clear(), "h2", "abcd")
    split = evolve(merged.rows, groups("bc", "ad"), listings("abcd").with_columns(
        first_seen_run=pl.when(pl.col("listing_id").is_in(["b", "c"])).then(pl.lit("h0")).otherwise(pl.lit("h1"))
    ), "h2")  # fmt: skip
    assert ids(split)["b"] != ids(split)["a"]
    assert ids(split)["b"] == ids(merged)["b"]


def test_the_most_complete_listing_is_canonical() -> None:
    known = listings("abc").with_columns(brand=pl.when(pl.col("listing_id") == "b").then(pl.lit("Nike")))
    found = evolve(NOTHING, groups("abc"), known, "h1")
    assert set(found.rows["canonical_id"]) == {"b"}
    assert set(step(NOTHING, "h1", "bc").rows["canonical_id"]) == {"b"}, "else the one known longest"


partitions = st.lists(st.integers(0, 3), min_size=8, max_size=8).map(
    lambda places: ["".join(m for m, p in zip("abcdefgh", places, strict=True) if p == n) for n in set(places)]
)


@given(st.lists(partitions, min_size=1, max_size=5))
def test_ids_are_one_a_group_and_running_again_changes_nothing(history: list[list[str]]) -> None:
    held = NOTHING
    for hour, parts in enumerate(history):
        found = step(held, f"h{hour}", *parts)
        for part in parts:
            assert len({ids(found).get(member) for member in part}) == 1
        assert len(set(ids(found).values())) == sum(len(part) > 1 for part in parts)
        assert set(found.gone["listing_id"]) == set(held["listing_id"]) - set(ids(found))
        again = step(found.rows, f"h{hour}", *parts)
        assert ids(again) == ids(found)
        assert again.events.is_empty()
        held = found.rows


@given(partitions, partitions)
def test_every_membership_change_is_told(before: list[str], after: list[str]) -> None:
    start = step(NOTHING, "h1", *before)
    found = step(start.rows, "h2", *after)
    changed = {m for m in "abcdefgh" if ids(start).get(m) != ids(found).get(m)}
    told = {c for row in found.events.iter_rows(named=True) for c in (row["cluster_id"], *row["before"], *row["after"])}
    for member in changed:
        assert told & {ids(start).get(member), ids(found).get(member)}
