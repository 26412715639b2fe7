"""What a listing is: its clean title, its content hashes, and what changed about it since we last held it."""

import ast
import hashlib
import re
import unicodedata
from dataclasses import dataclass

import polars as pl

from sosie.tables import CHANGES, FEED, LISTINGS

_ESCAPED_BYTES = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_BYTES_LITERAL = re.compile(r"""^b(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')$""", re.DOTALL)
_WHITE = re.compile(r"\s+")

ATTRIBUTES = tuple(
    name for name in FEED if name not in ("listing_id", "title", "image_uri", "updated_at", "is_deleted")
)
"""Columns that are neither text nor picture: a change in one of them re-embeds nothing."""


def clean_title(title: str) -> str:
    r"""One spelling for one title: NFKC, white space folded, and `b"caf\xc3\xa9"` read as the bytes that it prints."""
    if _BYTES_LITERAL.match(title):
        try:
            title = ast.literal_eval(title).decode("utf-8", errors="replace")
        except (SyntaxError, ValueError):
            title = title[2:-1]
    title = _ESCAPED_BYTES.sub(_unescape, title)
    return _WHITE.sub(" ", unicodedata.normalize("NFKC", title)).strip()


def _unescape(hit: re.Match[str]) -> str:
    return bytes.fromhex(hit.group().replace("\\x", "")).decode("utf-8", errors="replace")


def clean_titles(titles: pl.Expr) -> pl.Expr:
    """`clean_title` over a column; null stays null, each different title is cleaned once."""
    return titles.map_batches(_clean_series, return_dtype=pl.String)


def _clean_series(titles: pl.Series) -> pl.Series:
    unique = titles.unique().drop_nulls()
    cleaned = pl.Series([clean_title(title) for title in unique], dtype=pl.String)
    return titles.replace_strict(unique, cleaned, default=None, return_dtype=pl.String)


