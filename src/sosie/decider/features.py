"""The pair features, as data: a name, what it tells a person, how it is worked out, and which way it must push.

Every feature looks at the two listings and at constants frozen with the model, at nothing else: no ranks, no gaps to
other neighbours, no statistics of the catalogue. That is why an hourly run and a full rebuild give a pair one score.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler, Prefix

from sosie.decider.batch import Batch, Prepared
from sosie.decider.text_features import Floats, Vocabulary
from sosie.decider.titles import DIMENSIONS
from sosie.embedding.text import side_by_side

_AT_ONCE = 25_000
"""Pairs that are compared together: bounds memory at about 100 MB a core."""

_SAME = 0.02
"""Quantities within two per cent are the same (1 lb and 454 g)."""


@dataclass(frozen=True)
class Feature:
    """`push` is 1 where a larger value may only speak for a match, -1 only against one, 0 either."""

    name: str
    reason: str
    compute: Callable[[Batch], Floats]
    push: int = 0


def _quantity(*dimensions: str) -> Callable[[Batch], Floats]:
    columns = [DIMENSIONS.index(dimension) for dimension in dimensions]

    def largest(batch: Batch) -> Floats:
        values = batch.quantities[:, columns]
        known = ~np.isnan(values).all(axis=1)
        return np.where(known, np.nan_to_num(values).max(axis=1), np.nan).astype(np.float32)

    return largest


def _conflicts(batch: Batch) -> Floats:
    return np.asarray((batch.quantities > _SAME).sum(axis=1), dtype=np.float32)


def _agreements(batch: Batch) -> Floats:
    return np.asarray((batch.quantities <= _SAME).sum(axis=1), dtype=np.float32)


def _one_sided(batch: Batch) -> Floats:
    return batch.listings.quantities.one_sided(batch.left, batch.right)


def _least_said(batch: Batch) -> Floats:
    return batch.over(batch.listings.words.total, smaller=True)


def _most_said(batch: Batch) -> Floats:
    return batch.over(batch.listings.words.total, smaller=False)


def _pack_ratio(batch: Batch) -> Floats:
    """|log ratio| of the largest counts; a title that names none sells one piece."""
    most = np.nan_to_num(batch.listings.quantities.most[:, DIMENSIONS.index("count")], nan=1.0)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(most, 1.0))
    return np.asarray(np.minimum(np.abs(logs[batch.left] - logs[batch.right]), 20.0), dtype=np.float32)


def _spelling_sorted(batch: Batch) -> Floats:
    return batch.fuzzy(fuzz.ratio, 100, words_sorted=True)


def _length(batch: Batch) -> Floats:
    return np.array([len(text) for text in batch.listings.texts], dtype=np.float32)


FEATURES: tuple[Feature, ...] = (
    Feature("text_cosine", "the titles mean the same", lambda b: b.cosine("text"), 1),
    Feature("text_missing", "listings without a text vector", lambda b: b.missing("text")),
    Feature("image_cosine", "the pictures look alike", lambda b: b.cosine("image"), 1),
    Feature("image_missing", "listings without a picture", lambda b: b.missing("image")),
    Feature("phash_distance", "bits in which the pictures' perceptual hashes differ", Batch.phash_distance, -1),
    Feature("same_picture", "the pictures are the same file", lambda b: b.equal("image_hash"), 1),
    Feature("word_tfidf", "the titles share their rare words", lambda b: b.listings.words.cosine(b.left, b.right), 1),
    Feature(
        "ngram_tfidf", "the titles are spelt alike", lambda b: b.listings.ngrams.cosine(b.left, b.right), 1
    ),
    Feature("ngram_overlap", "the shorter title's spelling lies in the longer", Batch.ngram_overlap),
    Feature("ngram_coverage", "the longer title's spelling lies in the shorter", Batch.ngram_coverage),
    Feature("word_weight_less", "how much the title that says less says", _least_said),
    Feature("word_weight_more", "how much the title that says more says", _most_said),
    Feature("word_jaccard", "share of all words that both titles have, by rarity", lambda b: b.words.jaccard),
    Feature("word_overlap", "the longer title has the shorter one's words", lambda b: b.words.overlap),
    Feature("word_coverage", "share of the longer title's words in the shorter one", lambda b: b.words.coverage),
    Feature("words_shared", "how many words both titles have", lambda b: b.words.shared_count),
    Feature("words_alone_less", "words that the shorter title alone has", lambda b: b.words.alone[0]),
    Feature("words_alone_more", "words that the longer title alone has", lambda b: b.words.alone[1]),
    Feature("words_remainder", "rarity of what the shorter title alone says", lambda b: b.words.lesser_remainder),
    Feature("rarest_shared_word", "the rarest word that both titles have", lambda b: b.words.rarest_shared),
    Feature("rarest_word_both", "each title has a rare word of its own", lambda b: b.words.rarest_on_both),
    Feature("rarest_word_one", "one title has a rare word of its own", lambda b: b.words.rarest_on_one),
    Feature("spelling", "the titles read alike from start to end", lambda b: b.fuzzy(fuzz.ratio, 100)),
    Feature("spelling_sorted", "the titles read alike, words sorted", _spelling_sorted),
    Feature("spelling_set", "one title's words lie within the other's", lambda b: b.fuzzy(fuzz.token_set_ratio, 100)),
    Feature("spelling_part", "one title is a part of the other", lambda b: b.fuzzy(fuzz.partial_ratio, 100)),
    Feature("spelling_start", "the titles start alike", lambda b: b.fuzzy(JaroWinkler.similarity)),
    Feature("common_start", "letters in common at the titles' start", lambda b: b.fuzzy(Prefix.similarity)),
    Feature("same_title", "the titles are the same", lambda b: b.equal("text"), 1),
    Feature("same_first_word", "the titles start with the same word", lambda b: b.equal("first")),
    Feature("numbers_agree", "the numbers agree (1) or contradict (-1)", lambda b: b.numbers.agreement),
    Feature("numbers_shared", "numbers that both titles have", lambda b: b.numbers.shared_count),
    Feature("numbers_alone_less", "numbers that each title alone has", lambda b: b.numbers.alone[0]),
    Feature("numbers_alone_more", "numbers that one title alone has", lambda b: b.numbers.alone[1]),
    Feature("rarest_number_both", "each title has a rare number of its own", lambda b: b.numbers.rarest_on_both),
    Feature("codes_agree", "the model codes agree (1) or contradict (-1)", lambda b: b.codes.agreement),
    Feature("codes_shared", "model codes that both titles have", lambda b: b.codes.shared_count, 1),
    Feature("codes_alone_more", "model codes that one title alone has", lambda b: b.codes.alone[1]),
    Feature("editions_alone_less", "edition words that each title alone has", lambda b: b.editions.alone[0]),
    Feature("editions_alone_more", "edition words that one title alone has", lambda b: b.editions.alone[1]),
    Feature("quantity_conflicts", "quantities that differ (volume, weight, length, …)", _conflicts),
    Feature("quantity_agreements", "quantities that agree", _agreements),
    Feature("quantity_one_sided", "quantities that one title alone names", _one_sided),
    Feature("content_difference", "the volumes or weights differ", _quantity("volume", "weight"), -1),
    Feature("length_difference", "the lengths differ", _quantity("length")),
    Feature("technical_difference", "storage, power or charge differ", _quantity("storage", "power", "charge"), -1),
    Feature("pack_ratio", "the numbers of pieces differ", _pack_ratio),
    Feature("colours", "the colours agree (1) or differ (-1)", lambda b: b.masked("colours")),
    Feature("sizes", "the sizes agree (1) or differ (-1)", lambda b: b.masked("sizes")),
    Feature("audience", "for the same people (1) or for others (-1)", lambda b: b.masked("audience")),
    Feature("same_gtin", "the GTINs are the same (1) or differ (0)", lambda b: b.equal("gtin"), 1),
    Feature("same_brand", "the brands are the same (1) or differ (0)", lambda b: b.equal("brand"), 1),
    Feature("same_category", "the categories are the same (1) or differ (0)", lambda b: b.equal("category"), 1),
    Feature("price_ratio", "the prices differ", Batch.price_ratio, -1),
    Feature("title_length_less", "letters of the shorter title", lambda b: b.over(_length(b), smaller=True)),
    Feature("title_length_more", "letters of the longer title", lambda b: b.over(_length(b), smaller=False)),
)  # fmt: skip
"""In the order of the model's columns."""

