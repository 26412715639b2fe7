"""Who is near whom, kept from hour to hour, so that any history of hours and one full run propose the same pairs.

A pair is proposed where either listing is among the other's k nearest in a source (title, picture, spelling), or both
share an exact key. That says which pairs a catalogue has, whatever the order in which it came to be; but an hour that
only asked for the neighbours of what changed would miss the other half of it: a changed listing enters or leaves the
lists of listings that did not change, pushes a third one out of them, or makes room. So each listing's list is kept
(table `neighbours`) beside the content that it was made for, and an hour mends exactly the lists that a move touches:

- a list that held a moved listing loses it, and the first of its spares moves up. A list knows how far it reaches:
  whoever is more similar than that is on it or among its spares. Where no spare is left it is searched anew;
- a moved listing is put into every list that reaches as far. Being near goes both ways, so those lists are found by
  one deep search from the moved listing (`blocking.reverse_neighbours`), and no search from their side;
- members of a key's group change where one enters or leaves, and all at once where the group crosses its limit.

A moved listing is expected on k lists and leaves as many, so an hour costs one search a moved listing, and at most k a
listing that left: O(moved * k), whatever the catalogue's size. With a quarter of k as spares it is few, as most lists
gain about as many as they lose. All of it is exact where the search is, unless a moved
listing has more than `reverse_neighbours` others above the floor; these are counted (`crowded`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import polars as pl
import polars_hash

from sosie import phashes
from sosie.blocking import KEYS
from sosie.errors import TerminalError
from sosie.listings import clean_titles
from sosie.tables import NEIGHBOURS as TABLE

DIGITS = 5
"""Similarities are compared to this many: further ones depend on who asked, and on how many were asked together."""

EVERYBODY = -1.0
"""Reach of a list that leaves nobody out but those below the floor."""

CONTENT = {
    "text": pl.col("text_hash"),
    "image": pl.col("image_hash"),
    "lexical": pl.col("title"),
    phashes.SOURCE: KEYS["phash"],
    **KEYS,
}
"""Source → what of a listing decides where it stands in it."""

LIST = pl.Schema({name: dtype for name, dtype in TABLE.columns.items() if name != "turn"})
"""A listing's list in a source, or which exact key it has there."""

CONTENTS = pl.Schema({name: LIST[name] for name in ("number", "source", "content_hash")})
"""What a listing says in a source."""

PLACE = pl.UInt32
NEAR = pl.Schema({"query_id": PLACE, "listing_id": PLACE, "similarity": pl.Float32})
"""`blocking.NEIGHBOURS` by place."""


def numbers(texts: pl.Series) -> pl.Series:
    """The lower 64 bits of MurmurHash3 of 128 bits for each text, Int64; null stays null."""
    whole = polars_hash.col(texts.name).nchash.murmur128()
    return texts.to_frame().select(whole.cast(pl.UInt64, wrap_numerical=True).reinterpret(signed=True))[texts.name]


