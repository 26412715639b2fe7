"""The pairs that are worth a decision after this hour's moves, from kept lists of neighbours and few searches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from sosie import blocking, lexical, neighbours, phashes, screening, spellings
from sosie.decider.text_features import Sparse, Vocabulary
from sosie.index import open_index
from sosie.pipeline.embed import Modality, current, version
from sosie.pipeline.run import Run, log
from sosie.settings import Blocking
from sosie.tables import NEIGHBOURS
from sosie.vectors import matrix

_SIDES = ["left_id", "right_id"]
_ORDERED = {
    "left_id": pl.min_horizontal("query_id", "listing_id"),
    "right_id": pl.max_horizontal("query_id", "listing_id"),
}

Limits = dict[str, tuple[int, float]]


def limits(rules: Blocking) -> Limits:
    """Source → how many neighbours, and above which similarity. A source that is switched off is left out."""
    every = {
        "text": (rules.text_neighbours, rules.min_text_similarity),
        "image": (rules.image_neighbours, rules.min_image_similarity),
        "lexical": (rules.lexical_neighbours, rules.min_lexical_similarity),
        phashes.SOURCE: (rules.phash_neighbours, rules.min_phash_similarity),
    }
    return {source: (k, floor) for source, (k, floor) in every.items() if k}


@dataclass(frozen=True)
class Proposed:
    """`pairs`: every pair with an end among `asked`, and of `shifted` (left_id, right_id) those that are proposed.

    Together they are all pairs whose proposal could have changed: `asked` are listings that changed, or share their
    keys with others than before; `shifted` are pairs of which one end came to the other's list, or went from it.
    `counts` for the manifest; `lists` fit tables.NEIGHBOURS and `dropped` (listing_id, source) are to go from it.
    """

    pairs: pl.DataFrame
    asked: pl.Series
    shifted: pl.DataFrame
    counts: dict[str, int]
    lists: pl.DataFrame
    dropped: pl.DataFrame


@dataclass(frozen=True)
class Retrieval:
    """Nearest neighbours among the live catalogue, by whichever way is cheaper for the number that asks."""

    run: Run
    catalogue: pl.DataFrame
    vocabulary: Vocabulary
    _whole: dict[Modality, pl.DataFrame] = field(default_factory=dict)

    def vectors(self, modality: Modality, ids: pl.Series | None = None) -> pl.DataFrame:
        """listing_id, vector of some live listings, or of all, which are read once: whoever asks later finds them."""
        live = self.catalogue.with_columns(is_deleted=pl.lit(False))
        stamp, whole = version(self.run.settings, modality), self._whole.get(modality)
        if ids is not None:
            asked = pl.col("listing_id").is_in(ids.implode())
            return current(self.run.lake, modality, stamp, live.filter(asked)) if whole is None else whole.filter(asked)
        if whole is None:
            whole = self._whole[modality] = current(self.run.lake, modality, stamp, live)
        return whole

    @cached_property
    def _terms(self) -> Sparse:
        return lexical.turned(self._spelt)

    @cached_property
    def _spelt(self) -> Sparse:
        kept = spellings.kept(self.run.lake, self.catalogue, self.run.id, columns=["spelling"])
        return lexical.weighed(kept["spelling"], self.vocabulary)

    def __call__(self, source: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        """query_id, listing_id, similarity: the `k` nearest of each, nearest first, equal ones by id.

        An engine cuts equal ones as it likes, and copies of a listing are as near as each other: where the cut falls
        among equals more is asked for, up to `reverse_neighbours`.
        """
        found, depth = [], k + max(8, k // 4)
        while not asking.is_empty():
            near = self._once(source, asking, depth, floor)
            reached = near.group_by("query_id").agg(
                pl.len(),
                place=pl.col("similarity").sort(descending=True).slice(k - 1, 1).first(),
                last=pl.col("similarity").min(),
            )
            among_equals = (pl.col("len") >= depth) & (pl.col("place") == pl.col("last"))
            more = depth < self.run.settings.blocking.reverse_neighbours
            asking = reached.filter(among_equals & more)["query_id"]
            found.append(near.filter(~pl.col("query_id").is_in(asking.implode())))
            depth *= 4
        return blocking.nearest(pl.concat([pl.DataFrame(schema=blocking.NEIGHBOURS), *found]), k)

    def _once(self, source: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        # A hair below the floor, which is drawn after rounding.
        lower = floor - 10.0**-neighbours.DIGITS
        if source == "lexical":
            threads = self.run.settings.embedding.threads
            ids = self.catalogue["listing_id"]
            found = lexical.join(asking, ids, self._spelt, k, lower, threads=threads, terms=self._terms)
        elif source == phashes.SOURCE:
            found = phashes.join(asking, self.catalogue, k, lower)
        else:
            found = self._by_vector("text" if source == "text" else "image", asking, k, lower)
        return neighbours.rounded(found, floor)

    def _by_vector(self, modality: Modality, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        """Asked of the index, or joined in process where much of the catalogue asks.

        Both give the same where the index is exact; the join reads every live vector once, which pays above a share.
        The embedded index reads them all for each batch, so it is not asked for what is in memory already.
        """
        run = self.run
        embedded = run.settings.milvus_uri is None
        worth = run.settings.blocking.joined(len(asking), self.catalogue.height, embedded=embedded)
        joined = worth or (embedded and modality in self._whole)
        log.info(
            "find neighbours",
            modality=modality,
            by="join in process" if joined else "index",
            asking=len(asking),
            live=self.catalogue.height,
        )
        if joined:
            return blocking.join_frame(asking, self.vectors(modality), k, floor)
        held = self.vectors(modality, asking)
        with open_index(run.settings) as index:
            index.ensure(modality, version(run.settings, modality))
            found = index.search(modality, held["listing_id"].to_list(), matrix(held), k, min_similarity=floor)
        return self._exactly(modality, found)

    def _exactly(self, modality: Modality, found: pl.DataFrame) -> pl.DataFrame:
        """The same neighbours, with similarities as a join in process works them out."""
        held = self.vectors(modality, pl.concat([found["query_id"], found["listing_id"]]).unique())
        row = held.select("listing_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
        known = found.join(row, on="listing_id", maintain_order="left").join(
            row.rename({"listing_id": "query_id"}), on="query_id", suffix="_query", maintain_order="left"
        )
        vectors = matrix(held)
        exact = screening.cosines(vectors, known["row_query"].to_numpy(), vectors, known["row"].to_numpy())
        return known.select("query_id", "listing_id", similarity=pl.Series(exact))


def propose(run: Run, retrieve: Retrieval, touched: pl.Series, *, anew: bool) -> Proposed:
    """All pairs that this hour can have made, changed or unmade. `touched` are listings that changed or went.

    With `anew` nothing that is held counts, and every live listing is asked.
    """
    rules, catalogue = run.settings.blocking, retrieve.catalogue
    sources = limits(rules)
    everybody = neighbours.contents(catalogue, [*sources, *blocking.KEYS])
    # Read whole, once: whoever is on a list may be on any, so most of it would be read for each source otherwise.
    state = run.lake.read(NEIGHBOURS)
    held = state.select("listing_id", "source", "content")
    state = state.clear() if anew else state
    old = held.clear() if anew else held.filter(pl.col("listing_id").is_in(touched.implode()))
    new = everybody if anew else everybody.filter(pl.col("listing_id").is_in(touched.implode()))
    left, came = (one.join(other, on=one.columns, how="anti") for one, other in ((old, new), (new, old)))

    mended = [_keys(came)]
    crowded, refilled = 0, 0
    for source, (k, floor) in sources.items():
        own = pl.col("source") == source
        moved = _Moved(source, k, floor, math.ceil(k * rules.spare_neighbours), left.filter(own), came.filter(own))
        lists = moved.lists(state.filter(own), retrieve, rules.reverse_neighbours)
        mended.append(lists.rows)
        crowded, refilled = crowded + lists.crowded, refilled + lists.refilled
    lists_now = pl.concat(mended)

    living = catalogue["listing_id"]
    room = rules.candidates_per_listing - sum(k for k, _ in sources.values())
    may_overflow = _partners(everybody, rules.exact_key_limit).filter(pl.col("partners") > room)["listing_id"]
    asked = pl.concat(
        [
            living if anew else living.filter(living.is_in(touched.implode())),
            # Who may have more than the cap says anew which of its pairs it keeps, where its list is another one.
            may_overflow.filter(may_overflow.is_in(lists_now["listing_id"].implode())),
            neighbours.regrouped(left, came, everybody, rules.exact_key_limit),
        ]
    ).unique()
    key = list(NEIGHBOURS.key)
    stale = held.join(everybody, on=key, how="anti") if anew else left.join(came, on=key, how="anti")
    replaced = pl.concat([lists_now.select(key), stale.select(key)])
    shifted = _shifted(state.join(replaced, on=key, how="semi"), lists_now, pl.concat([asked, touched]))
    now = pl.concat([state.join(replaced, on=key, how="anti"), lists_now])
    found = _union(rules, catalogue, pl.concat([asked, may_overflow]).unique(), shifted, now)
    either = pl.col("left_id").is_in(asked.implode()) | pl.col("right_id").is_in(asked.implode())
    return Proposed(
        pl.concat([found.pairs.filter(either), found.pairs.filter(~either).join(shifted, on=_SIDES, how="semi")]),
        asked,
        shifted,
        {
            **found.counts,
            "asked": len(asked),
            "shifted_pairs": shifted.height,
            "refilled_lists": refilled,
            "crowded_listings": crowded,
        },
        lists_now,
        stale.select(key),
    )


def _shifted(before: pl.DataFrame, after: pl.DataFrame, apart: pl.Series) -> pl.DataFrame:
    """left_id, right_id of the pairs that are on these lists in one of the two states only, none with an end `apart`.

    A list shifts by few places where one listing leaves it or comes to it, so these are far fewer than all its pairs.
    """
    key, nobody = list(NEIGHBOURS.key), pl.lit([], pl.List(pl.String))
    others = pl.col("near").list.eval(pl.element().struct.field("other"))
    was, now = (
        rows.filter(~pl.col("listing_id").is_in(apart.implode())).select(*key, others=others)
        for rows in (before, after)
    )
    both = was.join(now, on=key, how="full", coalesce=True, suffix="_now")
    came_or_went = (
        pl.col("others").fill_null(nobody).list.set_symmetric_difference(pl.col("others_now").fill_null(nobody))
    )
    moves = both.select(query_id="listing_id", listing_id=came_or_went).explode("listing_id", empty_as_null=False)
    return moves.filter(~pl.col("listing_id").is_in(apart.implode())).select(**_ORDERED).unique()


@dataclass(frozen=True)
class _Lists:
    rows: pl.DataFrame
    crowded: int
    refilled: int


@dataclass(frozen=True)
class _Moved:
    """What left its place in a source, and what came to another: frames of listing_id, source, content."""

    source: str
    k: int
    floor: float
    spare: int
    left: pl.DataFrame
    came: pl.DataFrame

    def lists(self, state: pl.DataFrame, retrieve: Callable[..., pl.DataFrame], depth: int) -> _Lists:
        """The lists that are others now, of the moved listings and of those around them."""
        gone, came = self.left["listing_id"], self.came["listing_id"]
        away = pl.concat([gone, came]).unique().implode()
        still = state.filter(~pl.col("listing_id").is_in(away))
        others = still.height
        wide = self.k + self.spare
        deep = retrieve(self.source, came, max(wide, depth) if others else wide, self.floor)
        own = blocking.nearest(deep, wide)

        # Who had a moved listing on its list, and who has to have it now.
        holders = still.filter(neighbours.lists_with(gone, "near", "spare"))["listing_id"]
        gained = (
            deep.select(query_id="listing_id", listing_id="query_id", similarity="similarity")
            .join(still.select("listing_id", "reach"), left_on="query_id", right_on="listing_id")
            .filter(pl.col("similarity") >= pl.col("reach"))
        )
        around = pl.concat([holders, gained["query_id"]]).unique()
        before = still.filter(pl.col("listing_id").is_in(around.implode()))
        held = neighbours.with_spares(before.lazy()).select(*blocking.NEIGHBOURS).collect()
        settled = neighbours.settle(held, gained.select(*blocking.NEIGHBOURS), gone)
        # Searched anew: where no spare is left, and where who came is as similar as the last one, as others may be
        # that were cut.
        left = settled.group_by("query_id").len().filter(pl.col("len") >= self.k)["query_id"]
        tied = gained.filter(pl.col("similarity") == pl.col("reach"))["query_id"]
        scant = ~pl.col("listing_id").is_in(left.implode()) & (pl.col("reach") > neighbours.EVERYBODY)
        refill = before.filter(scant | pl.col("listing_id").is_in(tied.implode()))["listing_id"]
        again = blocking.nearest(retrieve(self.source, refill, wide, self.floor), wide)
        searched = pl.col("listing_id").is_in(refill.implode())
        lists = pl.concat([own, settled.filter(~pl.col("query_id").is_in(refill.implode())), again])
        placed = pl.concat(
            [
                self.came.with_columns(reach=pl.lit(None, pl.Float32)),
                before.select(*self.came.columns, reach=pl.when(~searched).then("reach")),
            ]
        )
        return _Lists(
            neighbours.rows(lists, placed, self.source, self.k, self.spare),
            crowded=0 if not others else deep.group_by("query_id").len().filter(pl.col("len") >= depth).height,
            refilled=len(refill),
        )


def _keys(came: pl.DataFrame) -> pl.DataFrame:
    """Rows that remember which keys a listing had."""
    keyed = came.filter(pl.col("source").is_in(blocking.KEYS))
    nobody = pl.lit([], NEIGHBOURS.columns["near"])
    empty = {"reach": pl.lit(None, pl.Float32), "near": nobody, "spare": nobody}
    return keyed.with_columns(**empty).select(*NEIGHBOURS.columns)


def _union(
    rules: Blocking,
    catalogue: pl.DataFrame,
    asking: pl.Series,
    shifted: pl.DataFrame,
    lists: pl.DataFrame,
) -> blocking.Candidates:
    """Candidates of the listings asked, from their own lists and from those of others that they are on; and `shifted`.

    Whether a pair survives the cap is for each end to say, by its whole list: an end that may have more than the cap
    is therefore among those asked.
    """
    sources = limits(rules)
    ends = pl.concat([shifted["left_id"], shifted["right_id"]]).unique()
    asks = pl.any_horizontal(pl.col("query_id", "listing_id").is_in(asking.implode()))
    both_end = pl.all_horizontal(pl.col("query_id", "listing_id").is_in(ends.implode()))
    concerned = pl.col("listing_id").is_in(pl.concat([asking, ends]).implode()) | neighbours.lists_with(asking, "near")
    lists = lists.filter(pl.col("source").is_in(list(sources)), concerned)
    rows = neighbours.unpacked(lists.lazy()).filter(asks | both_end).collect()
    rows = pl.concat(
        [
            rows.filter(asks),
            rows.filter(~asks).with_columns(**_ORDERED).join(shifted, on=_SIDES, how="semi").drop(_SIDES),
        ]
    )
    keys = blocking.exact_keys(pl.concat([asking, ends]), catalogue, rules.exact_key_limit)
    back = keys.pairs.select(query_id="listing_id", listing_id="query_id", source="source")
    both = blocking.ExactKeys(pl.concat([keys.pairs, back]).unique().sort(back.columns), keys.skipped)
    near = {source: rows.filter(pl.col("source") == source).select(*blocking.NEIGHBOURS) for source in sources}
    return blocking.candidates(near, both, rules.candidates_per_listing)


def _partners(everybody: pl.DataFrame, limit: int) -> pl.DataFrame:
    """listing_id, partners: at most how many share an exact key with it. `everybody`: listing_id, source, content."""
    keyed = everybody.filter(pl.col("source").is_in(blocking.KEYS))
    sizes = pl.len().over("source", "content")
    return (
        keyed.with_columns(size=sizes)
        .filter(pl.col("size") <= limit)
        .group_by("listing_id")
        .agg(partners=pl.col("size").cast(pl.Int64).sum() - pl.len().cast(pl.Int64))
    )
