"""Vectors of a dataset's listings by the product's own encoders.

Where a folder is given as `cache`, they are kept there by the encoder's version and what was encoded.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sosie.evaluate.dataset import Dataset
from sosie.listings import clean_titles
from sosie.settings import Settings
from sosie.tables import DIM
from sosie.vectors import Vectors, frame

_PICTURES_AT_ONCE = 1_024


@dataclass(frozen=True)
class Pictures:
    """`vectors` (listing_id, vector) and `hashes` (listing_id, image_hash, image_phash) of the usable pictures."""

    vectors: pl.DataFrame
    hashes: pl.DataFrame
    about: dict[str, Any]


def text_vectors(
    listings: pl.DataFrame, settings: Settings, cache: Path | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """listing_id, vector of the listings that have a title, and the encoder's version."""
    from sosie.embedding.text import TextEncoder

    encoder = TextEncoder.load(settings.text_model, threads=settings.embedding.threads)
    titled = listings.select("listing_id", title=clean_titles(pl.col("title"))).filter(
        pl.col("title").str.len_chars() > 0
    )
    titles = titled["title"].to_list()
    vectors = _kept(
        cache, f"text-{encoder.version}", titles, lambda: encoder.encode(titles, settings.embedding.batch_size)
    )
    return frame(titled["listing_id"], vectors), {"text_version": encoder.version}


def image_vectors(dataset: Dataset, settings: Settings, cache: Path | None = None) -> Pictures | None:
    """Pictures fetched, checked and embedded as the hourly run does it; None where the dataset has none."""
    pictured = dataset.listings.filter(pl.col("image_uri").is_not_null()).select("listing_id", "image_uri")
    if pictured.is_empty():
        return None
    from sosie.embedding.image import ImageEncoder
    from sosie.pictures import Thumbnails, inspect

    encoder = ImageEncoder.load(settings.image_model, threads=settings.embedding.threads)
    with tempfile.TemporaryDirectory(prefix="sosie-evaluate-") as folder:
        thumbnails = Thumbnails(folder)
        found = inspect(
            pictured["image_uri"].to_list(), root=str(dataset.root), thumbnails=thumbnails, rules=settings.validation
        )
        hashes = pictured.select(
            "listing_id",
            image_hash=pl.Series([one.image_hash for one in found], dtype=pl.String),
            image_phash=pl.Series([one.image_phash for one in found], dtype=pl.String),
        ).drop_nulls("image_hash")
        unique = hashes["image_hash"].unique(maintain_order=True)

        def encoded() -> Vectors:
            parts = [
                encoder.encode(
                    [thumbnails.get(name) for name in unique[start : start + _PICTURES_AT_ONCE]],
                    settings.embedding.batch_size,
                )
                for start in range(0, len(unique), _PICTURES_AT_ONCE)
            ]
            return np.concatenate([*parts, np.empty((0, DIM), np.float32)])

        seen = frame(unique, _kept(cache, f"image-{encoder.version}", unique, encoded))
    vectors = hashes.join(seen.rename({"listing_id": "image_hash"}), on="image_hash", maintain_order="left")
    about = {
        "image_version": encoder.version,
        "pictures": hashes.height,
        "pictures_unusable": pictured.height - hashes.height,
    }
    return Pictures(vectors.select("listing_id", "vector"), hashes, about)


def with_hashes(listings: pl.DataFrame, pictures: Pictures | None) -> pl.DataFrame:
    """Listings with `image_hash`, and with our own perceptual hash where there is a picture."""
    if pictures is None:
        return listings.with_columns(image_hash=pl.lit(None, pl.String))
    return (
        listings.join(pictures.hashes, on="listing_id", how="left", suffix="_ours", maintain_order="left")
        .with_columns(image_phash=pl.coalesce("image_phash_ours", "image_phash"))
        .drop("image_phash_ours")
    )


def _kept(cache: Path | None, name: str, contents: Iterable[str], compute: Callable[[], Vectors]) -> Vectors:
    if cache is None:
        return compute()
    digest = hashlib.sha256("\0".join(contents).encode()).hexdigest()[:12]
    file = cache / f"{name}-{digest}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, compute())
    return np.asarray(np.load(file), dtype=np.float32)
