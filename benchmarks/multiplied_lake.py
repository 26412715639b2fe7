"""A large catalogue out of a smaller one that was really loaded: every row of every table copied under other names.

Titles of a copy are spelt by another alphabet and its vectors are turned by a random rotation, so that inside a copy
all similarities, lists, pairs and clusters are those of the original; between copies nothing is alike but by chance. An
hour on such a lake reads, searches and writes as on one that was loaded row by row, and making it takes seconds.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
from simulated_market import Market

from sosie import neighbours, spellings, tables
from sosie.blocking import KEYS
from sosie.decider import mlp
from sosie.index import open_index
from sosie.lake import Lake
from sosie.listings import sha256, with_hashes
from sosie.pipeline.embed import MODALITIES, TABLE, version
from sosie.pipeline.match import _recipe
from sosie.pipeline.run import Run
from sosie.settings import Settings
from sosie.vectors import matrix

_COPIED = (
    tables.LISTINGS, *TABLE.values(), tables.NEIGHBOURS, tables.PAIRS, tables.CLUSTERS, tables.DECISIONS,
)  # fmt: skip
_NEAR = tables.NEIGHBOURS.columns["near"]
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
    """Make the lake and the index of these settings hold `copies` of the catalogue that they hold now."""
    lake = Lake(settings.lake_uri)
    held = {
        table.name: lake.read(table)
        for table in (
            tables.LISTINGS,
            *TABLE.values(),
            tables.NEIGHBOURS,
            tables.PAIRS,
            tables.CLUSTERS,
            tables.DECISIONS,
        )
    }
    for copy in range(1, copies):
        _copy(lake, settings, held, copy)
    live = lake.read(tables.LISTINGS, ~pl.col("is_deleted"), columns=["listing_id", "title", "text_hash"])
    spellings.kept(lake, live, "")
    decider = mlp.load(settings.decider_model).in_catalogue(live.height)
    recipe = _recipe(Run.of(settings=settings), decider)
    lake.upsert(tables.RECIPES, pl.DataFrame([{"name": tables.PAIRS.name, "recipe": recipe}]))


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
            rows = held[TABLE[modality].name].join(now[modality], on="content_hash", maintain_order="left")
            rows = rows.with_columns(named("listing_id", copy), content_hash="now").drop("now")
            vectors = matrix(rows) @ turned
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows = rows.with_columns(vector=pl.Series(vectors).cast(tables.VECTOR))
            _put(lake, TABLE[modality], rows)
            index.ensure(modality, version(settings, modality))
            index.upsert(modality, rows["listing_id"].to_list(), vectors)
    lists = [
        pl.col(name).list.eval(_renamed(copy)) for name, kind in tables.NEIGHBOURS.columns.items() if kind == _NEAR
    ]
    contents = neighbours.contents(listings, ["text", "image", "lexical", *KEYS])
    rows = held["neighbours"].drop("content").with_columns(named("listing_id", copy), *lists)
    _put(lake, tables.NEIGHBOURS, rows.join(contents, on=["listing_id", "source"]))
    _put(lake, tables.PAIRS, held["pairs"].with_columns(named("left_id", copy), named("right_id", copy)))
    names = [named(name, copy) for name in ("listing_id", "cluster_id", "canonical_id")]
    _put(lake, tables.CLUSTERS, held["clusters"].with_columns(*names))
    _put(lake, tables.DECISIONS, held["decisions"].with_columns(*names))


def _renamed(copy: int) -> pl.Expr:
    near = pl.element().struct
    other = pl.concat_str(pl.lit(f"c{copy:03d}-"), near.field("other"))
    return pl.struct(other=other, similarity=near.field("similarity"))


def _put(lake: Lake, table: tables.Table, rows: pl.DataFrame) -> None:
    lake.checked(table, rows).write_delta(lake.path(table), mode="append")


def spell(market: Market, listing: str, title: str) -> None:
    """Tell the market what a copy's new title is of."""
    copy, original = (int(listing[1:4]), listing[5:]) if listing.startswith("c") else (0, listing)
    market.tell(title, market.sells[original], rotation(copy) if copy else None)
