"""The decider that ships with the repository: verdicts, reasons, thresholds, and one score for a pair."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sosie import artifacts
from sosie.decider import Calibration, Decider
from sosie.decider.model import (
    DECIDED,
    FILES,
    HOPELESS,
    INPUTS,
    KIND,
    LEAST_PRIOR,
    MOST_PRIOR,
    SECOND_TREES,
    TREES,
    prior_of,
)
from sosie.decider.neighbourhood import FLOOR
from sosie.errors import ModelError, SettingsError, UnknownListing

MODEL = Path(__file__).parents[1] / "models" / "decider"

LISTINGS = pl.DataFrame(
    {
        "listing_id": ["a", "b", "c", "d"],
        "title": [
            "Minyak Goreng Bimoli Klasik 1L Pouch",
            "bimoli klasik minyak goreng pouch 1000 ml",
            "Sepatu Sneakers Pria Hitam Size 42",
            None,
        ],
        "image_phash": ["94974f937d4c2433", "94974f937d4c2433", "af3f9460c2838f0f", None],
    }
)


def vectors(**rows: list[float]) -> pl.DataFrame:
    made = [(name, (np.array(row) / np.linalg.norm(row)).tolist()) for name, row in rows.items()]
    return pl.DataFrame(made, schema={"listing_id": pl.String, "vector": pl.List(pl.Float32)}, orient="row")


TEXT = vectors(a=[1, 0.1, 0], b=[1, 0, 0], c=[0, 1, 0.4])
PAIRS = pl.DataFrame(
    {
        "left_id": ["a", "a", "b", "a"],
        "right_id": ["b", "c", "c", "d"],
        "blocked_by": [["phash", "text"], ["text"], ["text"], None],
    },
    schema_overrides={"blocked_by": pl.List(pl.String)},
)


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider.load(MODEL, threads=1)


def test_duplicates_match_and_others_do_not(decider: Decider) -> None:
    decided = decider.decide(PAIRS, LISTINGS, TEXT, None)
    assert decided.schema == DECIDED
    assert decided["verdict"].to_list() == ["match", "no_match", "no_match", "no_match"]
    assert decided.select("left_id", "right_id", "blocked_by").equals(PAIRS)
    assert decided["score"].is_between(0, 1).all()
    assert set(decided["decider_version"]) == {decider.version}


def test_reasons_are_told_for_what_a_person_may_see(decider: Decider) -> None:
    decided = decider.decide(PAIRS, LISTINGS, TEXT, None, reasons=4)
    told = decided["reasons"][0]
    assert decided["reasons"].is_null().to_list() == [False, True, True, True]
    strength = [abs(reason["contribution"]) for reason in told]
    assert len(told) == 4
    assert strength == sorted(strength, reverse=True)
    assert {reason["feature"] for reason in told} <= set(INPUTS)
    assert not any(value is not None and np.isnan(value) for value in (reason["value"] for reason in told))
    silent = decider.decide(PAIRS, LISTINGS, TEXT, None, reasons=0)
    assert silent["reasons"].null_count() == PAIRS.height
    assert silent["score"].equals(decided["score"])


def test_contributions_of_both_steps_add_up(decider: Decider) -> None:
    decided = decider.decide(PAIRS[:1], LISTINGS, TEXT, None, reasons=len(INPUTS))
    told = sum(reason["contribution"] for reason in decided["reasons"][0])
    first = decider.first(PAIRS[:1], LISTINGS, TEXT, None)
    values = np.hstack([first.features, decider._surroundings(PAIRS[:1], first, None)])
    raw = first.log_odds[0] + decider.second_trees.log_odds(values)[0]
    before = decider.first_trees.start + decider.second_trees.start
    assert told + before == pytest.approx(raw, abs=1e-6)


def test_a_pair_has_one_score_among_the_same_pairs(decider: Decider) -> None:
    whole = decider.decide(PAIRS, LISTINGS, TEXT, None)
    turned = decider.decide(PAIRS[::-1], LISTINGS[::-1], TEXT[::-1], None)[::-1]
    sides = ["left_id", "right_id", "first_score"]
    alone = pl.concat(
        [decider.decide(PAIRS[row], LISTINGS, TEXT, None, around=whole.select(sides)) for row in range(PAIRS.height)]
    )
    assert whole["score"].to_list() == turned["score"].to_list() == alone["score"].to_list()


def test_thresholds_given_beat_those_fitted(decider: Decider) -> None:
    match_at, review_at = decider.thresholds()
    assert 0 < review_at < match_at < 1
    assert decider.thresholds(0.99) == (0.99, review_at)
    assert decider.thresholds(review_at / 2) == (review_at / 2, review_at / 2)
    assert decider.thresholds(None, 1.0) == (1.0, 1.0)
    assert decider.thresholds(0.8, 0.2) == (0.8, 0.2)
    with pytest.raises(SettingsError, match="review_at"):
        decider.thresholds(0.2, 0.8)
    everything = decider.decide(PAIRS, LISTINGS, TEXT, None, match_at=1.0, review_at=0.0)
    near = everything["first_score"] >= FLOOR
    assert set(everything.filter(near)["verdict"]) <= {"review", "match"}
    assert (everything["verdict"] == "no_match").to_list() == (~near).to_list()
    assert everything["reasons"].is_null().to_list() == (~near).to_list()


def test_no_pairs_no_decisions(decider: Decider) -> None:
    decided = decider.decide(PAIRS[:0], LISTINGS, None, None)
    assert decided.is_empty()
    assert decided.schema == DECIDED


def test_pairs_without_blocking_and_listings_without_anything_are_decided(decider: Decider) -> None:
    bare = LISTINGS.select("listing_id", pl.lit(None, pl.String).alias("title"))
    decided = decider.decide(PAIRS.drop("blocked_by"), bare, None, None)
    assert decided["blocked_by"].null_count() == PAIRS.height
    assert decided["score"].is_finite().all()


def test_an_unknown_listing_is_named(decider: Decider) -> None:
    with pytest.raises(UnknownListing, match="nobody"):
        decider.decide(pl.DataFrame({"left_id": ["a"], "right_id": ["nobody"]}), LISTINGS, None, None)


def test_calibration_is_monotone_and_stays_in_bounds(decider: Decider, tmp_path: Path) -> None:
    raw = np.linspace(0, 1, 1001)
    probability = decider.calibration.apply(raw)
    assert (np.diff(probability) >= 0).all()
    assert 0 <= probability.min() <= probability.max() <= 1
    decider.calibration.save(tmp_path / "knots.npz")
    np.testing.assert_array_equal(Calibration.load(tmp_path / "knots.npz").apply(raw), probability)


def test_a_model_of_other_features_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "decider"
    shutil.copytree(MODEL, folder)
    card = json.loads((folder / "model.json").read_text())
    card["usage"]["features"] = card["usage"]["features"][1:]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="other pair features"):
        Decider.load(folder)


def test_a_decider_of_before_trees_were_kept_in_gzip_still_decides(decider: Decider, tmp_path: Path) -> None:
    folder = tmp_path / "decider"
    shutil.copytree(MODEL, folder)
    for name in (TREES, SECOND_TREES):
        packed = folder / name
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    files = [each for each in FILES if each not in (TREES, SECOND_TREES)]
    plain = [name.removesuffix(".gz") for name in (TREES, SECOND_TREES)]
    artifacts.save(folder, KIND, [*files, *plain], decider.artifact.usage, {})
    older = Decider.load(folder)
    assert (older.first_trees.text, older.second_trees.text) == (decider.first_trees.text, decider.second_trees.text)


def test_a_pair_that_few_trees_dismiss_gets_no_second_look(decider: Decider) -> None:
    """Else the second step would add to log-odds that most of the first trees never spoke to."""
    most = 1 / (1 + np.exp(-(HOPELESS + MOST_PRIOR)))
    assert decider.first_calibration.apply(np.array([most]))[0] < FLOOR


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_odds_halve_where_a_catalogue_doubles(one: int, other: int) -> None:
    small, large = sorted((one, other))
    less, more = prior_of(large, 10_000), prior_of(small, 10_000)
    assert LEAST_PRIOR <= less <= more <= MOST_PRIOR
    if less > LEAST_PRIOR and more < MOST_PRIOR:
        assert (more - less) / (np.log(2) / 2) == pytest.approx(round((more - less) / (np.log(2) / 2))), "by steps"
        assert abs((more - less) - np.log(large / small)) <= np.log(2) / 2 + 1e-9


def test_the_shipped_model_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 6 * 2**20
