"""A large catalogue out of a smaller one that was really loaded: listings and vectors copied under other names.

Titles of a copy are spelt by another alphabet and its vectors are turned by a random rotation, so that a copy is as
full of duplicates as the original, and between copies nothing is alike but by chance. Nothing that the pipeline works
out is copied: an hour has to run before the lake is one that hours could have made.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
from simulated_market import Market

from sosie import tables
from sosie.index import open_index
from sosie.lake import Lake
from sosie.listings import sha256, with_hashes
from sosie.pipeline.embed import version
from sosie.settings import Settings
from sosie.tables import EMBEDDINGS, MODALITIES
from sosie.vectors import matrix

_VOWELS, _CONSONANTS = "aeiou", "bcdfgklmnprstvz"


def alphabet(copy: int) -> dict[int, int]:
    """How a copy spells; a copy 0 spells as the original."""
    rng, plain = np.random.default_rng(copy), _VOWELS + _CONSONANTS
    other = "".join("".join(rng.permutation(list(some))) for some in (_VOWELS, _CONSONANTS)) if copy else plain
    return str.maketrans(plain + plain.upper(), other + other.upper())


def rotation(copy: int) -> npt.NDArray[np.float32]:
    """Orthogonal [128, 128]."""
    drawn = np.random.default_rng(copy).normal(size=(tables.DIM, tables.DIM))
    return np.linalg.qr(drawn)[0].astype(np.float32) if copy else np.eye(tables.DIM, dtype=np.float32)


def named(column: str, copy: int) -> pl.Expr:
    return pl.concat_str(pl.lit(f"c{copy:03d}-"), pl.col(column)).alias(column)


def multiply(settings: Settings, copies: int) -> None:
    """Make the lake and the index of these settings hold the listings and vectors of `copies` of what they hold now."""
    lake = Lake(settings.lake_uri)
    held = {table.name: lake.read(table) for table in (tables.LISTINGS, *EMBEDDINGS.values())}
    for copy in range(1, copies):
        _copy(lake, settings, held, copy)


def _copy(lake: Lake, settings: Settings, held: dict[str, pl.DataFrame], copy: int) -> None:
    letters = alphabet(copy)
    was = held["listings"]
    listings = was.with_columns(
        named("listing_id", copy),
        pl.col("title").map_elements(lambda title: title.translate(letters), return_dtype=pl.String),
        pl.when(pl.col("image_hash").is_not_null()).then(named("image_hash", copy)).alias("image_hash"),
        pl.lit(None, pl.String).alias("image_phash"),
    )
    listings = with_hashes(listings.drop("text_hash", "content_hash")).select(*tables.LISTINGS.columns)
    listings = listings.with_columns(image_hash=sha256("image_hash"))
    _put(lake, tables.LISTINGS, listings)
    turned = rotation(copy)
    now = {
        modality: pl.DataFrame(
            {"content_hash": was[f"{modality}_hash"], "now": listings[f"{modality}_hash"]}
        ).drop_nulls().unique("content_hash")
        for modality in MODALITIES
    }  # fmt: skip
    with open_index(settings) as index:
        for modality in MODALITIES:
            rows = held[EMBEDDINGS[modality].name].join(now[modality], on="content_hash", maintain_order="left")
            rows = rows.with_columns(named("listing_id", copy), content_hash="now").drop("now")
            vectors = matrix(rows) @ turned
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows = rows.with_columns(vector=pl.Series(vectors).cast(tables.VECTOR))
            _put(lake, EMBEDDINGS[modality], rows)
            index.ensure(modality, version(settings, modality))
            index.upsert(modality, rows["listing_id"].to_list(), vectors)


def _put(lake: Lake, table: tables.Table, rows: pl.DataFrame) -> None:
    lake.checked(table, rows).write_delta(lake.path(table), mode="append")


def spell(market: Market, listing: str, title: str) -> None:
    """Tell the market what a copy's new title is of."""
    copy, original = (int(listing[1:4]), listing[5:]) if listing.startswith("c") else (0, listing)
    market.tell(title, market.sells[original], rotation(copy) if copy else None)
