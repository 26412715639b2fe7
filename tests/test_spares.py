"""Neighbour lists that are mended from their spares are those that a search from nothing gives."""

from collections.abc import Callable

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import blocking, neighbours
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


def searching(places: Places, asked: list[str]) -> Callable[..., pl.DataFrame]:
    def search(_: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        asked.extend(asking)
        rows = [
            (one, other, 1 - abs(places[one] - there) / 10)
            for one in asking
            for other, there in places.items()
            if other != one
        ]
        found = pl.DataFrame(rows, schema=blocking.NEIGHBOURS, orient="row")
        return blocking.nearest(neighbours.rounded(found, floor), k)

    return search


def contents(places: Places) -> pl.DataFrame:
    schema = {name: NEIGHBOURS.columns[name] for name in ("listing_id", "source", "content")}
    return pl.DataFrame([(one, "text", str(there)) for one, there in places.items()], schema=schema, orient="row")


def after(state: pl.DataFrame, was: Places, now: Places, spare: int, asked: list[str]) -> pl.DataFrame:
    old, new = contents(was), contents(now)
    left, came = (one.join(other, on=one.columns, how="anti") for one, other in ((old, new), (new, old)))
    moved = _Moved("text", K, FLOOR, spare, left, came)
    rows = moved.lists(state, searching(now, asked), DEPTH).rows
    replaced = pl.concat([rows["listing_id"], left["listing_id"]])
    return pl.concat([state.filter(~pl.col("listing_id").is_in(replaced.implode())), rows])


@settings(max_examples=60, deadline=None)
@given(hours, st.integers(0, 3))
def test_any_history_of_moves_ends_with_the_lists_of_one_search(
    history: list[dict[str, int | None]], spare: int
) -> None:
    places: Places = {}
    state = NEIGHBOURS.schema.to_frame()
    for hour in history:
        now = {one: there for one, there in {**places, **hour}.items() if there is not None}
        state, places = after(state, places, now, spare, []), now
        wanted = searching(now, [])("text", pl.Series(list(now), dtype=pl.String), K, FLOOR)
        lists = {row["listing_id"]: [near["other"] for near in row["near"]] for row in state.iter_rows(named=True)}
        assert lists == {one: wanted.filter(pl.col("query_id") == one)["listing_id"].to_list() for one in now}


def test_a_list_with_spares_is_not_searched_again() -> None:
    places = {name: place for place, name in enumerate("abcdefg")}
    for spare, again in ((0, {"a", "c", "d"}), (2, set())):
        asked: list[str] = []
        rest = {name: place for name, place in places.items() if name != "b"}
        state = after(NEIGHBOURS.schema.to_frame(), {}, places, spare, [])
        after(state, places, rest, spare, asked)
        assert set(asked) == again


tables = st.dictionaries(
    st.tuples(st.sampled_from(["text", "image"]), st.sampled_from("abcde")),
    st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True),
    max_size=8,
)


def rows(lists: dict[tuple[str, str], list[str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (one, source, "", 0.0, [{"other": other, "similarity": 0.5} for other in near], [])
            for (source, one), near in lists.items()
        ],
        schema=pl.Schema(
            {name: NEIGHBOURS.columns[name] for name in ("listing_id", "source", "content", "reach", "near", "spare")}
        ),
        orient="row",
    )


@settings(deadline=None)
@given(tables, tables, st.lists(st.sampled_from("abcdefgh"), max_size=2))
def test_pairs_shift_where_one_comes_to_a_list_or_goes_from_it(
    before: dict[tuple[str, str], list[str]], after_: dict[tuple[str, str], list[str]], apart: list[str]
) -> None:
    was, now = (
        {(source, one, other) for (source, one), near in lists.items() for other in near} for lists in (before, after_)
    )
    wanted = {tuple(sorted((one, other))) for _, one, other in was ^ now if not {one, other} & set(apart)}
    found = _shifted(rows(before), rows(after_), pl.Series(apart, dtype=pl.String))
    assert found.columns == ["left_id", "right_id"]
    assert set(found.iter_rows()) == wanted
    assert found.height == len(wanted)
