"""Lists of neighbours that are appended hold what lists that are replaced would."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import neighbours
from sosie.lake import Lake, Written
from sosie.neighbour_lists import NeighbourLists
from sosie.tables import NEIGHBOURS

Held = dict[tuple[int, str], int]

keys = st.tuples(st.integers(0, 30), st.sampled_from(["text", "gtin"]))
hours = st.lists(st.dictionaries(keys, st.one_of(st.none(), st.integers(0, 9)), max_size=8), max_size=6)


def rows(lists: Held) -> pl.DataFrame:
    """A list whose only neighbour tells what it holds."""
    found = [(number, source, what, -1.0, [what], [0.5]) for (number, source), what in lists.items()]
    return pl.DataFrame(found, schema=neighbours.LIST, orient="row")


def held(lists: NeighbourLists) -> Held:
    found = lists.where()
    assert found.schema == neighbours.LIST
    told = {(row["number"], row["source"]): row["content_hash"] for row in found.iter_rows(named=True)}
    assert len(told) == found.height
    assert found["others"].list.first().equals(found["content_hash"], check_names=False)
    return told


def hour(lake: Lake, moves: dict[tuple[int, str], int | None]) -> Written:
    before = NeighbourLists.read(lake)
    gone = rows({key: 0 for key, what in moves.items() if what is None and key in held(before)})
    after = before.replaced(rows({key: what for key, what in moves.items() if what is not None}), gone)
    assert held(after) == apply(held(before), moves)
    return after.write(lake, "2026-01-05T00")


def apply(lists: Held, moves: dict[tuple[int, str], int | None]) -> Held:
    return {key: what for key, what in {**lists, **moves}.items() if what is not None}


@settings(max_examples=25, deadline=timedelta(seconds=30))
@given(st.dictionaries(keys, st.integers(0, 9), max_size=60), hours)
def test_any_history_of_lists_reads_as_the_last_of_each(
    tmp_path_factory: pytest.TempPathFactory, first: Held, history: list[dict[tuple[int, str], int | None]]
) -> None:
    lake, wanted = Lake(str(tmp_path_factory.mktemp("lake"))), dict(first)
    hour(lake, dict(first))
    for moves in history:
        hour(lake, moves)
        wanted = apply(wanted, moves)
        found = NeighbourLists.read(lake)
        assert held(found) == wanted
        assert held(NeighbourLists.of(lake.read(NEIGHBOURS))) == wanted
        few = found.where(pl.col("source") == "text", columns=["number"])["number"].sort()
        assert few.to_list() == sorted(number for number, source in wanted if source == "text")


def test_few_changes_are_appended_and_many_write_the_table_anew(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert hour(lake, {(number, "text"): 1 for number in range(100)}) == Written(updated=100)
    assert hour(lake, {(number, "text"): 2 for number in range(39)} | {(39, "text"): None}) == Written(updated=40)
    assert lake.read(NEIGHBOURS).height == 140
    assert hour(lake, {}) == Written()
    assert lake.version(NEIGHBOURS) == 2
    hour(lake, {(number, "text"): 3 for number in range(40)})
    assert lake.read(NEIGHBOURS)["turn"].unique().to_list() == [0], "half was overtaken"
    assert lake.read(NEIGHBOURS).height == 100


def test_lists_that_are_made_anew_take_the_place_of_all(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    hour(lake, {(number, "text"): 1 for number in range(10)})
    again = NeighbourLists.read(lake, anew=True)
    assert again.where().is_empty()
    some = {(3, "text"): 5}
    assert again.replaced(rows(some), rows({})).write(lake, "2026-01-05T01") == Written(updated=11)
    assert held(NeighbourLists.read(lake)) == some
