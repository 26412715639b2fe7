"""Neighbour lists that are mended from their spares are those that a search from nothing gives."""

from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import blocking, neighbours
from sosie.errors import TerminalError
from sosie.neighbour_lists import NeighbourLists
from sosie.pipeline.candidates import _Moved, _shifted
from sosie.tables import NEIGHBOURS

K, FLOOR, DEPTH = 3, 0.3, 50
Places = dict[str, int]
"""Where each listing stands on a line; so few places that many are equally far."""

hours = st.lists(
    st.dictionaries(st.sampled_from("abcdefghijkl"), st.one_of(st.none(), st.integers(0, 9)), max_size=6),
    min_size=2,
    max_size=6,
)


def known(places: Places) -> neighbours.Places:
    return neighbours.Places(pl.Series(sorted(places), dtype=pl.String))


def searching(places: Places, asked: list[str]) -> Callable[..., pl.DataFrame]:
    everybody = known(places)

    def search(_: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        names = everybody.ids.gather(asking).to_list()
        asked.extend(names)
        rows = [
            (one, other, 1 - abs(places[one] - there) / 10)
            for one in names
            for other, there in places.items()
            if other != one
        ]
        found = neighbours.rounded(pl.DataFrame(rows, schema=blocking.NEIGHBOURS, orient="row"), floor)
        return blocking.nearest(found.with_columns(everybody.of(found[name]) for name in ("query_id", "listing_id")), k)

    return search


def nothing() -> NeighbourLists:
    return NeighbourLists.of(NEIGHBOURS.schema.to_frame())


def contents(places: Places) -> pl.DataFrame:
    numbers = neighbours.numbers(pl.Series(list(places), dtype=pl.String))
    rows = [(number, "text", there) for number, there in zip(numbers, places.values(), strict=True)]
    return pl.DataFrame(rows, schema=neighbours.CONTENTS, orient="row")


def after(state: NeighbourLists, was: Places, now: Places, spare: int, asked: list[str]) -> NeighbourLists:
    old, new = contents(was), contents(now)
    left, came = (one.join(other, on=one.columns, how="anti") for one, other in ((old, new), (new, old)))
    moved = _Moved("text", K, K + spare, FLOOR, left, came, known(now))
    rows = moved.lists(state, searching(now, asked), DEPTH).rows
    return state.replaced(rows, left)


@settings(max_examples=60, deadline=None)
@given(hours, st.integers(0, 3))
def test_any_history_of_moves_ends_with_the_lists_of_one_search(
    history: list[dict[str, int | None]], spare: int
) -> None:
    places: Places = {}
    state = nothing()
    for hour in history:
        now = {one: there for one, there in {**places, **hour}.items() if there is not None}
        state, places = after(state, places, now, spare, []), now
        everybody = known(now)
        wanted = searching(now, [])("text", everybody.every, K, FLOOR)
        near = everybody.named(neighbours.unpacked(state.where(), everybody, K), "query_id", "listing_id")
        assert sorted(state.where()["number"]) == sorted(everybody.numbers)
        assert near.sort("query_id", maintain_order=True).equals(everybody.named(wanted, "query_id", "listing_id"))


def test_a_list_with_spares_is_not_searched_again() -> None:
    places = {name: place for place, name in enumerate("abcdefg")}
    for spare, again in ((0, {"a", "c", "d"}), (2, set())):
        asked: list[str] = []
        rest = {name: place for name, place in places.items() if name != "b"}
        state = after(nothing(), {}, places, spare, [])
        after(state, places, rest, spare, asked)
        assert set(asked) == again


LIMITS = {"text": (4, 0.0), "image": (2, 0.0)}
EVERYBODY = neighbours.Places(pl.Series(list("abcdefgh")))
tables = st.dictionaries(
    st.tuples(st.sampled_from(list(LIMITS)), st.sampled_from("abcde")),
    st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True),
    max_size=8,
)


def rows(lists: dict[tuple[str, str], list[str]]) -> pl.DataFrame:
    def numbers(names: list[str]) -> list[int]:
        return neighbours.numbers(pl.Series(names, dtype=pl.String)).to_list()

    found = [
        (*numbers([one]), source, 0, 0.0, numbers(near), [0.5] * len(near)) for (source, one), near in lists.items()
    ]
    return pl.DataFrame(found, schema=neighbours.LIST, orient="row")


@settings(deadline=None)
@given(tables, tables, st.lists(st.sampled_from("abcdefgh"), max_size=2, unique=True))
def test_pairs_shift_where_one_comes_to_a_list_or_goes_from_it(
    before: dict[tuple[str, str], list[str]], after_: dict[tuple[str, str], list[str]], apart: list[str]
) -> None:
    was, now = (
        {(source, one, other) for (source, one), near in lists.items() for other in near[: LIMITS[source][0]]}
        for lists in (before, after_)
    )
    wanted = {tuple(sorted((one, other))) for _, one, other in was ^ now if not {one, other} & set(apart)}
    away = EVERYBODY.of(pl.Series(apart, dtype=pl.String))
    state = NeighbourLists.of(rows(before).with_columns(turn=pl.lit(0)).select(*NEIGHBOURS.columns))
    gone = rows(before).join(rows(after_), on=["number", "source"], how="anti")
    shifted = _shifted(LIMITS, state, rows(after_), gone, EVERYBODY, away)
    found = EVERYBODY.named(shifted, "left_id", "right_id")
    assert found.columns == ["left_id", "right_id"]
    assert set(found.iter_rows()) == wanted
    assert found.height == len(wanted)


def test_a_number_is_of_its_text_alone() -> None:
    assert neighbours.numbers(pl.Series(["a", None, "listing"])).to_list() == [
        -8839064797231613815,
        None,
        7429757247428303801,
    ]


def test_two_listings_of_one_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "numbers", lambda ids: ids.str.len_bytes().cast(pl.Int64))
    with pytest.raises(TerminalError, match="Listings aa and bb have one number: rename one of them"):
        _ = neighbours.Places(pl.Series(["aa", "bb", "ccc"])).numbers