@dataclass(frozen=True)
class Places:
    """The live catalogue's ids in order, by which a listing has a place, and a number.

    Raises `TerminalError` where two ids have one number: a thing of one catalogue of 200 million in a thousand.
    """

    ids: pl.Series

    @cached_property
    def numbers(self) -> pl.Series:
        found = numbers(self.ids)
        if found.n_unique() != len(found):
            twice = self.ids.filter(found.is_duplicated()).to_list()
            raise TerminalError(f"Listings {' and '.join(twice[:2])} have one number: rename one of them in its feed.")
        return found

    @cached_property
    def _by_id(self) -> pl.DataFrame:
        return pl.DataFrame({"id": self.ids, "place": pl.int_range(len(self.ids), dtype=PLACE, eager=True)})

    @cached_property
    def _by_number(self) -> pl.DataFrame:
        return pl.DataFrame({"number": self.numbers, "place": self._by_id["place"]})

    @property
    def every(self) -> pl.Series:
        return self._by_id["place"]

    def of(self, ids: pl.Series) -> pl.Series:
        """Places of ids, null for who is not live."""
        if ids.equals(self.ids):
            return self.every.alias(ids.name)
        found = pl.DataFrame({"id": ids}).join(self._by_id, on="id", how="left", maintain_order="left")
        return found["place"].alias(ids.name)

    def placed(self, rows: pl.DataFrame, column: str, number: str) -> pl.DataFrame:
        """Those of some rows whose `number` is of a live listing, whose place is in `column` then."""
        by_number = self._by_number.rename({"place": column})
        return rows.join(by_number, left_on=number, right_on="number", maintain_order="left").drop(number)

    def at(self, numbers: pl.Series) -> pl.Series:
        """Places of the live ones among some numbers."""
        return self.placed(numbers.to_frame("number"), "place", "number")["place"]

    def named(self, rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Ids instead of places."""
        return rows.with_columns(self.ids.gather(rows[name]).alias(name) for name in columns)

    def contents(self, catalogue: pl.DataFrame, places: pl.Series, sources: Iterable[str]) -> pl.DataFrame:
        """`CONTENTS` of some of `catalogue`, whose rows are the places; no row where one has nothing in a source.

        By the clean title, as change detection goes: a listing whose title is only written otherwise is unchanged.
        """
        listings = catalogue[places].with_columns(
            number=self.numbers.gather(places), title=clean_titles(pl.col("title"))
        )
        parts = [
            listings.select("number", source=pl.lit(source), content_hash=CONTENT[source].cast(pl.String))
            .filter(pl.col("content_hash").str.len_chars() > 0)
            .with_columns(pl.col("content_hash").map_batches(numbers, pl.Int64))
            for source in sources
        ]
        return pl.concat([CONTENTS.to_frame(), *parts])


def rounded(found: pl.DataFrame, floor: float) -> pl.DataFrame:
    """Neighbours whose order depends on nothing but the two listings."""
    near = found.with_columns(pl.col("similarity").round(DIGITS))
    return near.filter(pl.col("similarity") >= pl.lit(floor, pl.Float32)).cast({"similarity": pl.Float32})


def settle(held: pl.DataFrame, gained: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """Lists (query_id, listing_id, similarity) after some listings left them and others came; of any length."""
    stay = held.filter(~pl.col("listing_id").is_in(gone.implode()))
    return pl.concat([gained, stay.join(gained, on=["query_id", "listing_id"], how="anti")])


def rows(lists: pl.DataFrame, placed: pl.DataFrame, places: Places, source: str, long: int) -> pl.DataFrame:
    """Rows of `LIST` for the listings in `placed` (listing_id: a place, content_hash, reach), most near first.

    `lists` fits `NEAR`. A list is cut after `long`, and reaches as far as its last one then; else as far as `placed`
    says. It is cut as well where it is exactly that long and reaches null: nobody knows what comes after a search's
    last.
    """
    ordered = lists.sort("query_id", "similarity", "listing_id", descending=[False, True, False])
    packed = (
        ordered.select("query_id", "similarity", number=places.numbers.gather(ordered["listing_id"]))
        .group_by("query_id", maintain_order=True)
        .agg(
            others=pl.col("number").head(long),
            similarities=pl.col("similarity").head(long),
            met=pl.len(),
            last=pl.col("similarity").head(long).last(),
        )
    )
    cut = (pl.col("met") > long) | ((pl.col("met") == long) & pl.col("reach").is_null())
    return (
        placed.select("listing_id", "content_hash", "reach", number=places.numbers.gather(placed["listing_id"]))
        .join(packed, left_on="listing_id", right_on="query_id", how="left")
        .with_columns(
            pl.col("others", "similarities").fill_null([]),
            source=pl.lit(source),
            reach=pl.when(cut).then("last").otherwise("reach").fill_null(EVERYBODY),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in LIST.items())
    )


def unpacked(state: pl.DataFrame, places: Places, first: int | None = None) -> pl.DataFrame:
    """Rows of `LIST` as `NEAR`; of the `first` so many of each, of all by default. Who is not live is left out."""
    lists = places.placed(state.select("number", "others", "similarities"), "query_id", "number")
    if first is not None:
        lists = lists.with_columns(pl.col("others", "similarities").list.head(first))
    long = lists.filter(pl.col("others").list.len() > 0).explode("others", "similarities")
    return places.placed(long, "listing_id", "others").select("query_id", "listing_id", similarity="similarities")


def with_any(gone: pl.Series) -> pl.Expr:
    """Rows of `LIST` on whose list one of these numbers is, without unpacking the others."""
    return pl.col("others").list.eval(pl.element().is_in(gone.implode())).list.any()


def regrouped(left: pl.DataFrame, came: pl.DataFrame, everybody: pl.DataFrame, limit: int) -> pl.Series:
    """Live listings whose partners by an exact key changed. All three frames: listing_id, source, content_hash.

    A group that is and was larger than `limit` proposes nobody, so nothing changed for its members.
    """
    key = ["source", "content_hash"]
    moves = pl.concat([came.select(*key, more=pl.lit(1)), left.select(*key, more=pl.lit(-1))])
    moves = moves.filter(pl.col("source").is_in(KEYS)).group_by(key).agg(pl.col("more").sum())
    around = everybody.join(moves, on=key)
    sizes = (
        around.group_by(key)
        .agg(pl.len().cast(pl.Int64).alias("now"), pl.col("more").first())
        .filter(pl.min_horizontal("now", pl.col("now") - pl.col("more")) <= limit)
    )
    return around.join(sizes, on=key, how="semi")["listing_id"].unique()