NAMES = tuple(feature.name for feature in FEATURES)
REASONS = {feature.name: feature.reason for feature in FEATURES}


def pair_features(
    pairs: pl.DataFrame,
    listings: pl.DataFrame,
    text_vectors: pl.DataFrame | None,
    image_vectors: pl.DataFrame | None,
    vocabulary: Vocabulary,
    *,
    threads: int = 0,
) -> Floats:
    """Features `[pairs, len(FEATURES)]` float32 of pairs (left_id, right_id), NaN where a listing lacks what it needs.

    `listings` has listing_id, title and any of the feed's columns and image_hash, for both sides of every pair;
    vectors have listing_id and vector. Symmetric in the two sides. `threads` 0 takes every core. Raises
    `UnknownListing`.
    """
    values = np.empty((pairs.height, len(FEATURES)), dtype=np.float32)
    if pairs.is_empty():
        return values
    needed = pl.concat([pairs["left_id"], pairs["right_id"].alias("left_id")]).unique()
    mine = listings.filter(pl.col("listing_id").is_in(needed.implode()))
    prepared = Prepared(mine, text_vectors, image_vectors, vocabulary)
    left, right = prepared.places(pairs["left_id"]), prepared.places(pairs["right_id"])

    def compare(part: slice) -> None:
        batch = Batch(prepared, left[part], right[part])
        for column, feature in enumerate(FEATURES):
            values[part, column] = feature.compute(batch)

    compare(slice(0, 1))  # what is known of single listings is worked out by one thread
    side_by_side(compare, (slice(at, at + _AT_ONCE) for at in range(0, pairs.height, _AT_ONCE)), threads)
    return values
