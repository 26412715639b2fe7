"""Stage `train_decider`: gradient boosting in two steps, calibrated, with the thresholds that come with the model.

Pairs come from the same blocking that the hourly run uses, over listings that the encoder of their vectors never saw;
some are learnt from once more in the midst of listings that it did see, as in a catalogue several times as large.
Whatever is fitted on scores (the second step, isotonic calibration after Zadrozny and Elkan 2002, thresholds) is fitted
on scores of models that never saw the products in question, on pools that are scored whole.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any, TypeVar

import lightgbm
import numpy as np
import polars as pl
import structlog
from sklearn.isotonic import IsotonicRegression

from sosie import artifacts
from sosie.decider import neighbourhood
from sosie.decider.features import FEATURES, NAMES
from sosie.decider.model import (
    CALIBRATION,
    FILES,
    FIRST_CALIBRATION,
    INPUTS,
    KIND,
    SECOND_TREES,
    TREES,
    VOCABULARY,
    Calibration,
)
from sosie.decider.neighbourhood import FLOOR, surroundings
from sosie.decider.text_features import Vocabulary
from sosie.decider.trees import Trees
from sosie.settings import Blocking, Clusters
from sosie.training.decider import boosting, measure
from sosie.training.decider.boosting import MEANT, Floats, Folds, Matrix, Shape, weight_of
from sosie.training.decider.mlp import train_mlp
from sosie.training.decider.pools import Catalogue, Mask, Pool, pool_of, read
from sosie.training.judged import pool as judged_pool
from sosie.training.profile import Profile, stage
from sosie.training.text.titles import Titles

log = structlog.get_logger()

_NOISE = 0.001
"""Differences of mean row F1 that mean nothing: its standard error over groups is 0.003 over these pools together."""

_EASY = 0.35
"""Pairs spelt less alike than this are easy, and there are many of them."""

T = TypeVar("T")

_SECOND_RATE = 0.05

_LINKS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
_PUSHES = [feature.push for feature in FEATURES]


UNJUDGED = "decider-unjudged"
"""The same recipe without what people said, to show what that is worth; an empty folder where they said nothing."""


@dataclass(frozen=True)
class Encoders:
    """Model folders by whose vectors a decider learns; `crossed_text` is for listings that `text` learned from."""

    text: Path
    crossed_text: Path
    image: Path

    @classmethod
    def of(cls, profile: Profile) -> "Encoders":
        """Those that are served with `decider`."""
        return cls(profile.models / "text", profile.crossed_text, profile.models / "image")


def main(profile: Profile) -> None:
    encoders = Encoders.of(profile)
    pools, vocabulary = read_pools(profile, encoders)
    judged = read_judged(profile, encoders, vocabulary)
    train(profile, [*pools, *judged], vocabulary, profile.models / "decider")
    shutil.rmtree(profile.models / UNJUDGED, ignore_errors=True)
    (profile.models / UNJUDGED).mkdir()
    if judged:
        train(profile, pools, vocabulary, profile.models / UNJUDGED)
    train_mlp(profile, pools, vocabulary)


def read_pools(profile: Profile, encoders: Encoders) -> tuple[list[Pool], Vocabulary]:
    """Pools of every dataset of the decider's part, of their copies with gaps, of those that `decider.among` names also
    in the midst of the encoders' part, and of the encoders' part of those that `text.crossed` names; the vocabulary of
    the titles of both parts."""

    def catalogue(folder: Path, text: Path = encoders.text) -> Catalogue:
        return read(folder, text, encoders.image, profile.work / "scratch" / "decider")

    def crossed(name: str) -> Catalogue:
        """The parts have changed places, but for pictures, whose encoder saw the encoders' part."""
        own = catalogue(profile.data("encoder") / name, encoders.crossed_text).without_pictures()
        if name in profile.decider.among:
            own = own.among(catalogue(profile.data("decider") / name, encoders.crossed_text).without_pictures())
        return replace(own, name=f"{name}-crossed", crossed=True)

    catalogues = [catalogue(path) for path in sorted(profile.data("decider").iterdir()) if path.is_dir()]
    among = [
        each.among(catalogue(profile.data("encoder") / each.name))
        for each in catalogues
        if each.name in profile.decider.among
    ]
    swapped = [crossed(name) for name in profile.text.crossed.datasets]
    gapped = [
        each.with_gaps(profile.seed + place)
        for place, each in enumerate(catalogues)
        if each.has_pictures and each.has_groups
    ]
    # Of both parts, else a word that it does not know would tell a bystander.
    titles = [each.listings["title"] for each in catalogues]
    vocabulary = Vocabulary.fit(pl.concat([*titles, pl.Series(Titles.read(profile.data("encoder")).texts)]))
    return [pool_of(each, Blocking(), vocabulary) for each in (*catalogues, *gapped, *among, *swapped)], vocabulary


def read_judged(profile: Profile, encoders: Encoders, vocabulary: Vocabulary) -> list[Pool]:
    """The pool of judgements to learn from, in a list; an empty one where there are none."""
    cache = profile.work / "scratch" / "decider"
    return judged_pool.pools(profile.judged("learn"), encoders.text, encoders.image, cache, vocabulary)


