"""Gradient-boosted trees on pair features (LightGBM, Ke et al. 2017), and scores by models that never saw a pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import structlog
from sklearn.utils import murmurhash3_32

from sosie.errors import DatasetError
from sosie.training.decider.pools import Mask, Pool

log = structlog.get_logger()

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

MEANT = 10_000
"""Listings of the catalogue that the first step's probabilities are meant for."""


@dataclass(frozen=True)
class Shape:
    """What of LightGBM is chosen here. `catalogue` is the size of catalogue that probabilities are meant for, None for
    each pool's own: in one twice as large, each listing has twice as many look-alikes and no more duplicates. At an
    `evenness` of 0 a pool counts by its duplicates, at 1 all pools count alike."""

    rounds: int
    seed: int
    threads: int
    learning_rate: float = 0.06
    leaves: int = 31
    min_leaf: int = 80
    l2: float = 5.0
    easy_share: float = 0.35
    catalogue: int | None = MEANT
    most_scaling: float = 4.0
    evenness: float = 0.75


def weight_of(pool: Pool, shape: Shape) -> Floats:
    """Weight of each pair: non-duplicates as many as in a catalogue of the size meant, all pools of like importance;
    none for a pair that is not to be learnt from."""
    scaling = 1.0
    if pool.catalogue.has_groups and shape.catalogue:
        ratio = shape.catalogue / pool.catalogue.listings.height
        scaling = float(np.clip(ratio, 1 / shape.most_scaling, shape.most_scaling))
    weight = np.where(pool.label, 1.0, scaling) * pool.taught
    return np.asarray(weight / max(int((pool.label & pool.taught).sum()), 1) ** shape.evenness)


def fit(
    values: Sequence[Matrix],
    labels: Sequence[Mask],
    weights: Sequence[Floats],
    hard: Sequence[Mask],
    names: Sequence[str],
    pushes: Sequence[int],
    shape: Shape,
    *,
    starts: Sequence[Floats] | None = None,
) -> lightgbm.Booster:
    """Trees on all pools' rows, added to the log-odds in `starts` if given.

    Of pairs that are not `hard` a share is drawn, and weighs the more; what weighs nothing is left out. Raises
    `DatasetError` where no pair is left.
    """
    random = np.random.default_rng(shape.seed)
    drawn = [
        (mask | (random.random(len(mask)) < shape.easy_share)) & (own > 0)
        for mask, own in zip(hard, weights, strict=True)
    ]
    if not any(kept.any() for kept in drawn):
        raise DatasetError(
            "The decider has no pair to learn from: its data (data/decider) has too few listings for so many folds. "
            "Give it more, or lower `decider.folds` in params.yaml."
        )
    weight = np.concatenate(
        [
            np.where(mask, own, own / shape.easy_share)[kept]
            for mask, own, kept in zip(hard, weights, drawn, strict=True)
        ]
    )
    data = lightgbm.Dataset(
        np.concatenate([each[kept] for each, kept in zip(values, drawn, strict=True)]),
        np.concatenate([each[kept] for each, kept in zip(labels, drawn, strict=True)]).astype(np.float32),
        weight=weight / weight.mean(),
        init_score=None if starts is None else np.concatenate([s[k] for s, k in zip(starts, drawn, strict=True)]),
        feature_name=list(names),
        params={"max_bin": 127, "verbosity": -1},
    )
    parameters: dict[str, Any] = {
        "objective": "binary",
        "learning_rate": shape.learning_rate,
        "num_leaves": shape.leaves,
        "min_data_in_leaf": shape.min_leaf,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": shape.l2,
        "monotone_constraints": list(pushes),
        "max_bin": 127,
        "num_threads": shape.threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": shape.seed,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, num_boost_round=shape.rounds)


@dataclass(frozen=True)
class Folds:
    """Which fold each product belongs to; in every pool that has it the same."""

    count: int
    of: list[npt.NDArray[np.int64]]

    @classmethod
    def over(cls, pools: Sequence[Pool], count: int, seed: int) -> "Folds":
        """Fold numbers of both sides of each pair, [pairs, 2]."""
        folds = []
        for pool in pools:
            drawn = murmurhash3_32(pool.products.astype(np.uint32).view(np.int32), seed=seed, positive=True) % count
            folds.append(drawn[pool.sides].astype(np.int64))
        return cls(count, folds)

    def held_out(self, fold: int) -> list[Mask]:
        """Per pool, the pairs with a side in the fold."""
        return [(sides == fold).any(axis=1) for sides in self.of]


def out_of_fold(
    values: Sequence[Matrix],
    pools: Sequence[Pool],
    hard: Sequence[Mask],
    weights: Sequence[Floats],
    folds: Folds,
    names: Sequence[str],
    pushes: Sequence[int],
    shape: Shape,
    *,
    starts: Sequence[Floats] | None = None,
) -> list[Floats]:
    """Log-odds of every pair by models that were trained without the pair's products; `starts` are added to.

    A pair between two folds is scored by both folds' models and averaged: neither has seen the pair, and each has seen
    but one of its products.
    """
    total, times = ([np.zeros(len(pool.label)) for pool in pools] for _ in range(2))
    for fold in range(folds.count):
        held = folds.held_out(fold)

        def rest(parts: Sequence[Any], held: list[Mask] = held) -> list[Any]:
            return [each[~mask] for each, mask in zip(parts, held, strict=True)]

        labels = [pool.label for pool in pools]
        booster = fit(
            rest(values), rest(labels), rest(weights), rest(hard), names, pushes, shape,
            starts=None if starts is None else rest(starts),
        )  # fmt: skip
        for place, mask in enumerate(held):
            total[place][mask] += booster.predict(values[place][mask], num_threads=shape.threads, raw_score=True)
            times[place][mask] += 1
        log.info("fold", fold=fold + 1, of=folds.count)
    mean = [summed / number for summed, number in zip(total, times, strict=True)]
    return mean if starts is None else [own + start for own, start in zip(mean, starts, strict=True)]
