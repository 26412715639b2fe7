"""Catalogues to train and measure the decider on: candidate pairs of the same blocking, and the truth about each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from sosie import blocking, lexical
from sosie.decider.features import NAMES, pair_features
from sosie.decider.text_features import Vocabulary
from sosie.evaluate import datasets
from sosie.listings import clean_titles
from sosie.settings import Blocking, Validation
from sosie.tables import DIM
from sosie.vectors import frame

log = structlog.get_logger()

Mask = npt.NDArray[np.bool_]
_NONE = np.empty((0, DIM), dtype=np.float32)


@dataclass(frozen=True)
class View:
    """Text vectors (listing_id, vector) of a whole catalogue by an encoder that never saw the groups of `unseen`."""

    unseen: pl.Series
    text: pl.DataFrame


@dataclass(frozen=True)
class Catalogue:
    """Listings (with image_hash), their true group, and vectors (listing_id, vector) by modality.

    Where the text encoder was trained on these very groups its cosines flatter it. `views` then holds, for each part
    of the listings, vectors by an encoder that was trained without that part.
    """

    name: str
    listings: pl.DataFrame
    truth: pl.DataFrame
    text: pl.DataFrame
    image: pl.DataFrame
    views: tuple[View, ...] = ()

    @property
    def all_views(self) -> tuple[View, ...]:
        """The views, or one of everything where there are none."""
        return self.views or (View(self.listings["listing_id"], self.text),)

    @property
    def has_pictures(self) -> bool:
        """Whether there are vectors or perceptual hashes of pictures."""
        return bool(self.image.height or self.listings["image_phash"].count())

    def half(self, which: str) -> "Catalogue":
        """The listings whose group belongs to `which` half, as a catalogue of their own."""
        mine = self.truth.filter(datasets.split(self.truth["group"]) == which)
        return self.only(mine["listing_id"], f"{self.name}-{which}")

    def only(self, ids: pl.Series, name: str) -> "Catalogue":
        kept = pl.col("listing_id").is_in(ids.implode())
        listings, truth, text, image = (
            frame.filter(kept) for frame in (self.listings, self.truth, self.text, self.image)
        )
        views = tuple(
            View(view.unseen.filter(view.unseen.is_in(ids.implode())), view.text.filter(kept)) for view in self.views
        )
        return Catalogue(name, listings, truth, text, image, views)

    def with_gaps(self, seed: int) -> "Catalogue":
        """The same with things missing as sellers leave them out, so that the decider learns to do without.

        A fifth of the listings lose their picture and all that comes of it, others the perceptual hash or the vector
        alone; each attribute is missing from a third of them.
        """
        random = np.random.default_rng(seed)

        def lost(share: float) -> pl.Series:
            return pl.Series(random.random(self.listings.height) < share)

        no_picture = lost(0.2)
        listings = self.listings.with_columns(
            *(pl.when(lost(0.33)).then(None).otherwise(name).alias(name) for name in
              ("brand", "gtin", "category", "price")),
            pl.when(no_picture | lost(0.2)).then(None).otherwise("image_phash").alias("image_phash"),
            pl.when(no_picture | lost(0.1)).then(None).otherwise("image_hash").alias("image_hash"),
        )  # fmt: skip
        blind = listings["listing_id"].filter(no_picture | lost(0.1))
        image = self.image.filter(~pl.col("listing_id").is_in(blind.implode()))
        return Catalogue(f"{self.name}-gaps", listings, self.truth, self.text, image, self.views)


@dataclass(frozen=True)
class Pool:
    """A catalogue's candidate pairs as blocking gives them, whether each is a duplicate (`label`), and features."""

    catalogue: Catalogue
    pairs: pl.DataFrame
    label: Mask
    features: npt.NDArray[np.float32]
    true_pairs: int

    @property
    def name(self) -> str:
        return self.catalogue.name

    @property
    def recall(self) -> float:
        """Share of all duplicate pairs of the catalogue that are candidates."""
        return float(self.label.sum() / max(self.true_pairs, 1))

    def groups(self, side: str) -> pl.Series:
        """True group of each pair's side."""
        return self.pairs.join(
            self.catalogue.truth, left_on=f"{side}_id", right_on="listing_id", how="left", maintain_order="left"
        )["group"]


