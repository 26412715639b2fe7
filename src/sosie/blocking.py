"""Blocking: which pairs of listings are worth a decision.

A changed listing meets its nearest neighbours in text and in picture, and every listing that shares an exact key with
it. The union is cut at a cap per listing, and what is cut or skipped is counted, never dropped in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from sosie import screening
from sosie.vectors import Picked, Places, Vectors, matrix

NEIGHBOURS = pl.Schema({"query_id": pl.String, "listing_id": pl.String, "similarity": pl.Float32})
"""Ids are the listings' own, or whatever who asks calls them by: of any one type that has an order."""

_PAIR: dict[str, pl.DataType | type[pl.DataType]] = {
    "left_id": pl.String,
    "right_id": pl.String,
    "blocked_by": pl.List(pl.String),
}
PAIRS = pl.Schema(_PAIR)
KEYED = pl.Schema({"listing_id": pl.String, "source": pl.String, "content_hash": pl.String})

KEYS: Mapping[str, pl.Expr] = {
    # Feeds write a GTIN with spaces and hyphens, and with or without the leading zeros of its longer forms.
    "gtin": pl.col("gtin").str.replace_all(r"\D", "").str.strip_chars_start("0"),
    "image_hash": pl.col("image_hash"),
    "phash": pl.col("image_phash").str.to_lowercase(),
    "title": pl.col("title").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]", ""),
}
"""Source name → the key that two listings must share. An empty or null key is none."""

_COLUMN = {"gtin": "gtin", "image_hash": "image_hash", "phash": "image_phash", "title": "title"}


@dataclass(frozen=True)
class ExactKeys:
    """Pairs that share a key (`pairs`: query_id, listing_id, source), and per source the keys that too many share."""

    pairs: pl.DataFrame
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidates:
    """`pairs` (left_id < right_id, blocked_by), each once and sorted, with the counts a run reports."""

    pairs: pl.DataFrame
    by_source: Mapping[str, int]
    skipped_keys: int
    capped_listings: int
    capped_pairs: int

    @property
    def counts(self) -> dict[str, int]:
        """Flat counts for a run's manifest."""
        return {
            "candidates": self.pairs.height,
            **{f"candidates_by_{source}": number for source, number in self.by_source.items()},
            "skipped_keys": self.skipped_keys,
            "capped_listings": self.capped_listings,
            "capped_pairs": self.capped_pairs,
        }


def join(
    query_ids: pl.Series,
    query_vectors: Vectors,
    ids: pl.Series,
    vectors: Vectors,
    k: int,
    min_similarity: float,
) -> pl.DataFrame:
    """The `k` nearest `ids` of each query by exact inner product, none below `min_similarity`, no listing its own.

    Vectors are float32 `[n, width]` of unit length, so that the inner product is the cosine. Memory is that of
    the vectors and of what is found. Returns query_id, listing_id, similarity, in order of queries' ids, nearest first.
    """
    # Both in the order of their ids, so that equal similarities are cut alike in whatever order rows arrive.
    queries, query_vectors = _ordered(query_ids, query_vectors)
    held, vectors = _ordered(ids, vectors)
    place = pl.DataFrame({"id": queries}).join(
        pl.DataFrame({"id": held}).with_row_index("place"), on="id", how="left", maintain_order="left", validate="m:1"
    )
    own = place["place"].cast(pl.Int64).fill_null(-1).to_numpy()
    return _joined(queries, query_vectors, own, held, vectors, k, min_similarity)


def join_frame(asking: pl.Series, held: pl.DataFrame, k: int, min_similarity: float) -> pl.DataFrame:
    """`join` of those of `asking` that are in the frame `held` (listing_id, vector) with all of it."""
    return join_ordered(asking, *_ordered(held["listing_id"], matrix(held)), k, min_similarity)


def join_ordered(
    asking: pl.Series, ids: pl.Series, vectors: Vectors | Picked, k: int, min_similarity: float
) -> pl.DataFrame:
    """`join` of those of `asking` that are among `ids`, which are in order, with all of them."""
    own = ids.is_in(asking.implode()).arg_true().cast(pl.Int64).to_numpy()
    return _joined(ids.gather(own), vectors[own], own, ids, vectors, k, min_similarity)


def _joined(
    queries: pl.Series, asking: Vectors, own: Places, held: pl.Series, vectors: Vectors | Picked, k: int, floor: float
) -> pl.DataFrame:
    """`join` in order of ids; `own` are the queries' places among `held`, -1 where there is none."""
    blocks = screening.nearest(asking, vectors, k, floor, own=own)
    frames = (
        pl.DataFrame({"query_id": queries.gather(rows), "listing_id": held.gather(places), "similarity": similarity})
        for rows, places, similarity in blocks
    )
    return pl.concat([nobody(held), *frames])


def nobody(ids: pl.Series) -> pl.DataFrame:
    """`NEIGHBOURS` without a row, of ids of that type."""
    return pl.DataFrame(schema=NEIGHBOURS | {"query_id": ids.dtype, "listing_id": ids.dtype})


def _ordered(ids: pl.Series, vectors: Vectors) -> tuple[pl.Series, Vectors]:
    if ids.is_sorted():  # which spares a copy of a whole catalogue
        return ids, vectors
    order = ids.arg_sort()
    return ids.gather(order), vectors[order.to_numpy()]


