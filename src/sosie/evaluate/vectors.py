"""Vectors of a dataset's listings by the product's own encoders."""

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sosie.evaluate.dataset import Dataset
from sosie.listings import clean_titles
from sosie.settings import Settings
from sosie.tables import DIM
from sosie.vectors import frame

_PICTURES_AT_ONCE = 1_024


@dataclass(frozen=True)
class Pictures:
    """`vectors` (listing_id, vector) and `hashes` (listing_id, image_hash, image_phash) of the usable pictures."""

    vectors: pl.DataFrame
    hashes: pl.DataFrame
    about: dict[str, Any]


def text_vectors(listings: pl.DataFrame, settings: Settings) -> tuple[pl.DataFrame, dict[str, Any]]:
    """listing_id, vector of the listings that have a title, and the encoder's version."""
    from sosie.embedding.text import TextEncoder

    encoder = TextEncoder.load(settings.models / "text", threads=settings.embedding.threads)
    titled = listings.select("listing_id", title=clean_titles(pl.col("title"))).filter(
        pl.col("title").str.len_chars() > 0
    )
    vectors = encoder.encode(titled["title"].to_list(), settings.embedding.batch_size)
    return frame(titled["listing_id"], vectors), {"text_version": encoder.version}


def image_vectors(dataset: Dataset, settings: Settings) -> Pictures | None:
    """Pictures fetched, checked and embedded as the hourly run does it; None where the dataset has none."""
    pictured = dataset.listings.filter(pl.col("image_uri").is_not_null()).select("listing_id", "image_uri")
    if pictured.is_empty():
        return None
    from sosie.embedding.image import ImageEncoder
    from sosie.pictures import Thumbnails, inspect

    encoder = ImageEncoder.load(settings.models / "image", threads=settings.embedding.threads)
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
        parts = [
            encoder.encode(
                [thumbnails.get(name) for name in unique[start : start + _PICTURES_AT_ONCE]],
                settings.embedding.batch_size,
            )
            for start in range(0, len(unique), _PICTURES_AT_ONCE)
        ]
    seen = frame(unique, np.concatenate(parts) if parts else np.empty((0, DIM), np.float32))
    vectors = hashes.join(seen.rename({"listing_id": "image_hash"}), on="image_hash", maintain_order="left")
    about = {
        "image_version": encoder.version,
        "pictures": hashes.height,
        "pictures_unusable": pictured.height - hashes.height,
    }
    return Pictures(vectors.select("listing_id", "vector"), hashes, about)
