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

import polars as pl

from sosie import phashes
from sosie.blocking import KEYS, NEIGHBOURS
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


def contents(listings: pl.DataFrame, sources: Iterable[str]) -> pl.DataFrame:
    """listing_id, source, content of live listings; no row where a listing has nothing of a source."""
    schema = pl.Schema({name: TABLE.columns[name] for name in ("listing_id", "source", "content")})
    parts = [
        listings.select("listing_id", source=pl.lit(source), content=CONTENT[source].cast(pl.String))
        for source in sources
    ]
    return pl.concat([schema.to_frame(), *parts]).filter(pl.col("content").str.len_chars() > 0)


def rounded(found: pl.DataFrame, floor: float) -> pl.DataFrame:
    """Neighbours whose order depends on nothing but the two listings."""
    near = found.with_columns(pl.col("similarity").round(DIGITS))
    return near.filter(pl.col("similarity") >= pl.lit(floor, pl.Float32)).cast(NEIGHBOURS)


def settle(held: pl.DataFrame, gained: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """Lists (query_id, listing_id, similarity) after some listings left them and others came; of any length."""
    stay = held.filter(~pl.col("listing_id").is_in(gone.implode()))
    return pl.concat([gained, stay.join(gained, on=["query_id", "listing_id"], how="anti")])


def rows(lists: pl.DataFrame, placed: pl.DataFrame, source: str, k: int, spare: int) -> pl.DataFrame:
    """Rows of the table for the listings in `placed` (listing_id, content, reach), most near first.

    A list is cut after `k` and its spares, and reaches as far as its last one then; else as far as `placed` says. It
    is cut as well where it is exactly that long and reaches null: nobody knows what comes after a search's last.
    """
    packed = (
        lists.sort("query_id", "similarity", "listing_id", descending=[False, True, False])
        .group_by("query_id", maintain_order=True)
        .agg(every=pl.struct(other="listing_id", similarity="similarity").head(k + spare), long=pl.len())
    )
    last = pl.col("every").list.last().struct.field("similarity")
    full = pl.col("long") >= k + spare
    cut = (pl.col("long") > k + spare) | (full & pl.col("reach").is_null())
    return (
        placed.select("listing_id", "content", "reach")
        .join(packed, left_on="listing_id", right_on="query_id", how="left")
        .with_columns(pl.col("every").fill_null([]))
        .with_columns(
            source=pl.lit(source),
            near=pl.col("every").list.head(k),
            spare=pl.col("every").list.slice(k),
            reach=pl.when(cut).then(last).otherwise("reach").fill_null(EVERYBODY),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in TABLE.columns.items())
    )


def unpacked(state: pl.LazyFrame, near: pl.Expr | None = None) -> pl.LazyFrame:
    """Rows of the table as source, query_id, listing_id, similarity; of `near`, or of another list of each row."""
    return (
        state.select("source", query_id="listing_id", near=pl.col("near") if near is None else near)
        .filter(pl.col("near").list.len() > 0)
        .explode("near")
        .select(
            "source",
            "query_id",
            pl.col("near").struct.field("other").alias("listing_id"),
            pl.col("near").struct.field("similarity"),
        )
    )


def lists_with(ids: pl.Series, *lists: str) -> pl.Expr:
    """Rows of the table on one of whose `lists` somebody among `ids` is, without unpacking the others."""
    named = pl.element().struct.field("other").is_in(ids.implode())
    return pl.any_horizontal(pl.col(name).list.eval(named).list.any() for name in lists)


def with_spares(state: pl.LazyFrame) -> pl.LazyFrame:
    """`unpacked`, the spares too."""
    return unpacked(state, pl.concat_list("near", "spare"))


def regrouped(left: pl.DataFrame, came: pl.DataFrame, everybody: pl.DataFrame, limit: int) -> pl.Series:
    """Live listings whose partners by an exact key changed. All three frames: listing_id, source, content.

    A group that is and was larger than `limit` proposes nobody, so nothing changed for its members.
    """
    key = ["source", "content"]
    moves = pl.concat([came.with_columns(more=1), left.with_columns(more=-1)]).filter(pl.col("source").is_in(KEYS))
    sizes = (
        moves.group_by(key)
        .agg(pl.col("more").sum())
        .join(everybody.group_by(key).len(), on=key, how="left")
        .with_columns(now=pl.col("len").fill_null(0).cast(pl.Int64))
        .filter(pl.min_horizontal("now", pl.col("now") - pl.col("more")) <= limit)
    )
    return everybody.join(sizes, on=key, how="semi")["listing_id"].unique()
