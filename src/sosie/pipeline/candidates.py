"""The pairs that are worth a decision after this hour's moves, from kept lists of neighbours and few searches."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from sosie import blocking, neighbours
from sosie.lake import Lake
from sosie.neighbour_lists import NeighbourLists
from sosie.neighbours import CONTENTS, LIST, PLACE, Places
from sosie.pipeline.retrieval import Limits, Retrieval, limits
from sosie.settings import Blocking
from sosie.tables import SIDES

_ORDERED = {
    "left_id": pl.min_horizontal("query_id", "listing_id"),
    "right_id": pl.max_horizontal("query_id", "listing_id"),
}


@dataclass(frozen=True)
class Proposed:
    """`pairs`: every pair with an end among `asked`, and of `shifted` (left_id, right_id) those that are proposed.

    Together they are all pairs whose proposal could have changed: `asked` are listings that changed, or share their
    keys with others than before; `shifted` are pairs of which one end came to the other's list, or went from it.
    `counts` for the manifest; `lists` are the lists from now on, which are still to be written.
    """

    pairs: pl.DataFrame
    asked: pl.Series
    shifted: pl.DataFrame
    counts: dict[str, int]
    lists: NeighbourLists


def propose(lake: Lake, rules: Blocking, retrieve: Retrieval, touched: pl.Series, *, anew: bool) -> Proposed:
    """All pairs that this hour can have made, changed or unmade. `touched` are listings that changed or went.

    With `anew` nothing that is held counts, and every live listing is asked.
    """
    sources, places = limits(rules), retrieve.places
    state = NeighbourLists.read(lake, anew=anew)
    stirred = pl.col("number").is_in(neighbours.numbers(touched).implode())
    old = state.where(stirred, columns=list(CONTENTS))
    living = places.of(touched).drop_nulls().unique().sort()
    new = places.contents(retrieve.catalogue, places.every if anew else living, [*sources, *blocking.KEYS])
    left, came = old.join(new, on=list(CONTENTS), how="anti"), new.join(old, on=list(CONTENTS), how="anti")

    mended, crowded, refilled = [_keys(came)], 0, 0
    for source, (k, floor) in sources.items():
        own = pl.col("source") == source
        long = k + math.ceil(k * rules.spare_neighbours)
        moved = _Moved(source, k, long, floor, left.filter(own), came.filter(own), places)
        lists = moved.lists(state, retrieve, rules.reverse_neighbours)
        mended.append(lists.rows)
        crowded, refilled = crowded + lists.crowded, refilled + lists.refilled
    rows = pl.concat(mended)
    now = state.replaced(rows, left)

    # A key that one listing alone has is the most of them, and proposes nobody; where another just left it, it did.
    moved_keys = pl.concat([left["content_hash"], came["content_hash"]]).unique()
    shared = pl.col("content_hash").is_duplicated() | pl.col("content_hash").is_in(moved_keys.implode())
    keyed = now.where(pl.col("source").is_in(list(blocking.KEYS)), columns=list(CONTENTS)).filter(shared)
    keyed = places.placed(keyed, "listing_id", "number")
    room = rules.candidates_per_listing - sum(k for k, _ in sources.values())
    may_overflow = _partners(keyed, rules.exact_key_limit).filter(pl.col("partners") > room)["listing_id"]
    mended_places = places.at(rows["number"].unique())
    asked = pl.concat(
        [
            places.every if anew else living,
            # Who may have more than the cap says anew which of its pairs it keeps, where its list is another one.
            may_overflow.filter(may_overflow.is_in(mended_places.implode())),
            neighbours.regrouped(left, came, keyed, rules.exact_key_limit),
        ]
    ).unique()
    shifted = _shifted(sources, state, rows, left, places, pl.concat([asked, living]).unique())
    found = _union(rules, keyed, pl.concat([asked, may_overflow]).unique(), shifted, now, places)
    either = pl.any_horizontal(pl.col(SIDES).is_in(asked.implode()))
    pairs = pl.concat([found.pairs.filter(either), found.pairs.filter(~either).join(shifted, on=SIDES, how="semi")])
    return Proposed(
        places.named(pairs, *SIDES),
        places.ids.gather(asked),
        places.named(shifted, *SIDES),
        {
            **found.counts,
            "asked": len(asked),
            "shifted_pairs": shifted.height,
            "refilled_lists": refilled,
            "crowded_listings": crowded,
        },
        now,
    )


def _shifted(
    sources: Limits,
    state: NeighbourLists,
    rows: pl.DataFrame,
    left: pl.DataFrame,
    places: Places,
    apart: pl.Series,
) -> pl.DataFrame:
    """left_id, right_id of the pairs that only the lists before or only those after have, none with an end `apart`.

    Before as `state` has them; after as `rows` has them, without those of who `left`.

    A list shifts by few places where one listing leaves it or comes to it, so these are far fewer than all its pairs.
    """
    nobody, found = pl.lit([], LIST["others"]), [pl.DataFrame(schema=dict.fromkeys(SIDES, PLACE))]
    kept = ~pl.col("number").is_in(places.numbers.gather(apart).implode())
    for source, (k, _) in sources.items():
        own, first = pl.col("source") == source, pl.col("others").list.head(k)
        now = rows.filter(own, kept).select("number", others=first)
        replaced = pl.concat([now["number"], left.filter(own)["number"]]).unique()
        was = state.where(own, kept, pl.col("number").is_in(replaced.implode())).select("number", others=first)
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

    def lists(self, state: NeighbourLists, retrieve: Callable[..., pl.DataFrame], depth: int) -> _Lists:
        """The lists that are others now, of the moved listings and of those around them."""
        places, gone = self.places, self.left["number"]
        came = places.placed(self.came, "listing_id", "number").sort("listing_id")
        own = pl.col("source") == self.source
        still = own & ~pl.col("number").is_in(pl.concat([gone, self.came["number"]]).unique().implode())
        reaches = state.where(still, columns=["number", "reach"])
        deep = retrieve(
            self.source, came["listing_id"], max(self.long, depth) if reaches.height else self.long, self.floor
        )
        nearest = blocking.nearest(deep, self.long)

        # Who had a moved listing on its list, and who has to have it now.
        holders = state.holding(self.source, gone)
        gained = (
            deep.select(query_id="listing_id", listing_id="query_id", similarity="similarity")
            .with_columns(number=places.numbers.gather(deep["listing_id"]))
            .join(reaches, on="number")
            .filter(pl.col("similarity") >= pl.col("reach"))
        )
        around = pl.concat([holders, gained["number"]]).unique()
        rows = state.where(still, pl.col("number").is_in(around.implode()))
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
        lists = pl.concat([nearest, settled.filter(~pl.col("query_id").is_in(refill.implode())), again])
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


def _keys(came: pl.DataFrame) -> pl.DataFrame:
    """Rows that remember which exact keys a listing has."""
    rows = came.filter(pl.col("source").is_in(list(blocking.KEYS)))
    nobody = {name: pl.lit([], LIST[name]) for name in ("others", "similarities")}
    return rows.with_columns(reach=pl.lit(None, LIST["reach"]), **nobody).select(*LIST)


def _union(
    rules: Blocking,
    keyed: pl.DataFrame,
    asking: pl.Series,
    shifted: pl.DataFrame,
    lists: NeighbourLists,
    places: Places,
) -> blocking.Candidates:
    """Candidates of the listings asked, from their own lists and from those of others that they are on; and `shifted`.

    Whether a pair survives the cap is for each end to say, by its whole list: an end that may have more than the cap
    is therefore among those asked.
    """
    ends = pl.concat([shifted["left_id"], shifted["right_id"]]).unique()
    own, asked = (places.numbers.gather(some) for some in (pl.concat([asking, ends]), asking))
    asks = pl.any_horizontal(pl.col("query_id", "listing_id").is_in(asking.implode()))
    near = {}
    for source, (k, _) in limits(rules).items():
        concerned = pl.col("number").is_in(pl.concat([own, lists.holding(source, asked)]).unique().implode())
        rows = neighbours.unpacked(lists.where(pl.col("source") == source, concerned), places, k)
        others = rows.filter(~asks).with_columns(**_ORDERED).join(shifted, on=SIDES, how="semi").drop(SIDES)
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
