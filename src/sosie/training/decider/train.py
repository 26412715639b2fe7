"""Train the decider: `python -m sosie.training.decider --data DIR --simulated DIR… --out models/decider`.

Pairs come from the same blocking that the hourly run uses, over the train halves of labelled catalogues. Gradient
boosting (Ke et al. 2017, LightGBM) on pair-local features; calibration (isotonic, Zadrozny and Elkan 2002) and the
thresholds are fitted on scores of models that never saw the groups in question, on pools that are scored whole. Then
everything is measured on the test halves, and in the full catalogue, where twice as many look-alikes compete.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import structlog
from sklearn.isotonic import IsotonicRegression

from sosie import artifacts
from sosie.decider.features import FEATURES, NAMES
from sosie.decider.model import CALIBRATION, KIND, TREES, VOCABULARY, Calibration, Decider
from sosie.decider.text_features import Vocabulary
from sosie.decider.titles import parse
from sosie.settings import Blocking
from sosie.training.decider import measure
from sosie.training.decider.folds import fold_of, with_views
from sosie.training.decider.pools import Catalogue, Mask, Pool, candidates, features, labelled, read, true_pairs

log = structlog.get_logger()

Floats = npt.NDArray[np.float64]


_NOISE = 0.0025
"""Differences of mean row F1 that mean nothing: its standard error over groups is 0.006 on these pools."""


@dataclass(frozen=True)
class Knobs:
    """How the decider is trained."""

    folds: int = 3
    rounds: int = 700
    learning_rate: float = 0.08
    leaves: int = 10
    min_leaf: int = 80
    l2: float = 5.0
    easy_share: float = 0.35
    # The size of catalogue that probabilities are meant for: in a pool twice as large, each listing has twice as many
    # look-alikes and no more duplicates.
    catalogue: int = 27_000
    most_scaling: float = 3.0
    # A reviewer's time is well spent while at least this share of the pairs shown are duplicates.
    review_yield: float = 0.25
    seed: int = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, calibrate and measure the decider.")
    parser.add_argument("--data", type=Path, required=True, help="folder with shopee/ and pricerunner/")
    parser.add_argument("--simulated", type=Path, nargs="*", default=[], help="folders that `sosie simulate` wrote")
    parser.add_argument("--text", type=Path, default=Path("models/text"))
    parser.add_argument("--image", type=Path, default=Path("models/image"))
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sosie-decider-training")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    knobs, rules = Knobs(), Blocking()

    real = [read(args.data / name, args.text, args.image, args.cache) for name in ("shopee", "pricerunner")]
    made = [read(folder, args.text, args.image, args.cache) for folder in args.simulated]
    # The text encoder was trained on the train halves of the real catalogues, not on the simulated ones.
    crossed = with_views(real, args.text, args.cache, knobs.folds)
    halves = [catalogue.half("train") for catalogue in (*crossed, *made)]
    vocabulary = Vocabulary.fit([parse(title) for half in halves for title in half.listings["title"]])
    gapped = [half.with_gaps(knobs.seed + place) for place, half in enumerate(halves) if half.has_pictures]
    pools = [pool_of(half, rules, vocabulary) for half in (*halves, *gapped)]

    raw = out_of_fold(pools, knobs, args.threads)
    weights = [weight_of(pool, knobs) for pool in pools]
    label, weight = np.concatenate([pool.label for pool in pools]), np.concatenate(weights)
    calibration = calibrate(np.concatenate(raw), label, weight)
    booster = fit(pools, weights, knobs, args.threads)

    score = [calibration.apply(values) for values in raw]
    review_at = fit_review(np.concatenate(score), label, weight, knobs)
    match_at, curve = fit_match(pools[0], score[0], review_at)
    log.info("thresholds", match_at=match_at, review_at=review_at)

    args.out.mkdir(parents=True, exist_ok=True)
    booster.save_model(str(args.out / TREES))
    calibration.save(args.out / CALIBRATION)
    vocabulary.save(args.out / VOCABULARY)
    usage: dict[str, Any] = {
        "features": list(NAMES),
        "match_at": match_at,
        "review_at": review_at,
        "match_at_is": "the highest whose mean row F1 after clustering is within noise of the best, out of fold",
        "review_at_is": f"pairs between it and match_at are duplicates in at least {knobs.review_yield:.0%} of cases",
    }
    about: dict[str, Any] = {
        "trained_on": {
            pool.name: {"listings": pool.catalogue.listings.height, "pairs": pool.pairs.height,
                        "duplicates": int(pool.label.sum()), "candidate_recall": round(pool.recall, 4)}
            for pool in pools
        },
        "knobs": asdict(knobs),
        "match_at_curve": curve,
        "out_of_fold": measure.by_pool(pools, raw, score, match_at),
        "importance": importance(booster),
    }  # fmt: skip
    artifacts.save(args.out, KIND, [TREES, CALIBRATION, VOCABULARY], usage, about)
    decider = Decider.load(args.out, threads=args.threads)
    del pools, gapped
    about["measured"] = {
        **{c.name: measure.on_test_half(c, decider, rules) for c in (*real, *made)},
        "shopee_full": measure.in_full(real[0], decider, rules),
    }
    about["seconds"] = round(time.monotonic() - started)
    artifact = artifacts.save(args.out, KIND, [TREES, CALIBRATION, VOCABULARY], usage, about)
    log.info("wrote", folder=str(args.out), version=artifact.version, seconds=about["seconds"])
    log.info("measured", **{name: json.dumps(value) for name, value in about["measured"].items()})


def pool_of(catalogue: Catalogue, rules: Blocking, vocabulary: Vocabulary) -> Pool:
    """Candidates of a catalogue with their labels and features."""
    pairs = candidates(catalogue, rules, vocabulary)
    return Pool(
        catalogue,
        pairs,
        labelled(pairs, catalogue.truth),
        features(catalogue, pairs, vocabulary),
        true_pairs(catalogue.truth),
    )


def weight_of(pool: Pool, knobs: Knobs) -> Floats:
    """Weight of each pair: non-duplicates as many as in a catalogue of the size meant, all pools of like importance."""
    scaling = np.clip(knobs.catalogue / pool.catalogue.listings.height, 1, knobs.most_scaling)
    weight = np.where(pool.label, 1.0, scaling)
    # Between a pool that counts by its pairs and one that counts once: the square root of its duplicates.
    return np.asarray(weight / np.sqrt(max(int(pool.label.sum()), 1)))


def fit(
    pools: list[Pool], weights: list[Floats], knobs: Knobs, threads: int, kept: list[Mask] | None = None
) -> lightgbm.Booster:
    """Trees on the pairs of all pools (or those in `kept`). Easy non-duplicates are thinned out and weigh more."""
    random = np.random.default_rng(knobs.seed)
    rows, labels, weighed = [], [], []
    for place, (pool, weight) in enumerate(zip(pools, weights, strict=True)):
        hard = pool.label | (pool.features[:, NAMES.index("ngram_tfidf")] > 0.35)
        drawn = hard | (random.random(len(hard)) < knobs.easy_share)
        chosen = drawn if kept is None else drawn & kept[place]
        rows.append(pool.features[chosen])
        labels.append(pool.label[chosen])
        weighed.append(np.where(hard, weight, weight / knobs.easy_share)[chosen])
    weight = np.concatenate(weighed)
    data = lightgbm.Dataset(
        np.concatenate(rows),
        np.concatenate(labels).astype(np.float32),
        weight=weight / weight.mean(),
        feature_name=list(NAMES),
        params={"max_bin": 127, "verbosity": -1},
    )
    parameters = {
        "objective": "binary",
        "learning_rate": knobs.learning_rate,
        "num_leaves": knobs.leaves,
        "min_data_in_leaf": knobs.min_leaf,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": knobs.l2,
        "monotone_constraints": [feature.push for feature in FEATURES],
        "max_bin": 127,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": knobs.seed,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, num_boost_round=knobs.rounds)


def out_of_fold(pools: list[Pool], knobs: Knobs, threads: int) -> list[Floats]:
    """Raw score of every pair by models that were trained without the pair's groups.

    A pair between two folds is scored by both folds' models and averaged: neither has seen the pair, and each has seen
    but one of its groups. The gapped copy of a catalogue shares its folds, as they hang on the group alone.
    """
    folds = [[fold_of(pool.groups(side), knobs.folds) for side in ("left", "right")] for pool in pools]
    weights = [weight_of(pool, knobs) for pool in pools]
    total = [np.zeros(len(pool.label)) for pool in pools]
    times = [np.zeros(len(pool.label)) for pool in pools]
    for fold in range(knobs.folds):
        held = [(left == fold) | (right == fold) for left, right in folds]
        booster = fit(pools, weights, knobs, threads, kept=[~mask for mask in held])
        for place, (pool, mask) in enumerate(zip(pools, held, strict=True)):
            total[place][mask] += booster.predict(pool.features[mask], num_threads=threads)
            times[place][mask] += 1
        log.info("fold", fold=fold + 1, of=knobs.folds)
    return [summed / number for summed, number in zip(total, times, strict=True)]


def calibrate(raw: Floats, label: Mask, weight: Floats) -> Calibration:
    """Isotonic regression; knots at the middle of each step and lines between them, so that order is kept strictly."""
    steps = (
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, label, sample_weight=weight).predict(raw)
    )
    values, step = np.unique(steps, return_inverse=True)
    mass = np.bincount(step, weights=weight)
    middle = np.bincount(step, weights=weight * raw) / mass
    enough = (np.bincount(step) >= 30) | (np.arange(len(values)) % (len(values) - 1) == 0)
    knots = np.concatenate([[0.0], middle[enough], [1.0]])
    heights = np.concatenate([[0.0], np.clip(values[enough], 1e-4, 1 - 1e-4), [1.0]])
    return Calibration(knots, heights)


def fit_review(score: Floats, label: Mask, weight: Floats, knobs: Knobs) -> float:
    """The lowest probability from which on, in steps of 0.01, the pairs of each step are duplicates often enough."""
    step = np.floor(score * 100).astype(int).clip(0, 99)
    hits = np.bincount(step, weights=weight * label, minlength=100)
    share = hits / np.maximum(np.bincount(step, weights=weight, minlength=100), 1e-12)
    poor = np.flatnonzero(share[:50] < knobs.review_yield)
    return round(float((poor[-1] + 1 if len(poor) else 0) / 100), 2)


def fit_match(pool: Pool, score: Floats, review_at: float) -> tuple[float, dict[str, float]]:
    """The highest match threshold whose mean row F1 after clustering is as good as the best, but for noise.

    The curve is flat below its best point, as clustering refuses thin evidence anyway. The higher end merges less in
    error where a catalogue is larger than the pool, and leaves more to a person.
    """
    grid = [round(float(at), 2) for at in np.arange(max(0.2, review_at), 0.86, 0.05)]
    curve = {at: measure.clustered(pool.catalogue, pool.pairs, score, at, review_at)["row_f1"] for at in grid}
    good = [at for at, value in curve.items() if value >= max(curve.values()) - _NOISE]
    return max(good), {str(at): value for at, value in curve.items()}


def importance(booster: lightgbm.Booster) -> dict[str, float]:
    """Share of the trees' total gain, strongest first."""
    gain = booster.feature_importance("gain")
    order = np.argsort(-gain)
    return {NAMES[place]: round(float(gain[place] / gain.sum()), 4) for place in order}


if __name__ == "__main__":
    main()
