"""The pairs that are worth a decision after this hour's moves, from kept lists of neighbours and few searches."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from sosie import blocking, neighbours
from sosie.lake import Lake
from sosie.neighbours import CONTENTS, PLACE, Places
from sosie.pipeline.retrieval import Limits, Retrieval, limits
from sosie.settings import Blocking
from sosie.tables import NEIGHBOURS

_SIDES = ["left_id", "right_id"]
_ORDERED = {
    "left_id": pl.min_horizontal("query_id", "listing_id"),
    "right_id": pl.max_horizontal("query_id", "listing_id"),
}


@dataclass(frozen=True)
class Proposed:
    """`pairs`: every pair with an end among `asked`, and of `shifted` (left_id, right_id) those that are proposed.

    Together they are all pairs whose proposal could have changed: `asked` are listings that changed, or share their
    keys with others than before; `shifted` are pairs of which one end came to the other's list, or went from it.
    `counts` for the manifest; `lists` are all of tables.NEIGHBOURS from now on, of which `moved` rows are others.
    """

    pairs: pl.DataFrame
    asked: pl.Series
    shifted: pl.DataFrame
    counts: dict[str, int]
    lists: pl.DataFrame
    moved: int


def propose(lake: Lake, rules: Blocking, retrieve: Retrieval, touched: pl.Series, *, anew: bool) -> Proposed:
    """All pairs that this hour can have made, changed or unmade. `touched` are listings that changed or went.

    With `anew` nothing that is held counts, and every live listing is asked.
    """
    sources, places = limits(rules), retrieve.places
    state, stored = _state(lake, [*sources, *blocking.KEYS], anew)
    stirred = pl.col("number").is_in(neighbours.numbers(touched).implode())
    old = pl.concat([rows.filter(stirred).select(*CONTENTS) for rows in state.values()])
    living = places.of(touched).drop_nulls().unique().sort()
    new = places.contents(retrieve.catalogue, places.every if anew else living, state)
    left, came = old.join(new, on=list(CONTENTS), how="anti"), new.join(old, on=list(CONTENTS), how="anti")

    mended = {source: _keys(came, source) for source in blocking.KEYS}
    crowded, refilled = 0, 0
    for source, (k, floor) in sources.items():
        own = pl.col("source") == source
        long = k + math.ceil(k * rules.spare_neighbours)
        moved = _Moved(source, k, long, floor, left.filter(own), came.filter(own), places)
        lists = moved.lists(state[source], retrieve, rules.reverse_neighbours)
        mended[source] = lists.rows
        crowded, refilled = crowded + lists.crowded, refilled + lists.refilled
    stale = left.join(came, on=["number", "source"], how="anti")
    before, now = {}, {}
    for source, rows in mended.items():
        gone = stale.filter(pl.col("source") == source)["number"]
        replaced = pl.col("number").is_in(pl.concat([rows["number"], gone]).implode())
        before[source] = state[source].filter(replaced)
        now[source] = pl.concat([state[source].filter(~replaced), rows])

    keyed = places.placed(
        pl.concat([now[source].select(*CONTENTS) for source in blocking.KEYS]), "listing_id", "number"
    )
    room = rules.candidates_per_listing - sum(k for k, _ in sources.values())
    may_overflow = _partners(keyed, rules.exact_key_limit).filter(pl.col("partners") > room)["listing_id"]
    mended_places = places.at(pl.concat([mended[source]["number"] for source in mended]).unique())
    asked = pl.concat(
        [
            places.every if anew else living,
            # Who may have more than the cap says anew which of its pairs it keeps, where its list is another one.
            may_overflow.filter(may_overflow.is_in(mended_places.implode())),
            neighbours.regrouped(left, came, keyed, rules.exact_key_limit),
        ]
    ).unique()
    shifted = _shifted(sources, before, mended, places, pl.concat([asked, living]).unique())
    found = _union(rules, keyed, pl.concat([asked, may_overflow]).unique(), shifted, now, places)
    either = pl.any_horizontal(pl.col(_SIDES).is_in(asked.implode()))
    pairs = pl.concat([found.pairs.filter(either), found.pairs.filter(~either).join(shifted, on=_SIDES, how="semi")])
    return Proposed(
        places.named(pairs, *_SIDES),
        places.ids.gather(asked),
        places.named(shifted, *_SIDES),
        {
            **found.counts,
            "asked": len(asked),
            "shifted_pairs": shifted.height,
            "refilled_lists": refilled,
            "crowded_listings": crowded,
        },
        pl.concat(now.values()),
        (stored if anew else stale.height) + sum(rows.height for rows in mended.values()),
    )


def _state(lake: Lake, sources: Iterable[str], anew: bool) -> tuple[dict[str, pl.DataFrame], int]:
    """The rows of each source, none where all are made anew, and how many the table holds.

    Read whole, once: whoever is on a list may be on any, so most of it would be read for each source otherwise.
    """
    held = lake.read(NEIGHBOURS)
    return {source: _of(held.clear() if anew else held, source) for source in sources}, held.height


def _of(state: pl.DataFrame, source: str) -> pl.DataFrame:
    return state.filter(pl.col("source") == source)


def _shifted(
    sources: Limits,
    before: Mapping[str, pl.DataFrame],
    after: Mapping[str, pl.DataFrame],
    places: Places,
    apart: pl.Series,
) -> pl.DataFrame:
    """left_id, right_id of the pairs that are on these lists in one of the two states only, none with an end `apart`.

    A list shifts by few places where one listing leaves it or comes to it, so these are far fewer than all its pairs.
    """
    nobody, found = pl.lit([], NEIGHBOURS.columns["others"]), [pl.DataFrame(schema=dict.fromkeys(_SIDES, PLACE))]
    kept = ~pl.col("number").is_in(places.numbers.gather(apart).implode())
    for source, (k, _) in sources.items():
        was, now = (
            rows[source].filter(kept).select("number", others=pl.col("others").list.head(k)) for rows in (before, after)
        )
        both = was.join(now, on="number", how="full", coalesce=True, suffix="_now")
        came_or_went = (
            pl.col("others").fill_null(nobody).list.set_symmetric_difference(pl.col("others_now").fill_null(nobody))
        )
        moves = both.select("number", other=came_or_went).explode("other", empty_as_null=False)
        moves = places.placed(places.placed(moves, "query_id", "number"), "listing_id", "other")
        found.append(moves.filter(~pl.col("listing_id").is_in(apart.implode())).select(**_ORDERED))
    return pl.concat(found).unique()


@dataclass(frozen=True)
class _Lists:
    rows: pl.DataFrame
    crowded: int
    refilled: int


@dataclass(frozen=True)
class _Moved:
    """What left its place in a source, and what came to another, as `neighbours.CONTENTS`."""

    source: str
    k: int
    long: int
    floor: float
    left: pl.DataFrame
    came: pl.DataFrame
    places: Places

    def lists(self, state: pl.DataFrame, retrieve: Callable[..., pl.DataFrame], depth: int) -> _Lists:
        """The lists that are others now, of the moved listings and of those around them."""
        places, gone = self.places, self.left["number"]
        came = places.placed(self.came, "listing_id", "number").sort("listing_id")
        still = ~pl.col("number").is_in(pl.concat([gone, self.came["number"]]).unique().implode())
        reaches = state.filter(still).select("number", "reach")
        deep = retrieve(
            self.source, came["listing_id"], max(self.long, depth) if reaches.height else self.long, self.floor
        )
        own = blocking.nearest(deep, self.long)

        # Who had a moved listing on its list, and who has to have it now.
        holders = state.filter(still, neighbours.with_any(gone))["number"]
        gained = (
            deep.select(query_id="listing_id", listing_id="query_id", similarity="similarity")
            .with_columns(number=places.numbers.gather(deep["listing_id"]))
            .join(reaches, on="number")
            .filter(pl.col("similarity") >= pl.col("reach"))
        )
        around = pl.concat([holders, gained["number"]]).unique()
        rows = state.filter(still, pl.col("number").is_in(around.implode()))
        settled = neighbours.settle(neighbours.unpacked(rows, places), gained.select(*neighbours.NEAR), places.at(gone))
        # Searched anew: where no spare is left, and where who came is as similar as the last one, as others may be
        # that were cut.
        before = places.placed(rows.select("number", "content_hash", "reach"), "listing_id", "number")
        enough = settled.group_by("query_id").len().filter(pl.col("len") >= self.k)["query_id"]
        tied = gained.filter(pl.col("similarity") == pl.col("reach"))["query_id"]
        scant = ~pl.col("listing_id").is_in(enough.implode()) & (pl.col("reach") > neighbours.EVERYBODY)
        refill = before.filter(scant | pl.col("listing_id").is_in(tied.implode()))["listing_id"]
        again = blocking.nearest(retrieve(self.source, refill, self.long, self.floor), self.long)
        searched = pl.col("listing_id").is_in(refill.implode())
        lists = pl.concat([own, settled.filter(~pl.col("query_id").is_in(refill.implode())), again])
        placed = pl.concat(
            [
                came.select("listing_id", "content_hash", reach=pl.lit(None, pl.Float32)),
                before.select("listing_id", "content_hash", reach=pl.when(~searched).then("reach")),
            ]
        )
        return _Lists(
            neighbours.rows(lists, placed, places, self.source, self.long),
            crowded=deep.group_by("query_id").len().filter(pl.col("len") >= depth).height if reaches.height else 0,
            refilled=len(refill),
        )


def _keys(came: pl.DataFrame, source: str) -> pl.DataFrame:
    """Rows that remember which key of a source a listing has."""
    nobody = {name: pl.lit([], NEIGHBOURS.columns[name]) for name in ("others", "similarities")}
    return _of(came, source).with_columns(reach=pl.lit(None, pl.Float32), **nobody).select(*NEIGHBOURS.columns)


def _union(
    rules: Blocking,
    keyed: pl.DataFrame,
    asking: pl.Series,
    shifted: pl.DataFrame,
    lists: Mapping[str, pl.DataFrame],
    places: Places,
) -> blocking.Candidates:
    """Candidates of the listings asked, from their own lists and from those of others that they are on; and `shifted`.

    Whether a pair survives the cap is for each end to say, by its whole list: an end that may have more than the cap
    is therefore among those asked.
    """
    ends = pl.concat([shifted["left_id"], shifted["right_id"]]).unique()
    own, asked = (places.numbers.gather(some) for some in (pl.concat([asking, ends]), asking))
    concerned = pl.col("number").is_in(own.implode()) | neighbours.with_any(asked)
    asks = pl.any_horizontal(pl.col("query_id", "listing_id").is_in(asking.implode()))
    near = {}
    for source, (k, _) in limits(rules).items():
        rows = neighbours.unpacked(lists[source].filter(concerned), places, k)
        others = rows.filter(~asks).with_columns(**_ORDERED).join(shifted, on=_SIDES, how="semi").drop(_SIDES)
        near[source] = pl.concat([rows.filter(asks), others])
    keys = blocking.exact_keys(pl.concat([asking, ends]), keyed, rules.exact_key_limit)
    back = keys.pairs.select(query_id="listing_id", listing_id="query_id", source="source")
    both = blocking.ExactKeys(pl.concat([keys.pairs, back]).unique().sort(back.columns), keys.skipped)
    return blocking.candidates(near, both, rules.candidates_per_listing)


def _partners(keyed: pl.DataFrame, limit: int) -> pl.DataFrame:
    """listing_id, partners: at most how many share an exact key with it. `keyed`: listing_id, source, content_hash."""
    key = ["source", "content_hash"]
    sizes = keyed.group_by(key).agg(size=pl.len().cast(pl.Int64)).filter(pl.col("size").is_between(2, limit))
    return keyed.join(sizes, on=key).group_by("listing_id").agg(partners=pl.col("size").sum() - pl.len().cast(pl.Int64))
