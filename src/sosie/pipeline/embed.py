"""Vectors for what changed: equal content once, known content never again."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.artifacts import Artifact
from sosie.lake import Lake, Written
from sosie.listings import clean_titles
from sosie.pipeline.ingest import changes, thumbnails
from sosie.pipeline.run import Run, Tally, step
from sosie.settings import Settings
from sosie.tables import EMBEDDINGS, LISTINGS, MODALITIES, VECTOR, Modality, having
from sosie.vectors import Picked, frame

MANY = 10_000
"""Listings whose vectors are read with all others at once: to look each of them up would take longer."""


EMBEDDED = ("listing_id", "title", "text_hash", "image_hash", "updated_at", "is_deleted")
"""What of a listing its vectors are made from."""


class Shard(TypedDict):
    """One mapped piece of work: what `embed` is called with."""

    modality: Modality
    shard: int
    shards: int


def version(settings: Settings, modality: Modality) -> str:
    """The embedding version that is written now. Raises `ModelError`."""
    folder = settings.encoder(modality)
    files = ((file, file.stat()) for file in sorted(folder.glob("*")))
    return _version(folder, modality, tuple((file.name, about.st_mtime_ns, about.st_size) for file, about in files))


@lru_cache
def _version(folder: Path, modality: Modality, files: tuple[tuple[str, int, int], ...]) -> str:
    """Checked once for as long as its `files` stay what they are: an hour asks some twenty times."""
    return Artifact.load(folder, f"{modality}-encoder").version


def shards(run: Run) -> list[Shard]:
    """How to part the run's embedding: none where nothing needs a vector, else by content hash, evenly sized."""
    needed = changes(run)
    plan: list[Shard] = []
    for modality in MODALITIES:
        unique = needed[f"{modality}_hash"].drop_nulls().n_unique()
        count = min(run.settings.embedding.max_shards, math.ceil(unique / run.settings.embedding.shard_size))
        plan += [Shard(modality=modality, shard=shard, shards=count) for shard in range(count)]
    return plan


@step
def embed(run: Run, tally: Tally, *, modality: Modality, shard: int, shards: int) -> None:
    """Embed the shard's new contents of one modality and append a row for each listing that has them."""
    settings, hash_ = run.settings, f"{modality}_hash"
    in_shard = pl.col(hash_).str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % shards == shard
    wanted = changes(run).filter(pl.col(hash_).is_not_null()).filter(in_shard)
    listings = run.lake.lookup(LISTINGS, "listing_id", wanted["listing_id"], columns=EMBEDDED)
    # A later hour may have moved a listing on; its vector is then that hour's work.
    listings = listings.join(wanted.select("listing_id", hash_), on=["listing_id", hash_]).filter(~pl.col("is_deleted"))
    written, needed, computed = embed_listings(run.lake, settings, modality, listings, run.id)
    tally.written(written)
    tally(**{f"{modality}_needed": needed, f"{modality}_computed": computed, f"{modality}_cached": needed - computed})


def embed_listings(
    lake: Lake, settings: Settings, modality: Modality, listings: pl.DataFrame, run_id: str
) -> tuple[Written, int, int]:
    """Make sure that the lake holds the vector of each listing's content under the model's version.

    Returns what was written, how many different contents there were, and for how many of them the model was called.
    """
    hash_ = f"{modality}_hash"
    contents = listings.unique(hash_).sort(hash_)
    stamp = version(settings, modality)
    known = made(lake, modality, stamp, "content_hash", contents[hash_]).unique("content_hash")
    missing = contents.join(known, left_on=hash_, right_on="content_hash", how="anti")
    pieces = [with_vectors(lake, modality, stamp, known).select("content_hash", "vector")]
    if not missing.is_empty():
        pieces.append(encoded(settings, modality, missing))
    rows = rows_of(listings, pl.concat(pieces), modality, stamp)
    return tell(lake, modality, stamp, rows, run_id), contents.height, missing.height