def candidates(catalogue: Catalogue, rules: Blocking, vocabulary: Vocabulary) -> pl.DataFrame:
    """Pairs that the hourly run would decide if the whole catalogue came new."""
    k, floor = rules.text_neighbours, rules.min_text_similarity
    near = {"text": pl.concat([blocking.join_frame(v.unseen, v.text, k, floor) for v in catalogue.all_views])}
    if catalogue.image.height:
        k, floor = rules.image_neighbours, rules.min_image_similarity
        near["image"] = blocking.join_frame(catalogue.image["listing_id"], catalogue.image, k, floor)
    near |= lexical.neighbours(catalogue.listings["listing_id"], catalogue.listings, vocabulary, rules)
    keys = blocking.exact_keys(catalogue.listings["listing_id"], catalogue.listings, rules.exact_key_limit)
    found = blocking.candidates(near, keys, rules.candidates_per_listing)
    log.info("candidates", catalogue=catalogue.name, listings=catalogue.listings.height, **found.counts)
    return found.pairs


def features(catalogue: Catalogue, pairs: pl.DataFrame, vocabulary: Vocabulary) -> npt.NDArray[np.float32]:
    """Pair features [pairs, features]; each pair's text cosine by the view that has not seen its left side."""
    values = np.empty((pairs.height, len(NAMES)), dtype=np.float32)
    for view in catalogue.all_views:
        mine = pairs["left_id"].is_in(view.unseen.implode())
        values[mine.to_numpy()] = pair_features(
            pairs.filter(mine), catalogue.listings, view.text, catalogue.image, vocabulary
        )
    return values


def labelled(pairs: pl.DataFrame, truth: pl.DataFrame) -> Mask:
    """Whether both sides of each pair are in one true group."""
    sides = [
        pairs.join(truth, left_on=side, right_on="listing_id", how="left", maintain_order="left")["group"]
        for side in ("left_id", "right_id")
    ]
    return (sides[0] == sides[1]).fill_null(False).to_numpy()


def true_pairs(truth: pl.DataFrame) -> int:
    sizes = truth.group_by("group").len()["len"].to_numpy().astype(np.int64)
    return int((sizes * (sizes - 1) // 2).sum())


def read(path: Path, text_model: Path, image_model: Path, cache: Path) -> Catalogue:
    """A labelled dataset with its vectors, which are kept under `cache` by model version and content."""
    dataset = datasets.load(path)
    listings = dataset.listings.with_columns(title=clean_titles(pl.col("title")))
    listings, image = _pictures(listings, dataset.root, image_model, cache)
    text = frame(listings["listing_id"], _text_vectors(listings["title"], text_model, cache))
    log.info("read", dataset=dataset.name, listings=listings.height, pictures=image.height)
    return Catalogue(dataset.name, listings, dataset.truth, text, image)


def _text_vectors(titles: pl.Series, model: Path, cache: Path) -> npt.NDArray[np.float32]:
    from sosie.embedding.text import TextEncoder

    encoder = TextEncoder.load(model, threads=1)
    digest = hashlib.sha256("\0".join(titles).encode()).hexdigest()[:12]
    file = cache / f"text-{encoder.version}-{digest}.npy"
    if not file.exists():
        log.info("encode titles", titles=len(titles))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, encoder.encode(titles.to_list(), 32))
    return np.asarray(np.load(file), dtype=np.float32)


def _pictures(listings: pl.DataFrame, root: Path, model: Path, cache: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Listings with `image_hash` and `image_phash` as the pipeline has them, and the vectors of good pictures."""
    if not listings["image_uri"].count():
        return listings.with_columns(image_hash=pl.lit(None, pl.String)), frame(listings["listing_id"][:0], _NONE)
    from sosie.embedding.image import ImageEncoder
    from sosie.pictures import Thumbnails, inspect

    encoder = ImageEncoder.load(model, threads=1)
    thumbnails = Thumbnails(str(cache / "pictures"))
    seen = inspect(listings["image_uri"].to_list(), root=str(root), thumbnails=thumbnails, rules=Validation())
    listings = listings.with_columns(
        image_hash=pl.Series([picture.image_hash for picture in seen], dtype=pl.String),
        image_phash=pl.coalesce(pl.Series([picture.image_phash for picture in seen], dtype=pl.String), "image_phash"),
    )
    hashes = listings["image_hash"].drop_nulls().unique().sort()
    file = cache / f"image-{encoder.version}-{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:12]}.npy"
    if not file.exists():
        log.info("encode pictures", pictures=len(hashes))
        parts = [
            encoder.encode([thumbnails.get(hash_) for hash_ in hashes[start : start + 1_024]], 32)
            for start in range(0, len(hashes), 1_024)
        ]
        np.save(file, np.concatenate([*parts, np.empty((0, DIM), np.float32)]))
    by_hash = frame(hashes, np.load(file)).rename({"listing_id": "image_hash"})
    vectors = listings.select("listing_id", "image_hash").join(by_hash, on="image_hash", maintain_order="left")
    return listings, vectors.select("listing_id", "vector")
