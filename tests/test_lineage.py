"""Cluster ids that stay, and the events that tell what happened."""

from pathlib import Path

import polars as pl
from homes import run_of
from hypothesis import given
from hypothesis import strategies as st

from sosie.lineage import Lineage, evolve
from sosie.pipeline.regroup import regroup
from sosie.pipeline.run import Run, Tally
from sosie.tables import CLUSTERS, PAIRS
from sosie.tables import LISTINGS as CATALOGUE

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
    return evolve(held, groups(*parts), listings("".join(parts)), run, held["cluster_id"])


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
    left = evolve(start.rows, groups("bc"), listings("bc"), "h2", start.rows["cluster_id"])
    assert set(ids(left).values()) == set(ids(start).values())
    assert events(left) == [("shrank", ids(start)["a"])]
    assert left.gone["listing_id"].to_list() == ["a"]


def test_an_hour_run_again_after_a_veto_gives_no_id_twice() -> None:
    first = step(NOTHING, "h1", "bc", "ad")
    merged = step(first.rows.clear(), "h2", "abcd")
    split = evolve(merged.rows, groups("bc", "ad"), listings("abcd").with_columns(
        first_seen_run=pl.when(pl.col("listing_id").is_in(["b", "c"])).then(pl.lit("h0")).otherwise(pl.lit("h1"))
    ), "h2", merged.rows["cluster_id"])  # fmt: skip
    assert ids(split)["b"] != ids(split)["a"]
    assert ids(split)["b"] == ids(merged)["b"]


def catalogue(run: Run, *rows: tuple[str, str]) -> None:
    """Let the lake hold these listings, each with the run in which it was first seen."""
    known = [
        dict.fromkeys(CATALOGUE.columns)
        | {"listing_id": one, "content_hash": one, "is_deleted": False, "updated_at": run.hour, "first_seen_run": seen}
        for one, seen in rows
    ]
    run.lake.upsert(CATALOGUE, pl.DataFrame(known, schema=CATALOGUE.schema))


def matched(run: Run, *pairs: str) -> None:
    """Let these be all the pairs that the lake holds."""
    rows = [
        dict.fromkeys(PAIRS.columns) | {"left_id": left, "right_id": right, "score": 0.99, "verdict": "match"}
        for left, right in pairs
    ]
    run.lake.rewrite(PAIRS, pl.DataFrame(rows, schema=PAIRS.schema), len(rows))


def regrouped(run: Run, *seeds: str) -> dict[str, str]:
    """Cluster ids by listing, after the run grouped anew what hangs together with the seeds."""
    nobody = pl.DataFrame(schema=dict.fromkeys(("left_id", "right_id", "verdict"), pl.String))
    regroup(run, Tally(), pl.Series("listing_id", seeds), nobody, run.lake.read(CLUSTERS))
    return dict(run.lake.read(CLUSTERS).select("listing_id", "cluster_id").iter_rows())


def test_an_hour_run_again_gives_no_id_that_a_cluster_elsewhere_holds(tmp_path: Path) -> None:
    nine, ten = run_of(tmp_path, "2026-01-05T09"), run_of(tmp_path, "2026-01-05T10")
    catalogue(nine, ("a", nine.id), ("b", nine.id))
    matched(nine, "ab")
    first = regrouped(nine, "a", "b")["b"]
    catalogue(ten, ("d", ten.id))
    matched(ten, "bd")
    assert regrouped(ten, "a", "b", "d") == {"b": first, "d": first}, "a left it, and another hour's cluster lives on"
    catalogue(nine, ("x", nine.id))  # by a late file
    matched(ten, "bd", "ax")
    again = regrouped(nine, "a", "x")
    assert again["a"] == again["x"] != first
    assert again["b"] == again["d"] == first
    assert regrouped(nine, "a", "x") == again, "its step may die after the clusters were written"


def test_the_most_complete_listing_is_canonical() -> None:
    known = listings("abc").with_columns(brand=pl.when(pl.col("listing_id") == "b").then(pl.lit("Nike")))
    found = evolve(NOTHING, groups("abc"), known, "h1", [])
    assert set(found.rows["canonical_id"]) == {"b"}
    assert set(step(NOTHING, "h1", "bc").rows["canonical_id"]) == {"b"}, "else the one known longest"


def partitions_of(members: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.integers(0, len(members) // 2 - 1), min_size=len(members), max_size=len(members)).map(
        lambda places: ["".join(m for m, p in zip(members, places, strict=True) if p == n) for n in set(places)]
    )


partitions = partitions_of("abcdefgh")


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


turns = st.tuples(st.sets(st.sampled_from("abcde"), min_size=1, max_size=2), partitions_of("abcde"))


@given(st.lists(turns, min_size=15, max_size=15))
def test_no_two_clusters_of_a_catalogue_get_one_id(history: list[tuple[set[str], list[str]]]) -> None:
    """Each turn groups some of the catalogue anew, by one hour that runs again and again."""
    together, held = list("abcde"), NOTHING
    for seeds, drawn in history:
        touched = "".join(group for group in together if seeds & set(group))
        apart = [group for group in together if not seeds & set(group)]
        parts = [part for one in drawn if (part := "".join(member for member in one if member in touched))]
        inside = pl.col("listing_id").is_in(list(touched))
        turn = (held.filter(inside), groups(*parts), listings(touched), "h1", held["cluster_id"])
        found = evolve(*turn)
        assert found.rows.equals(evolve(*turn).rows), "a step that died before it wrote them says the same again"
        together, held = apart + parts, pl.concat([held.filter(~inside), found.rows])
        assert held["cluster_id"].n_unique() == sum(len(group) > 1 for group in together)