def rows_of(listings: pl.DataFrame, vectors: pl.DataFrame, modality: Modality, stamp: str) -> pl.DataFrame:
    """Rows of the modality's table for listings whose contents are among `vectors` (content_hash, vector)."""
    rows = listings.select("listing_id", content_hash=f"{modality}_hash", event_timestamp="updated_at")
    return (
        rows.join(vectors, on="content_hash")
        .with_columns(embedding_version=pl.lit(stamp), created_timestamp=pl.lit(datetime.now(UTC)))
        .select(*EMBEDDINGS[modality].columns)
    )


def tell(lake: Lake, modality: Modality, stamp: str, rows: pl.DataFrame, run_id: str) -> Written:
    """Append the rows that say something new of their listing, each as its newest."""
    # A listing whose newest row already tells this content is up to date, whatever time its feed gave it since.
    told = newest(lake, modality, stamp, rows["listing_id"])
    # What is told last is newest, also where a feed gives a day and no time, and a title goes and comes back within it.
    rows = (
        rows.join(told, on=["listing_id", "content_hash"], how="anti")
        .join(told.select("listing_id", last="event_timestamp"), on="listing_id", how="left")
        .with_columns(event_timestamp=pl.max_horizontal("event_timestamp", pl.col("last") + timedelta(seconds=1)))
    )
    return lake.append(EMBEDDINGS[modality], rows.drop("last"), run_id=run_id)


def encoded(settings: Settings, modality: Modality, contents: pl.DataFrame) -> pl.DataFrame:
    """content_hash, vector of listings of which no two have the same content: what the model says, and nothing else."""
    vectors = pl.Series("vector", encode(settings, modality, contents)).cast(VECTOR)
    return pl.DataFrame({"content_hash": contents[f"{modality}_hash"], "vector": vectors})


def encode(settings: Settings, modality: Modality, contents: pl.DataFrame) -> npt.NDArray[np.float32]:
    """float32 [n, 128]: what the model that is served says of each row's title or picture."""
    if modality == "text":
        from sosie.embedding.text import TextEncoder

        titles = contents.select(clean_titles(pl.col("title")))["title"].to_list()
        text = TextEncoder.load(settings.text_model, settings.embedding.threads, settings.embedding.device)
        return text.encode(titles, settings.embedding.batch_size)

    from sosie.embedding.image import ImageEncoder

    pictures = thumbnails(settings)
    image = ImageEncoder.load(settings.image_model, settings.embedding.threads, settings.embedding.device)
    hashes: Sequence[str] = contents["image_hash"].to_list()
    batch = settings.embedding.batch_size
    parts = [
        image.encode([pictures.get(hash_) for hash_ in some], batch)
        for some in batched(hashes, batch * 32)  # bounds the thumbnails in memory
    ]
    return np.concatenate(parts)


def assured(lake: Lake, settings: Settings, modality: Modality, listings: pl.DataFrame, run_id: str) -> pl.DataFrame:
    """`current`, after a vector was made for each that has none: an hour may go on by other models than it began."""
    held = current(lake, modality, version(settings, modality), listings)
    missing = listings.filter(having(modality)).join(held, on="listing_id", how="anti")
    if missing.is_empty():
        return held
    embed_listings(lake, settings, modality, missing, run_id)
    return current(lake, modality, version(settings, modality), listings)


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def made(lake: Lake, modality: Modality, stamp: str, column: str, values: pl.Series) -> pl.DataFrame:
    """Rows of the modality's table under one version whose `column` is among `values`, but for their vectors."""
    table = EMBEDDINGS[modality]
    flat = [name for name in table.columns if name not in table.vectors]
    return lake.lookup(table, column, values, columns=flat).filter(pl.col("embedding_version") == stamp)


