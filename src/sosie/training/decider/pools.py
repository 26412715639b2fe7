"""What the decider learns from: candidate pairs of labelled catalogues, by the blocking that the hourly run uses.

All of it comes from listings that the encoder of their titles never saw: there a cosine is worth what it will be worth
in use. Those are the decider's part of the data, and the encoders' part by the vectors of stage `cross_text`.
"""

import hashlib
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from sosie import blocking, lexical, phashes
from sosie.decider.features import pair_features
from sosie.decider.model import prior_of
from sosie.decider.text_features import Vocabulary
from sosie.evaluate import datasets
from sosie.evaluate.dataset import Dataset
from sosie.listings import clean_titles
from sosie.settings import Blocking, Validation
from sosie.tables import DIM
from sosie.vectors import frame

if TYPE_CHECKING:
    from sosie.pictures import Thumbnails

log = structlog.get_logger()

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_NONE = np.empty((0, DIM), dtype=np.float32)


@dataclass(frozen=True)
class Catalogue:
    """Listings (with image_hash) and vectors (listing_id, vector) by modality.

    The truth is either each listing's group (`truth`), or a label on some pairs (`pairs`), as the literature has it.
    `around` (left_id, right_id, first_score) are pairs of these listings that have no label and were scored before.
    `bystanders` are ids of listings that only stand around the others: what two of them are to each other is not to be
    learnt from, nor counted. Where it is `crossed`, vectors are of another encoder than the served one: their cosines
    mean about the same, their numbers do not. `taken_from` is the size of the catalogue that labelled pairs were taken
    from, where it is known.
    """

    name: str
    listings: pl.DataFrame
    truth: pl.DataFrame
    pairs: pl.DataFrame
    text: pl.DataFrame
    image: pl.DataFrame
    around: pl.DataFrame | None = None
    bystanders: pl.Series | None = None
    crossed: bool = False
    taken_from: int | None = None

    @property
    def has_groups(self) -> bool:
        return not self.truth.is_empty()

    def prior(self, meant: int) -> float:
        """What its size adds to log-odds that are meant for a catalogue of `meant` listings, as an hour would add it.
        Nothing where pairs were chosen for a set of labels, as many of each kind as its makers liked."""
        size = self.listings.height if self.has_groups else self.taken_from
        return prior_of(size, meant) if size else 0.0

    @property
    def has_pictures(self) -> bool:
        """Whether there are vectors or perceptual hashes of pictures."""
        return bool(self.image.height or self.listings["image_phash"].count())

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
        return replace(self, name=f"{self.name}-gaps", listings=listings, image=image)

    def without_pictures(self) -> "Catalogue":
        """The same without the vectors of pictures and all else that is read from a picture here."""
        if not self.image.height:
            return self
        nothing = [pl.lit(None, pl.String).alias(name) for name in ("image_hash", "image_phash")]
        return replace(self, listings=self.listings.with_columns(nothing), image=self.image.clear())

    def among(self, others: "Catalogue") -> "Catalogue":
        """The same in a larger one, as thresholds have to hold where a catalogue grows: `others` are bystanders."""
        both = {name: pl.concat([getattr(self, name), getattr(others, name)], how="diagonal")
                for name in ("listings", "truth", "text", "image")}  # fmt: skip
        return replace(self, name=f"{self.name}-among", **both, bystanders=others.listings["listing_id"])