def nearest(neighbours: pl.DataFrame, k: int) -> pl.DataFrame:
    """At most `k` rows of each query, most similar first, equal ones by id; never the listing itself."""
    return (
        neighbours.filter(pl.col("query_id") != pl.col("listing_id"))
        .sort("query_id", "similarity", "listing_id", descending=[False, True, False])
        .group_by("query_id", maintain_order=True)
        .head(k)
    )


def keyed(listings: pl.DataFrame) -> pl.DataFrame:
    """listing_id, source, content_hash: the keys of some listings, as they are; no row where one has none.

    `listings` has listing_id and any of gtin, image_hash, image_phash and title.
    """
    parts = [
        listings.select("listing_id", source=pl.lit(source), content_hash=key.cast(pl.String))
        for source, key in KEYS.items()
        if _COLUMN[source] in listings.columns
    ]
    return pl.concat([pl.DataFrame(schema=KEYED), *parts]).filter(pl.col("content_hash").str.len_chars() > 0)


def exact_keys(changed_ids: pl.Series, keyed: pl.DataFrame, limit: int) -> ExactKeys:
    """Pairs of a changed listing with every one that has the same GTIN, picture, perceptual hash or normalised title.

    `keyed` (listing_id, source, content_hash) has the keys of the live catalogue. One that more than `limit` listings
    share says little (a placeholder picture, a one-word title) and is skipped and counted.
    """
    key = ["source", "content_hash"]
    changed = changed_ids.unique().to_frame("query_id")
    queries = keyed.rename({"listing_id": "query_id"}).join(changed, on="query_id", how="semi")
    sizes = keyed.join(queries.select(key).unique(), on=key, how="semi").group_by(key).len()
    skipped = dict.fromkeys(KEYS, 0) | dict(sizes.filter(pl.col("len") > limit).group_by("source").len().iter_rows())
    shared = sizes.filter(pl.col("len").is_between(2, limit)).select(key)
    pairs = (
        queries.join(shared, on=key, how="semi")
        .join(keyed, on=key)
        .filter(pl.col("query_id") != pl.col("listing_id"))
        .select("query_id", "listing_id", "source")
    )
    return ExactKeys(pairs.sort("query_id", "listing_id", "source"), skipped)


def candidates(
    neighbours: Mapping[str, pl.DataFrame], keys: ExactKeys | None = None, per_listing_cap: int = 120
) -> Candidates:
    """Union of all sources: each unordered pair once, in order of ids, with the sources that proposed it.

    Ids are of any one type that has an order.

    Each changed listing keeps at most `per_listing_cap` pairs of its own: those with an exact key first, then by rank
    within their source (cosines of titles and of pictures are on different scales, ranks are not). A pair stays where
    either of its ends keeps it, so the total is at most the cap times the changed listings.
    """
    ranked = [
        nearest(frame, frame.height)
        .select("query_id", "listing_id", "similarity")
        .with_columns(
            rank=pl.int_range(pl.len(), dtype=pl.Int64).over("query_id") + 1,
            source=pl.lit(source),
        )
        for source, frame in neighbours.items()
    ]
    if keys is not None:
        ranked.append(
            keys.pairs.filter(pl.col("query_id") != pl.col("listing_id")).select(
                "query_id",
                "listing_id",
                similarity=pl.lit(1.0, pl.Float32),
                rank=pl.lit(0, pl.Int64),
                source="source",
            )
        )
    skipped = sum(keys.skipped.values()) if keys else 0
    if not ranked:
        return Candidates(pl.DataFrame(schema=PAIRS), {}, skipped, 0, 0)
    proposed = (
        pl.concat(ranked, how="vertical_relaxed")
        .group_by("query_id", "listing_id")
        .agg(
            rank=pl.col("rank").min(),
            similarity=pl.col("similarity").max(),
            source=pl.col("source").unique(),
        )
        .sort("query_id", "rank", "similarity", "listing_id", descending=[False, False, True, False])
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64).over("query_id"))
    )
    over = proposed.filter(pl.col("place") >= per_listing_cap)
    pairs = (
        proposed.with_columns(kept=pl.col("place") < per_listing_cap)
        .select(
            "kept",
            "source",
            left_id=pl.min_horizontal("query_id", "listing_id"),
            right_id=pl.max_horizontal("query_id", "listing_id"),
        )
        .group_by("left_id", "right_id")
        .agg(
            kept=pl.col("kept").any(),
            blocked_by=pl.col("source").explode().unique().sort(),
        )
    )
    kept = pairs.filter("kept").select("left_id", "right_id", "blocked_by").sort("left_id", "right_id")
    by_source = kept.select(source=pl.col("blocked_by").explode()).group_by("source").len().sort("source")
    return Candidates(
        pairs=kept.cast({"blocked_by": PAIRS["blocked_by"]}),
        by_source=dict(by_source.iter_rows()),
        skipped_keys=skipped,
        capped_listings=over["query_id"].n_unique(),
        capped_pairs=pairs.height - kept.height,
    )


def beside(asked: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """`asked` pairs (left_id, right_id and any other column), and after them those `found` that are none of them.

    For who has a question of some pairs only: what a pair is worth shows among the others of its two listings.
    """
    sides = ["left_id", "right_id"]
    others = found.select(sides).join(asked, on=sides, how="anti", maintain_order="left")
    return pl.concat([asked, others], how="diagonal")