def sha256(column: str) -> pl.Expr:
    """Hex digest of a text column; null stays null."""
    return pl.col(column).map_elements(_digest, return_dtype=pl.String)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def with_hashes(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `text_hash` and `content_hash` to rows that have the feed's columns and `image_hash`.

    `updated_at` is left out of the content: a listing sent again with a new time alone is unchanged.
    """
    content = pl.struct(*ATTRIBUTES, "image_hash", "is_deleted", title=clean_titles(pl.col("title")))
    return rows.with_columns(_clean=clean_titles(pl.col("title")), _content=content.struct.json_encode()).select(
        pl.exclude("_clean", "_content"),
        sha256("_clean").alias("text_hash"),
        sha256("_content").alias("content_hash"),
    )


@dataclass(frozen=True)
class Detected:
    """What a batch means against what is held.

    `changes` fits `tables.CHANGES`; `listings` are the rows to store, fitting `tables.LISTINGS`; `kinds` says of each
    listing in the batch what became of it; every row of the batch is in exactly one of `counts`.
    """

    changes: pl.DataFrame
    listings: pl.DataFrame
    kinds: pl.DataFrame
    counts: dict[str, int]


KINDS = ("new", "text", "image", "text_and_image", "attributes", "deleted")
IGNORED = ("unchanged", "stale", "superseded")


def detect(batch: pl.DataFrame, held: pl.DataFrame, run_id: str) -> Detected:
    """Compare a batch with the listings that are held under its ids.

    `batch` has the feed's columns and `image_hash`, in any order, an id perhaps several times; the newest `updated_at`
    speaks and the others are *superseded*. A row older than what is held is *stale* and changes nothing: late data
    never overwrites newer. A row that equals what is held is *unchanged*, whatever its time; so is a delete of what we
    never held or hold as deleted.
    """
    newest = (
        with_hashes(batch)
        .sort("listing_id", "updated_at", "content_hash")
        .unique("listing_id", keep="last", maintain_order=True)
    )
    old = held.select("listing_id", pl.exclude("listing_id").name.prefix("held_"))
    gone = pl.col("held_is_deleted").fill_null(True)
    # Two contents of one time: what a later hour brought stands, also where an earlier hour runs again.
    outrun = (
        (pl.col("held_updated_at") == pl.col("updated_at"))
        & (pl.col("held_content_hash") != pl.col("content_hash"))
        & (pl.col("held_last_changed_run") > run_id)
    ).fill_null(False)
    text, image = (pl.col(f"{name}_hash").ne_missing(pl.col(f"held_{name}_hash")) for name in ("text", "image"))
    judged = newest.join(old, on="listing_id", how="left").with_columns(
        kind=pl.when((pl.col("held_updated_at") > pl.col("updated_at")) | outrun)
        .then(pl.lit("stale"))
        .when(pl.col("is_deleted") & gone)
        .then(pl.lit("unchanged"))
        .when(pl.col("is_deleted"))
        .then(pl.lit("deleted"))
        .when(gone)
        .then(pl.lit("new"))
        .when(pl.col("content_hash") == pl.col("held_content_hash"))
        .then(pl.lit("unchanged"))
        .otherwise(_kind(text, image))
    )
    counts = dict.fromkeys((*KINDS, *IGNORED), 0)
    counts |= dict(judged.group_by("kind").len().iter_rows())
    counts["superseded"] = batch.height - newest.height

    # What we hold must know the newest time that spoke, also where it said nothing new (or deleted what we never had):
    # otherwise a late row could slip in between.
    newer = pl.col("held_updated_at").is_null() | (pl.col("updated_at") > pl.col("held_updated_at"))
    changes = pl.col("kind").is_in(KINDS)
    kept = (*ATTRIBUTES, "title", "image_uri", "image_hash", "text_hash")
    stored = judged.filter(changes | ((pl.col("kind") == "unchanged") & newer)).with_columns(
        # A delete often carries the id alone; what the listing was stays on record.
        *(pl.when("is_deleted").then(pl.coalesce(name, f"held_{name}")).otherwise(name).alias(name) for name in kept),
        first_seen_run=pl.col("held_first_seen_run").fill_null(run_id),
        last_changed_run=pl.when(changes).then(pl.lit(run_id)).otherwise("held_last_changed_run"),
        run_id=pl.lit(run_id),
    )
    needs_text = pl.col("kind").is_in(("new", "text", "text_and_image"))
    needs_image = pl.col("kind").is_in(("new", "image", "text_and_image"))
    return Detected(
        changes=stored.filter(changes)
        .select(
            "run_id",
            "listing_id",
            "kind",
            pl.when(needs_text).then("text_hash").alias("text_hash"),
            pl.when(needs_image).then("image_hash").alias("image_hash"),
        )
        .select(*CHANGES.columns),
        listings=stored.select(*LISTINGS.columns),
        kinds=judged.select("listing_id", "kind"),
        counts=counts,
    )


def _kind(text: pl.Expr, image: pl.Expr) -> pl.Expr:
    """Kind of a change to a listing that lives on, by what of its content moved."""
    return (
        pl.when(text & image)
        .then(pl.lit("text_and_image"))
        .when(text)
        .then(pl.lit("text"))
        .when(image)
        .then(pl.lit("image"))
        .otherwise(pl.lit("attributes"))
    )


def merge(older: pl.DataFrame, newer: pl.DataFrame) -> pl.DataFrame:
    """One change set out of two of one hour, as `tables.CHANGES`: work that `older` asked for stays asked for."""
    was = older.select("listing_id", pl.exclude("listing_id").name.suffix("_was"))
    both = newer.join(was, on="listing_id", how="left")
    whole = pl.col("kind").is_in(("new", "deleted")) | pl.col("kind_was").is_null()
    text = pl.any_horizontal(pl.col("kind", "kind_was").is_in(("text", "text_and_image")))
    image_now = pl.col("kind").is_in(("image", "text_and_image"))
    image = image_now | pl.col("kind_was").is_in(("image", "text_and_image"))
    merged = both.select(
        "run_id",
        "listing_id",
        kind=pl.when(whole)
        .then("kind")
        .when(pl.col("kind_was") == "new")
        .then(pl.lit("new"))
        .otherwise(_kind(text, image)),
        text_hash=pl.when(whole).then("text_hash").otherwise(pl.coalesce("text_hash", "text_hash_was")),
        # A picture that was taken away since needs no vector.
        image_hash=pl.when(whole | image_now).then("image_hash").otherwise("image_hash_was"),
    )
    return pl.concat([older.join(newer, on="listing_id", how="anti"), merged]).select(*CHANGES.columns)