@dataclass(frozen=True)
class Pool:
    """Pairs of a catalogue, whether each is a duplicate (`label`), features, and a number for each side's product.

    `sides` int64 [pairs, 2] are row numbers of the listings; `products` int64 [listings] are equal where two listings
    are known to be one product, in this pool or another, so that folds can keep them together. `taught` are the pairs
    to learn from; the others are there because they surround those, as they will where the decider is used.
    """

    catalogue: Catalogue
    pairs: pl.DataFrame
    label: Mask
    features: npt.NDArray[np.float32]
    products: Ints
    taught: Mask

    @property
    def name(self) -> str:
        return self.catalogue.name

    @cached_property
    def sides(self) -> Ints:
        return _places(self.pairs, self.catalogue.listings["listing_id"])

    @cached_property
    def surrounding(self) -> tuple[Ints, npt.NDArray[np.float64], int]:
        """Pairs around these that have no label: their sides [k, 2], first scores [k], and of how many listings. Those
        that are none of the catalogue's are numbered after them."""
        around, own = self.catalogue.around, self.catalogue.listings["listing_id"]
        if around is None:
            return np.empty((0, 2), np.int64), np.empty(0), len(own)
        ends = pl.concat([around["left_id"], around["right_id"].alias("left_id")]).unique().sort()
        ids = pl.concat([own.alias("id"), ends.filter(~ends.is_in(own.implode())).alias("id")])
        return _places(around, ids), around["first_score"].to_numpy(), len(ids)

    def among(self, kept: Mask) -> "Pool":
        """The same with some of the pairs only."""
        return replace(
            self,
            pairs=self.pairs.filter(pl.Series(kept)),
            label=self.label[kept],
            features=self.features[kept],
            taught=self.taught[kept],
        )

    @property
    def recall(self) -> float:
        """Share of all duplicate pairs of the catalogue that are candidates; all of them where pairs are the truth."""
        if not self.catalogue.has_groups:
            return 1.0
        sizes = self.catalogue.truth.group_by("group").len()["len"].to_numpy().astype(np.int64)
        return float(self.label.sum() / max(int((sizes * (sizes - 1) // 2).sum()), 1))


def pool_of(catalogue: Catalogue, rules: Blocking, vocabulary: Vocabulary) -> Pool:
    """All candidates of a catalogue. Where some pairs have a label those are taught, of the others all but those of two
    bystanders."""
    ids = catalogue.listings["listing_id"]
    if catalogue.has_groups:
        pairs = candidates(catalogue, rules, vocabulary)
        label = labelled(pairs, catalogue.truth)
        rows = catalogue.listings.select("listing_id").join(catalogue.truth, on="listing_id", maintain_order="left")
        products = np.array([zlib.crc32(group.encode()) for group in rows["group"].cast(pl.String)], dtype=np.int64)
        apart = ids.clear() if catalogue.bystanders is None else catalogue.bystanders
        taught = ~pairs.select(pl.all_horizontal(pl.col("left_id", "right_id").is_in(apart.implode()))).to_series()
    else:
        known = catalogue.pairs.select("left_id", "right_id", "label").unique(
            ["left_id", "right_id"], maintain_order=True
        )
        others = candidates(catalogue, rules, vocabulary) if catalogue.around is None else known
        pairs = blocking.beside(known, others)
        taught, label = pairs["label"].is_not_null(), pairs["label"].fill_null(False).to_numpy()
        products = _joined(ids, known.filter("label"))
    values = pair_features(pairs, catalogue.listings, catalogue.text, catalogue.image, vocabulary)
    return Pool(catalogue, pairs.select("left_id", "right_id"), label, values, products, taught.to_numpy())


def candidates(catalogue: Catalogue, rules: Blocking, vocabulary: Vocabulary) -> pl.DataFrame:
    """Pairs that the hourly run would decide if the whole catalogue came new."""
    ids = catalogue.listings["listing_id"]
    near = {"text": blocking.join_frame(ids, catalogue.text, rules.text_neighbours, rules.min_text_similarity)}
    if catalogue.image.height:
        k, floor = rules.image_neighbours, rules.min_image_similarity
        near["image"] = blocking.join_frame(ids, catalogue.image, k, floor)
    near |= lexical.neighbours(ids, catalogue.listings, vocabulary, rules)
    near |= phashes.neighbours(ids, catalogue.listings, rules)
    keys = blocking.exact_keys(ids, blocking.keyed(catalogue.listings), rules.exact_key_limit)
    found = blocking.candidates(near, keys, rules.candidates_per_listing)
    log.info("candidates", catalogue=catalogue.name, listings=catalogue.listings.height, **found.counts)
    return found.pairs


def _places(pairs: pl.DataFrame, ids: pl.Series) -> Ints:
    """Place of both sides of each pair among `ids`, int64 [pairs, 2]."""
    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    found = [
        pairs.select(id=side).join(rows, on="id", how="left", maintain_order="left")["row"].to_numpy()
        for side in ("left_id", "right_id")
    ]
    return np.stack(found, axis=1).astype(np.int64)


def labelled(pairs: pl.DataFrame, truth: pl.DataFrame) -> Mask:
    """Whether both sides of each pair are in one true group."""
    sides = [
        pairs.join(truth, left_on=side, right_on="listing_id", how="left", maintain_order="left")["group"]
        for side in ("left_id", "right_id")
    ]
    return (sides[0] == sides[1]).fill_null(False).to_numpy()


def _joined(ids: pl.Series, same: pl.DataFrame) -> Ints:
    """A number for each id, equal for those that `same` (left_id, right_id) connects."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    left, right = (
        same.select(id=side).join(rows, on="id", how="left", maintain_order="left")["row"].to_numpy()
        for side in ("left_id", "right_id")
    )
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(ids), len(ids)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def read(path: Path, text_model: Path, image_model: Path, cache: Path) -> Catalogue:
    """A labelled dataset with its vectors, which are kept under `cache` by model version and content."""
    dataset = datasets.load(path)
    listings = dataset.listings.with_columns(title=clean_titles(pl.col("title")))
    listings, image = _pictures(listings, dataset, image_model, cache)
    titled = listings.filter(pl.col("title").str.len_chars() > 0)
    text = frame(titled["listing_id"], text_vectors(titled["title"], text_model, cache))
    log.info("read", dataset=dataset.name, listings=listings.height, pictures=image.height)
    return Catalogue(dataset.name, listings, dataset.truth, dataset.pairs, text, image)


def text_vectors(titles: pl.Series, model: Path, cache: Path) -> npt.NDArray[np.float32]:
    """float32 [titles, 128]."""
    from sosie.embedding.text import TextEncoder

    encoder = TextEncoder.load(model)
    file = cache / f"text-{encoder.version}-{_digest(titles)}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, encoder.encode(titles.to_list(), 32))
    return np.asarray(np.load(file), dtype=np.float32)


def _pictures(listings: pl.DataFrame, dataset: Dataset, model: Path, cache: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Listings with `image_hash` and `image_phash` as the pipeline has them, and the vectors of good pictures."""
    if not listings["image_uri"].count():
        return listings.with_columns(image_hash=pl.lit(None, pl.String)), frame(listings["listing_id"][:0], _NONE)
    from sosie.pictures import Thumbnails, inspect

    thumbnails = Thumbnails(str(cache / "pictures"))
    seen = inspect(listings["image_uri"].to_list(), root=str(dataset.root), thumbnails=thumbnails, rules=Validation())
    listings = listings.with_columns(
        image_hash=pl.Series([picture.image_hash for picture in seen], dtype=pl.String),
        image_phash=pl.coalesce(pl.Series([picture.image_phash for picture in seen], dtype=pl.String), "image_phash"),
    )
    hashes = listings["image_hash"].drop_nulls().unique().sort()
    by_hash = image_vectors(hashes, thumbnails, model, cache)
    vectors = listings.select("listing_id", "image_hash").join(by_hash, on="image_hash", maintain_order="left")
    return listings, vectors.select("listing_id", "vector")


def image_vectors(hashes: pl.Series, thumbnails: "Thumbnails", model: Path, cache: Path) -> pl.DataFrame:
    """image_hash, vector of pictures that `thumbnails` hold."""
    from sosie.embedding.image import ImageEncoder

    encoder = ImageEncoder.load(model)
    file = cache / f"image-{encoder.version}-{_digest(hashes)}.npy"
    if not file.exists():
        parts = [
            encoder.encode([thumbnails.get(hash_) for hash_ in hashes[start : start + 1_024]], 32)
            for start in range(0, len(hashes), 1_024)
        ]
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, np.concatenate([*parts, np.empty((0, DIM), np.float32)]))
    return frame(hashes, np.load(file)).rename({"listing_id": "image_hash"})


def _digest(texts: pl.Series) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