def with_vectors(lake: Lake, modality: Modality, stamp: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows of the modality's table, in their order, with `vector`; those that are still held."""
    none = rows.clear().with_columns(vector=pl.lit(None, VECTOR))
    return next(in_parts(lake, modality, stamp, rows, rows.height), none)


def in_parts(lake: Lake, modality: Modality, stamp: str, rows: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """`with_vectors` of `size` rows at a time, for so many that the vectors of all would fill the memory.

    No two of `rows` have one key; one that is no longer held is left out.

    Vectors are most of the table and can't be skipped one by one, so where they have to be read they are looked for
    where the rows lie that were made at the time of these: what an hour embedded is a file of its own.
    """
    if rows.is_empty():
        return
    key = ["listing_id", "content_hash", "event_timestamp"]
    created, worth = rows["created_timestamp"], []
    if not created.null_count():
        worth.append(pl.col("created_timestamp").is_between(created.min(), created.max()))
    held = lake.mapped(EMBEDDINGS[modality], *worth, columns=[*key, "vector"], embedding_version=stamp)
    asked = pl.col("listing_id").is_in(rows["listing_id"].implode())
    # Two writers at once may have appended a row twice.
    places = held.select(*key, row=pl.int_range(pl.len())).filter(asked).unique(key, keep="first")
    found = rows.join(places, on=key, maintain_order="left")
    vectors, told = Picked.of(held["vector"], found["row"]), found.drop("row")
    for start in range(0, told.height, size):
        part = pl.Series(vectors[start : start + size]).cast(VECTOR)
        yield told[start : start + size].with_columns(vector=part)


def latest(lake: Lake, modality: Modality, stamp: str, listing_ids: pl.Series) -> pl.DataFrame:
    """The newest row of each listing under one version."""
    rows = with_vectors(lake, modality, stamp, newest(lake, modality, stamp, listing_ids))
    return rows.select(*EMBEDDINGS[modality].columns)


def newest(lake: Lake, modality: Modality, stamp: str, listing_ids: pl.Series) -> pl.DataFrame:
    """`latest`, but for the vectors."""
    return (
        made(lake, modality, stamp, "listing_id", listing_ids)
        .sort("event_timestamp", "created_timestamp")
        .unique("listing_id", keep="last", maintain_order=True)
    )


def current(lake: Lake, modality: Modality, stamp: str, listings: pl.DataFrame) -> pl.DataFrame:
    """listing_id, vector of those among `listings` that live and have the modality, by the content they have now."""
    live = _contents(modality, listings)
    if live.height >= MANY:
        ids, vectors = located(lake, modality, stamp, listings)
        return frame(ids, vectors[:])
    rows = _of_now(live, made(lake, modality, stamp, "listing_id", live["listing_id"]))
    return with_vectors(lake, modality, stamp, rows).select("listing_id", "vector")


def located(lake: Lake, modality: Modality, stamp: str, listings: pl.DataFrame) -> tuple[pl.Series, Picked]:
    """`current` of many: ids, in order, and their vectors, which stay in the lake's mapped files until asked for."""
    live = _contents(modality, listings)
    held = lake.mapped(EMBEDDINGS[modality], columns=[*live.columns, "vector"], embedding_version=stamp)
    rows = _of_now(live, held.select(*live.columns, row=pl.int_range(pl.len())))
    return rows["listing_id"], Picked.of(held["vector"], rows["row"])


def among(every: tuple[pl.Series, Picked], ids: pl.Series) -> pl.DataFrame:
    """listing_id, vector of those of `located` that are among `ids`."""
    held, vectors = every
    rows = held.is_in(ids.implode()).arg_true()
    return frame(held.gather(rows), vectors[rows.cast(pl.Int64).to_numpy()])


def _contents(modality: Modality, listings: pl.DataFrame) -> pl.DataFrame:
    """listing_id, content_hash of those that live and have the modality, in order of ids."""
    live = listings.filter(having(modality))
    return live.select("listing_id", content_hash=f"{modality}_hash").sort("listing_id")


def _of_now(live: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Of each of those listings the row that was made from its content."""
    then = live.join(rows, on="listing_id", suffix="_then", maintain_order="left")
    then = then.filter(pl.col("content_hash") == pl.col("content_hash_then"))
    return then.unique("listing_id", keep="first", maintain_order=True)
