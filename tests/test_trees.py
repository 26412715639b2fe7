"""Trees as they are served, against LightGBM's own log-odds and its TreeSHAP."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.decider.trees import Trees
from sosie.errors import ModelError

FEATURES = 5


CLOSE = 1e-5
"""ONNX Runtime gives single precision."""


def boosted(values: np.ndarray, answer: np.ndarray, rounds: int, leaves: int) -> lightgbm.Booster:
    parameters = {"objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(values, answer), rounds)


def grown(values: np.ndarray, answer: np.ndarray, rounds: int, leaves: int) -> Trees:
    return Trees(boosted(values, answer, rounds, leaves).model_to_string(), threads=1)


def pairs(seed: int, count: int) -> np.ndarray:
    """Some values missing, as features of pairs are."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, FEATURES), dtype=np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    return values


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(2, 9), st.booleans(), st.booleans())
def test_log_odds_are_lightgbms_own(seed: int, rounds: int, leaves: int, gaps: bool, coarse: bool) -> None:
    """Also of values that a tree asks for exactly, and of missing ones where none was missing when it grew."""
    values = pairs(seed, 300)
    if coarse:
        values = np.round(values)
    model = boosted(values if gaps else np.nan_to_num(values), np.nan_to_num(values[:, 0]) > 0, rounds, leaves)
    asked = np.concatenate([values, pairs(seed + 1, 100)])
    expected = model.predict(asked, raw_score=True, num_threads=1)
    assert Trees(model.model_to_string(), threads=2).log_odds(asked) == pytest.approx(expected, abs=CLOSE)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(2, 9), st.booleans())
def test_contributions_and_the_start_are_the_log_odds(seed: int, rounds: int, leaves: int, learnable: bool) -> None:
    values = pairs(seed, 200)
    answer = np.nan_to_num(values[:, 0]) > 0 if learnable else np.arange(len(values)) % 2 == 0
    trees = grown(values, answer.astype(np.float32), rounds, leaves)
    asked = pairs(seed + 1, 50)
    summed = trees.contributions(asked).sum(axis=1) + trees.start
    assert summed == pytest.approx(trees.log_odds(asked), abs=CLOSE)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(-3, 3))
def test_every_tree_is_asked_of_a_pair_with_hope(seed: int, rounds: int, hopeless: float) -> None:
    values = pairs(seed, 200)
    trees = grown(values, (np.nan_to_num(values[:, 0]) > 0).astype(np.float32), rounds, leaves=4)
    whole, found = trees.log_odds(values), trees.log_odds(values, hopeless)
    same = np.isclose(whole, found, rtol=0, atol=CLOSE)
    assert (found[~same] <= hopeless).all()
    alone = np.concatenate([trees.log_odds(values[row : row + 1], hopeless) for row in range(30)])
    assert (found[:30] == alone).all()
    assert len(trees.log_odds(values[:0], hopeless)) == 0


@pytest.mark.parametrize("kind", ["zero_as_missing", "linear_tree", "categorical_feature"])
def test_trees_of_another_kind_are_refused(kind: str) -> None:
    values = np.round(np.abs(np.nan_to_num(pairs(4, 300))))
    answer = (values[:, 0] == 1).astype(np.float32)
    common = {"objective": "binary", "min_data_in_leaf": 5, "min_data_per_group": 5, "verbosity": -1, "num_threads": 1}
    if kind == "categorical_feature":
        model = lightgbm.train(common, lightgbm.Dataset(values, answer, categorical_feature=[0]), 3)
    else:
        model = lightgbm.train(common | {kind: True}, lightgbm.Dataset(values, answer), 3)
    with pytest.raises(ModelError, match="not served"):
        Trees(model.model_to_string()).log_odds(values)


def test_trees_that_ask_nothing_add_nothing() -> None:
    values = np.zeros((40, FEATURES), np.float32)
    trees = grown(values, (np.arange(40) % 2).astype(np.float32), rounds=3, leaves=4)
    assert not trees.contributions(values[:2]).any()
    assert trees.log_odds(values[:2]) == pytest.approx(trees.start)


def test_a_pair_has_the_same_contributions_in_any_company() -> None:
    values = pairs(1, 300)
    trees = grown(values, (np.nan_to_num(values[:, 1]) > 0.3).astype(np.float32), rounds=20, leaves=8)
    alone = np.concatenate([trees.contributions(values[row : row + 1]) for row in range(40)])
    assert (trees.contributions(values)[:40] == alone).all()


def test_the_feature_that_decides_is_the_one_that_treeshap_names() -> None:
    values = pairs(2, 2_000)
    model = boosted(values, (np.nan_to_num(values[:, 3]) > 0).astype(np.float32), rounds=30, leaves=8)
    asked = pairs(3, 200)
    ours = np.abs(Trees(model.model_to_string()).contributions(asked))
    shap = np.abs(model.predict(asked, pred_contrib=True)[:, :-1])
    assert (ours.argmax(axis=1) == shap.argmax(axis=1)).mean() > 0.9
    assert (ours.argmax(axis=1) == 3).mean() > 0.9


def test_what_is_left_out_of_a_file_changes_no_answer_and_no_contribution(tmp_path: Path) -> None:
    """Not ours, and not LightGBM's, which can still load it."""
    values, asked = pairs(3, 300), pairs(4, 100)
    trees = grown(values, np.nan_to_num(values[:, 0] * values[:, 1]) > 0, 20, 8)
    trees.save(tmp_path / "trees.txt.gz")
    read = Trees.load(tmp_path / "trees.txt.gz")
    assert len(read.text) < 0.8 * len(trees.text)
    np.testing.assert_array_equal(read.log_odds(asked), trees.log_odds(asked))
    np.testing.assert_array_equal(read.contributions(asked), trees.contributions(asked))
    before, after = (lightgbm.Booster(model_str=each.text) for each in (trees, read))
    for option in ("raw_score", "pred_contrib"):
        np.testing.assert_array_equal(after.predict(asked, **{option: True}), before.predict(asked, **{option: True}))


def test_a_file_of_before_is_read_as_it_is(tmp_path: Path) -> None:
    values = pairs(5, 200)
    trees = grown(values, np.nan_to_num(values[:, 0]) > 0, 4, 4)
    (tmp_path / "trees.txt").write_text(trees.text)
    assert Trees.load(tmp_path / "trees.txt").text == trees.text
