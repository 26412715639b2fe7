"""The perceptron decider: symmetric, at home without a modality, the same in numpy as in torch, a drop-in decider."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import artifacts
from sosie.decider import Calibration, Vocabulary, mlp
from sosie.decider.mlp import Perceptron, Sides
from sosie.decider.model import DECIDED
from sosie.errors import ModelError
from sosie.tables import DIM
from sosie.training import profile
from sosie.training.decider.mlp import Twin, fit, sides_of
from sosie.training.decider.pools import Catalogue, Pool
from sosie.vectors import frame

UNHURRIED = settings(deadline=None, max_examples=20)


def vectors(rows: int, seed: int, missing: float = 0.3) -> np.ndarray:
    """Unit vectors, some of them missing (NaN)."""
    random = np.random.default_rng(seed)
    found = random.standard_normal((rows, DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[random.random(rows) < missing] = np.nan
    return found


def twin(seed: int = 3) -> Twin:
    torch.manual_seed(seed)
    return Twin().eval()


@UNHURRIED
@given(st.integers(0, 999), st.integers(0, 5_000))
def test_left_and_right_can_be_exchanged(seed: int, pairs: int) -> None:
    sides = Sides.of(vectors(30, seed), vectors(30, seed + 1))
    left, right = np.random.default_rng(seed).integers(30, size=(2, pairs))
    model = twin().exported()
    np.testing.assert_array_equal(model.log_odds(sides, left, right, 1), model.log_odds(sides, right, left, 2))


def test_numpy_gives_what_torch_was_trained_to_give() -> None:
    sides, model = Sides.of(vectors(40, 1), vectors(40, 2)), twin()
    left, right = np.random.default_rng(1).integers(40, size=(2, 3_000))
    listings = tuple(torch.from_numpy(getattr(sides, name)) for name in ("text", "image", "has"))
    with torch.no_grad():
        want = model(listings, torch.from_numpy(left), torch.from_numpy(right)).numpy()
    np.testing.assert_allclose(model.exported().log_odds(sides, left, right), want, rtol=1e-4, atol=1e-5)


def test_a_modality_that_nobody_has() -> None:
    sides = Sides.of(vectors(5, 1, missing=0), np.full((5, 1), np.nan, np.float32))
    assert sides.image.shape == (5, DIM)
    assert sides.has.tolist() == [[1, 0]] * 5
    odds = twin().exported().log_odds(sides, np.array([0, 1]), np.array([2, 3]))
    assert np.isfinite(odds).all()


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    model = twin().exported()
    model.save(tmp_path / "weights.npz")
    again = Perceptron.load(tmp_path / "weights.npz")
    for mine, other in zip(model.matrices + model.biases, again.matrices + again.biases, strict=True):
        np.testing.assert_array_equal(mine, other)


def market(groups: int, each: int, seed: int) -> Pool:
    """Listings whose two vectors lie close to those of their group, and every pair of them."""
    random = np.random.default_rng(seed)
    ids = pl.Series([f"{group:03}-{copy}" for group in range(groups) for copy in range(each)])
    group = np.repeat(np.arange(groups), each)
    near = [
        (own := random.standard_normal((groups, DIM))[group] + random.standard_normal((len(ids), DIM)))
        / np.linalg.norm(own, axis=1, keepdims=True)
        for _ in range(2)
    ]
    text, image = (frame(ids, each.astype(np.float32)) for each in near)
    sides = np.stack(np.triu_indices(len(ids), 1), axis=1)
    catalogue = Catalogue(
        "market", pl.DataFrame({"listing_id": ids, "title": ids}), pl.DataFrame(), pl.DataFrame(), text, image
    )
    pairs = pl.DataFrame({"left_id": ids.gather(sides[:, 0]), "right_id": ids.gather(sides[:, 1])})
    label = group[sides[:, 0]] == group[sides[:, 1]]
    return Pool(catalogue, pairs, label, np.empty((len(label), 0), np.float32), group, np.ones(len(label), bool))


def test_it_learns_who_is_who_among_listings_it_never_saw() -> None:
    learnt, other = market(40, 3, seed=1), market(20, 3, seed=2)
    small = profile.load("small")
    small = small.model_copy(update={"decider": small.decider.model_copy(update={"mlp_epochs": 40})})
    model = fit([learnt], [np.ones(len(learnt.label))], [np.ones(len(learnt.label), dtype=bool)], small)
    odds = model.log_odds(sides_of(other), *other.sides.T)
    assert np.median(odds[other.label]) > np.quantile(odds[~other.label], 0.95)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    twin().exported().save(tmp_path / mlp.WEIGHTS)
    Vocabulary.fit(pl.Series(["red shirt", "blue shirt"])).save(tmp_path / mlp.VOCABULARY)
    Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0])).save(tmp_path / mlp.CALIBRATION)
    artifacts.save(tmp_path, mlp.KIND, mlp.FILES, {"match_at": 0.6, "review_at": 0.4}, {})
    return tmp_path


def test_it_stands_in_for_the_boosted_decider(folder: Path) -> None:
    decider, pool = mlp.load(folder), market(3, 2, seed=4)
    known = pool.catalogue
    found = decider.decide(pool.pairs, known.listings, known.text, known.image.head(2), match_at=0.5, review_at=0.5)
    assert found.schema == DECIDED
    assert found.select("left_id", "right_id").equals(pool.pairs)
    assert set(found["verdict"]) <= {"match", "no_match"}
    assert found["score"].is_between(0, 1).all()
    assert decider.first(pool.pairs, known.listings, known.text, None).score.shape == (pool.pairs.height,)
    assert decider.decide(pool.pairs.clear(), known.listings, known.text, None).is_empty()


def test_a_card_of_another_kind_is_refused(folder: Path) -> None:
    artifacts.save(folder, "decider", mlp.FILES, {}, {})
    with pytest.raises(ModelError, match="kind 'decider'"):
        mlp.load(folder)
