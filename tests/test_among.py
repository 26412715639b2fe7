"""Pairs that the decider learns from in the midst of others: those stand around, and teach nothing themselves."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sosie.decider.model import prior_of
from sosie.decider.text_features import Vocabulary
from sosie.settings import Blocking
from sosie.tables import DIM
from sosie.training.decider import measure
from sosie.training.decider.boosting import Folds, Shape, weight_of
from sosie.training.decider.pools import Catalogue, Pool, pool_of
from sosie.vectors import frame

KNOBS = Shape(rounds=1, seed=3, threads=1)


def catalogue(name: str, products: int, seed: int) -> Catalogue:
    """Two offers a product, alike in title and vector."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((products, DIM)).repeat(2, axis=0)
    vectors = (centres + 0.3 * random.standard_normal(centres.shape)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = pl.Series("listing_id", [f"{name}{row}" for row in range(2 * products)])
    listings = pl.DataFrame(
        {
            "listing_id": ids,
            "title": [f"{name} kettle {row // 2} {'steel' if row % 2 else 'red'}" for row in range(2 * products)],
            "gtin": pl.Series([None] * len(ids), dtype=pl.String),
            "image_hash": pl.Series([None] * len(ids), dtype=pl.String),
            "image_phash": pl.Series([None] * len(ids), dtype=pl.String),
        }
    )
    truth = pl.DataFrame({"listing_id": ids, "group": [f"{name}-{row // 2}" for row in range(2 * products)]})
    none = frame(ids[:0], np.empty((0, DIM), np.float32))
    return Catalogue(name, listings, truth, pl.DataFrame(), frame(ids, vectors), none)


@pytest.fixture(scope="module")
def pools() -> tuple[Pool, Pool]:
    """One catalogue by itself, and among a larger one."""
    own, others = catalogue("own", 20, 1), catalogue("other", 60, 2)
    vocabulary = Vocabulary.fit(pl.concat([own.listings["title"], others.listings["title"]]))
    return pool_of(own, Blocking(), vocabulary), pool_of(own.among(others), Blocking(), vocabulary)


def test_pairs_of_bystanders_are_there_and_weigh_nothing(pools: tuple[Pool, Pool]) -> None:
    _, among = pools
    apart = pl.all_horizontal(pl.col("left_id", "right_id").str.starts_with("other"))
    between = among.pairs.select(apart).to_series().to_numpy()
    assert (between & among.label).any()
    weight = weight_of(among, KNOBS)
    np.testing.assert_array_equal(weight > 0, ~between)


def test_a_product_has_one_fold_in_every_pool(pools: tuple[Pool, Pool]) -> None:
    """Else a product that one pool holds out is learnt from in another."""
    own, others = catalogue("own", 20, 1), catalogue("other", 60, 2)
    vocabulary = Vocabulary.fit(pl.concat([own.listings["title"], others.listings["title"]]))
    every = [*pools, pool_of(others.among(own), Blocking(), vocabulary)]
    folds = Folds.over(every, 3, seed=7)
    held = [
        pool.pairs.with_columns(left=pl.Series(sides[:, 0]), right=pl.Series(sides[:, 1]))
        for pool, sides in zip(every, folds.of, strict=True)
    ]
    assert set(held[1]["left"]) == {0, 1, 2}
    for one, other in ((0, 1), (1, 2)):
        both = held[one].join(held[other], on=["left_id", "right_id"])
        assert both.height >= every[one].label.sum()
        assert both["left"].equals(both["left_right"], check_names=False)
        assert both["right"].equals(both["right_right"], check_names=False)


def test_a_catalogue_without_pictures_has_nothing_that_is_read_from_one() -> None:
    own = catalogue("own", 3, 1)
    hashed = own.listings.with_columns(image_hash=pl.lit("ab"), image_phash=pl.lit("0f" * 8))
    seen = replace(own, listings=hashed, image=own.text).without_pictures()
    assert not seen.has_pictures
    assert seen.listings["image_hash"].null_count() == seen.listings.height
    given = replace(own, listings=hashed)  # a feed that has hashes and no pictures
    assert given.without_pictures().listings["image_phash"].null_count() == 0


def test_what_is_said_of_bystanders_moves_no_figure_but_their_merging_with_others_does(
    pools: tuple[Pool, Pool],
) -> None:
    _, among = pools
    score = among.label.astype(np.float64)
    told = measure.clustered(among.catalogue, among.pairs, score, 0.5, 0.5)
    assert told["row_f1"] == 1
    assert measure.clustered(among.catalogue, among.pairs, score * among.taught, 0.5, 0.5) == told
    mixed = among.pairs["left_id"].str.slice(0, 3) != among.pairs["right_id"].str.slice(0, 3)
    assert mixed.any()
    merged = np.where(mixed.to_numpy(), 1.0, score)
    assert measure.clustered(among.catalogue, among.pairs, merged, 0.5, 0.5)["row_f1"] < 1


def test_labelled_pairs_stand_among_all_candidates_of_their_listings() -> None:
    """As they do where the decider is used; a pair that the literature lists twice counts once."""
    own = catalogue("own", 20, 1)
    vocabulary = Vocabulary.fit(own.listings["title"])
    every = pool_of(own, Blocking(), vocabulary)
    known = every.pairs.with_columns(label=pl.Series(every.label), part=pl.lit("train"))
    known = pl.concat([known.filter("label").head(15), known.filter(~pl.col("label")).tail(15)])
    told = replace(own, truth=own.truth.clear(), pairs=pl.concat([known, known.head(3)]))
    pool = pool_of(told, Blocking(), vocabulary)
    sides = ["left_id", "right_id"]
    assert pool.pairs.filter(pl.Series(pool.taught)).equals(known.select(sides))
    assert pool.pairs.sort(sides).equals(every.pairs.sort(sides))
    assert pool.label.sum() == 15
    np.testing.assert_array_equal(weight_of(pool, KNOBS) > 0, pool.taught)


def test_a_pool_is_as_large_as_the_catalogue_that_it_is_or_was_taken_from() -> None:
    """The second step learns from first scores as an hour in that catalogue would give them."""
    own = catalogue("own", 20, 1)
    labelled = replace(own, truth=own.truth.clear())
    assert own.prior(20) == prior_of(40, 20) < 0
    assert labelled.prior(20) == 0, "pairs that were chosen tell nothing of a catalogue"
    assert replace(labelled, taken_from=80).prior(20) == prior_of(80, 20) < prior_of(40, 20)


def test_a_new_word_weighs_as_one_that_was_met_once() -> None:
    vocabulary = Vocabulary.fit(pl.Series(["red kettle", "red lamp"]))
    assert len(np.unique(vocabulary.word_idf)) == 2  # of "red", and of all others