def train(profile: Profile, pools: list[Pool], vocabulary: Vocabulary, out: Path) -> None:
    """Write the model folder `out`."""
    knobs = profile.decider
    shape = Shape(knobs.rounds, profile.seed, knobs.threads)
    hard = [pool.label | (pool.features[:, NAMES.index("ngram_tfidf")] > _EASY) for pool in pools]
    weights = _weights(profile, pools, shape)
    first = step_of(pools, [pool.features for pool in pools], hard, weights, NAMES, _PUSHES, shape, knobs.folds)
    # The second step sees first scores as an hour does: as they are in a catalogue of the pool's own size.
    first = first.shifted([pool.catalogue.prior(MEANT) for pool in pools])
    own_size = replace(shape, rounds=knobs.graph_rounds, learning_rate=_SECOND_RATE, catalogue=None)
    weights = _weights(profile, pools, own_size)

    near = [score >= FLOOR for score in first.score]
    again = [pool.among(kept) for pool, kept in zip(pools, near, strict=True)]
    second = step_of(
        again,
        [look_again(pool, score[kept]) for pool, score, kept in zip(again, first.score, near, strict=True)],
        [np.ones(len(pool.label), dtype=bool) for pool in again],
        [own[kept] for own, kept in zip(weights, near, strict=True)],
        INPUTS,
        [*_PUSHES, *([0] * len(neighbourhood.NAMES))],
        own_size,
        knobs.folds,
        starts=[odds[kept] for odds, kept in zip(first.log_odds, near, strict=True)],
    )
    score = [each.copy() for each in first.score]
    for whole, kept, better in zip(score, near, second.score, strict=True):
        whole[kept] = better
    labels = [pool.label for pool in pools]
    fair = _unpicked(pools, score), _unpicked(pools, labels), _unpicked(pools, weights)
    review_at = fit_review(*fair, knobs.review_yield)
    match_at, curve = fit_match(pools, score, review_at)
    log.info("thresholds", match_at=match_at, review_at=review_at, curve=curve)

    out.mkdir(parents=True, exist_ok=True)
    Trees(first.booster.model_to_string()).save(out / TREES)
    Trees(second.booster.model_to_string()).save(out / SECOND_TREES)
    first.calibration.save(out / FIRST_CALIBRATION)
    second.calibration.save(out / CALIBRATION)
    vocabulary.save(out / VOCABULARY)
    usage: dict[str, Any] = {
        "features": list(INPUTS),
        "catalogue": MEANT,
        "match_at": match_at,
        "review_at": review_at,
        "match_at_is": "the middle of those whose mean row F1 after clustering is as good as the best, out of fold",
        "review_at_is": f"pairs between it and match_at are duplicates in at least {knobs.review_yield:.0%} of cases",
    }
    about = {
        "trained_on": {
            pool.name: {"listings": pool.catalogue.listings.height, "pairs": int(pool.taught.sum()),
                        "duplicates": int((pool.label & pool.taught).sum()), "candidate_recall": round(pool.recall, 4)}
            for pool in pools
        },
        "knobs": {**knobs.model_dump(exclude={"threads"}), "seed": profile.seed},
        "match_at_curve": curve,
        "min_mean_link_curve": link_curve(pools, score, match_at, review_at),
        "out_of_fold": measure.by_pool(pools, first.score, score, match_at, review_at),
        "importance": {"first": importance(first.booster), "second": importance(second.booster)},
        "limits": (
            "Trained on titles in Indonesian, English and Malay, shop offers and simulated listings; other languages "
            "and kinds of goods were not seen. Colours and sizes are known in the languages of the lexicon only."
        ),
    }  # fmt: skip
    artifact = artifacts.save(out, KIND, FILES, usage, about)
    log.info("wrote", folder=str(out), version=artifact.version)


@dataclass(frozen=True)
class Step:
    """Trees on all pools, their calibration, and per pool each pair's log-odds and probability out of fold."""

    booster: lightgbm.Booster
    calibration: Calibration
    log_odds: list[Floats]
    score: list[Floats]

    def shifted(self, priors: Sequence[float]) -> "Step":
        """The same with what a pool's catalogue adds to its log-odds."""
        log_odds = [own + prior for own, prior in zip(self.log_odds, priors, strict=True)]
        return replace(self, log_odds=log_odds, score=[self.calibration.apply(_sigmoid(own)) for own in log_odds])


def _weights(profile: Profile, pools: list[Pool], shape: Shape) -> list[Floats]:
    return [
        weight_of(pool, shape) * (profile.judgements.weight if pool.name == judged_pool.NAME else 1.0) for pool in pools
    ]


def step_of(
    pools: list[Pool],
    values: list[Matrix],
    hard: list[Mask],
    weights: list[Floats],
    names: Sequence[str],
    pushes: Sequence[int],
    shape: Shape,
    folds: int,
    starts: list[Floats] | None = None,
) -> Step:
    """Train and calibrate one step on `values` of the pools' pairs; `starts` are the log-odds that it adds to."""
    labels = [pool.label for pool in pools]
    parts = Folds.over(pools, folds, shape.seed)
    odds = boosting.out_of_fold(values, pools, hard, weights, parts, names, pushes, shape, starts=starts)
    calibration = calibrate(_unpicked(pools, odds), _unpicked(pools, labels), _unpicked(pools, weights))
    booster = boosting.fit(values, labels, weights, hard, names, pushes, shape, starts=starts)
    return Step(booster, calibration, odds, [calibration.apply(_sigmoid(each)) for each in odds])


def _unpicked(pools: Sequence[Pool], each: Sequence[T]) -> list[T]:
    """What belongs to pools that no decider picked. People judge what one was unsure of, or what teaches: trees learn
    from that, but among all candidates the odds of a score are others than among those."""
    return [own for pool, own in zip(pools, each, strict=True) if pool.name != judged_pool.NAME]


def look_again(pool: Pool, first: Floats) -> Matrix:
    """Features of pairs worth a second look, with their surroundings, float32 [pairs, INPUTS]."""
    around, known, listings = pool.surrounding
    sides, score = np.concatenate([pool.sides, around]), np.concatenate([first, known])
    return np.hstack([pool.features, surroundings(sides, score, listings)[: len(first)]])


def calibrate(raw: list[Floats], labels: list[Mask], weights: list[Floats]) -> Calibration:
    """Isotonic regression on probabilities before calibration; knots at the middle of each step and lines between them,
    so that order is kept strictly. `raw` are log-odds."""
    values, label, weight = _sigmoid(np.concatenate(raw)), np.concatenate(labels), np.concatenate(weights)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, label, sample_weight=weight)
    heights, step = np.unique(fitted.predict(values), return_inverse=True)
    mass = np.bincount(step, weights=weight)
    middle = np.bincount(step, weights=weight * values) / np.where(mass > 0, mass, 1)
    enough = (np.bincount(step) >= 30) | (np.arange(len(heights)) % max(len(heights) - 1, 1) == 0)
    enough &= mass > 0
    knots = np.concatenate([[0.0], middle[enough], [1.0]])
    return Calibration(knots, np.concatenate([[0.0], np.clip(heights[enough], 1e-4, 1 - 1e-4), [1.0]]))


def fit_review(score: list[Floats], labels: list[Mask], weights: list[Floats], least: float) -> float:
    """The lowest probability from which on, in steps of 0.01, the pairs of each step are duplicates often enough."""
    scores, label, weight = np.concatenate(score), np.concatenate(labels), np.concatenate(weights)
    step = np.floor(scores * 100).astype(int).clip(0, 99)
    hits = np.bincount(step, weights=weight * label, minlength=100)
    share = hits / np.maximum(np.bincount(step, weights=weight, minlength=100), 1e-12)
    poor = np.flatnonzero(share[:50] < least)
    return round(float((poor[-1] + 1 if len(poor) else 0) / 100), 2)


def fit_match(pools: list[Pool], score: list[Floats], review_at: float) -> tuple[float, dict[str, float]]:
    """The match threshold of the best mean row F1 after clustering, over all catalogues, and the F1 at others.

    The curve is flat around its best point, as clustering refuses thin evidence anyway: what is within noise of it is
    as good, and the middle of that is taken.
    """
    grid = [round(float(at), 2) for at in np.arange(max(0.2, review_at), 0.86, 0.05)]
    grouped = [(pool, own) for pool, own in zip(pools, score, strict=True) if pool.catalogue.has_groups]
    curve = {
        at: float(np.mean([measure.clustered(pool.catalogue, pool.pairs, own, at, review_at)["row_f1"]
                           for pool, own in grouped]))
        for at in grid
    }  # fmt: skip
    good = [at for at, value in curve.items() if value >= max(curve.values()) - _NOISE]
    return median_low(good), {str(at): round(value, 4) for at, value in curve.items()}


def link_curve(pools: list[Pool], score: list[Floats], match_at: float, review_at: float) -> dict[str, float]:
    """Mean row F1 over all catalogues by the mean link that clusters must have: see `clusters.min_mean_link`."""
    grouped = [(pool, own) for pool, own in zip(pools, score, strict=True) if pool.catalogue.has_groups]

    def row_f1(link: float) -> float:
        rules = Clusters(min_mean_link=link)
        of_pools = [
            measure.clustered(pool.catalogue, pool.pairs, own, match_at, review_at, rules)["row_f1"]
            for pool, own in grouped
        ]
        return round(float(np.mean(of_pools)), 4)

    return {str(link): row_f1(link) for link in _LINKS}


def importance(booster: lightgbm.Booster) -> dict[str, float]:
    """Share of the trees' total gain, strongest first."""
    gain, names = booster.feature_importance("gain"), booster.feature_name()
    return {names[place]: round(float(gain[place] / gain.sum()), 4) for place in np.argsort(-gain)}


def _sigmoid(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


if __name__ == "__main__":
    stage(main, __doc__)
