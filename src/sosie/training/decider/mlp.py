"""The perceptron on the four vectors (first paper, Kulunk et al. 2025): `python -m sosie.training.decider.mlp`.

Trained on the same pairs as the boosted decider and measured alike: isotonic calibration and thresholds are fitted on
scores of models that never saw a pair's products.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from sosie import artifacts
from sosie.decider.batch import vectors_of
from sosie.decider.mlp import CALIBRATION, FILES, KIND, VOCABULARY, WEIGHTS, Perceptron, Sides
from sosie.decider.text_features import Vocabulary
from sosie.tables import DIM
from sosie.training.decider import measure
from sosie.training.decider.boosting import MEANT, Floats, Folds, Shape, weight_of
from sosie.training.decider.pools import Ints, Mask, Pool
from sosie.training.profile import Profile, stage

log = structlog.get_logger()

_WIDTH, _HIDDEN = 32, (64, 32)
_BATCH = 4_096
_RATE = 4e-3
_DECAY = 0.05
_DROPOUT = 0.5
"""Of the differences: the vectors of a few thousand listings are soon learnt by heart. For that reason, too, the shared
layer is narrow and products of both sides, which tell more of who they are, are left out."""

_COSINES = 8.0
"""Cosines say most, so they come in larger numbers than the rest."""

_EASY_SHARE = 0.2
"""Share of the pairs that are no duplicates that an epoch sees, drawn anew each time and weighing the more."""


def main(profile: Profile) -> None:
    train_mlp(profile)


def train_mlp(profile: Profile, pools: list[Pool] | None = None, vocabulary: Vocabulary | None = None) -> None:
    """Write work/models/decider-mlp. The pools are those of the stage that calls this, read again where not given."""
    from sosie.training.decider import train as boosted  # that stage imports this one
    from sosie.training.decider.train import calibrate, fit_match, fit_review

    if pools is None or vocabulary is None:
        pools, vocabulary = boosted.read_pools(profile, boosted.Encoders.of(profile))
    torch.set_num_threads(profile.decider.threads or torch.get_num_threads())
    # It looks at nothing around a pair, and reads the very numbers of vectors, which must be of the served encoder.
    own = [pool for pool in pools if pool.catalogue.bystanders is None and not pool.catalogue.crossed]
    pools = [pool.among(pool.taught) for pool in own]
    weights, own_size = (
        [weight_of(pool, Shape(0, profile.seed, 0, catalogue=size)) for pool in pools] for size in (MEANT, None)
    )
    labels = [pool.label for pool in pools]
    log_odds = _out_of_fold(pools, weights, profile)
    calibration = calibrate(log_odds, labels, weights)
    shifted = [odds + pool.catalogue.prior(MEANT) for pool, odds in zip(pools, log_odds, strict=True)]
    score = [calibration.apply(1 / (1 + np.exp(-odds))) for odds in shifted]
    review_at = fit_review(score, labels, own_size, profile.decider.review_yield)
    match_at, curve = fit_match(pools, score, review_at)

    out = profile.models / "decider-mlp"
    out.mkdir(parents=True, exist_ok=True)
    everything = [np.ones(len(pool.label), dtype=bool) for pool in pools]
    fit(pools, weights, everything, profile).save(out / WEIGHTS)
    vocabulary.save(out / VOCABULARY)
    calibration.save(out / CALIBRATION)
    usage = {"catalogue": MEANT, "match_at": match_at, "review_at": review_at}
    about = {
        "paper": "Kulunk et al. 2025: a multilayer perceptron on text and image vectors of both sides",
        "layers": [2 * DIM + 2, _WIDTH, _WIDTH + 4, *_HIDDEN, 1],
        "epochs": profile.decider.mlp_epochs,
        "seed": profile.seed,
        "match_at_curve": curve,
        "out_of_fold": {
            f"{place} {pool.name}": {
                **measure.of_pairs(own, pool.label, match_at),
                "calibration_error": round(measure.calibration_error(own, pool.label), 5),
            }
            for place, (pool, own) in enumerate(zip(pools, score, strict=True))
        },
    }
    artifact = artifacts.save(out, KIND, FILES, usage, about)
    log.info("wrote", folder=str(out), version=artifact.version, match_at=match_at, review_at=review_at)


def _out_of_fold(pools: list[Pool], weights: list[Floats], profile: Profile) -> list[Floats]:
    """Log-odds of every pair by models that were trained without the pair's products, float64 [pairs] a pool.

    A pair between two folds has the mean of both folds' models: neither has seen the pair.
    """
    folds = Folds.over(pools, profile.decider.folds, profile.seed)
    total, times = ([np.zeros(len(pool.label)) for pool in pools] for _ in range(2))
    sides = [sides_of(pool) for pool in pools]
    for fold in range(folds.count):
        held = folds.held_out(fold)
        model = fit(pools, weights, [~mask for mask in held], profile)
        for place, mask in enumerate(held):
            left, right = pools[place].sides[mask].T
            total[place][mask] += model.log_odds(sides[place], left, right, profile.decider.threads)
            times[place][mask] += 1
        log.info("fold", fold=fold + 1, of=folds.count)
    return [summed / number for summed, number in zip(total, times, strict=True)]


def sides_of(pool: Pool) -> Sides:
    """Vectors of a pool's listings."""
    listed, known = pool.catalogue.listings["listing_id"], pool.catalogue
    return Sides.of(vectors_of(listed, known.text, "text"), vectors_of(listed, known.image, "image"))


def fit(pools: Sequence[Pool], weights: Sequence[Floats], kept: Sequence[Mask], profile: Profile) -> Perceptron:
    """Train on the `kept` pairs of all pools, weighted logistic loss, AdamW."""
    listings = _joined([sides_of(pool) for pool in pools])
    starts = np.cumsum([0, *(pool.catalogue.listings.height for pool in pools)])
    ends = torch.from_numpy(
        np.concatenate([pool.sides[mask] + start for pool, mask, start in zip(pools, kept, starts, strict=False)])
    )
    label = np.concatenate([pool.label[mask] for pool, mask in zip(pools, kept, strict=True)])
    weight = np.concatenate([own[mask] for own, mask in zip(weights, kept, strict=True)])
    weight = np.where(label, weight, weight / _EASY_SHARE)
    weight *= 1 / weight[label].mean()
    target, importance = torch.from_numpy(label.astype(np.float32)), torch.from_numpy(weight.astype(np.float32))

    torch.manual_seed(profile.seed)
    random = np.random.default_rng(profile.seed)
    model = Twin()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    epochs = profile.decider.mlp_epochs
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        drawn = random.permutation(_drawn(label, random))
        for start in range(0, len(drawn), _BATCH):
            batch = torch.from_numpy(drawn[start : start + _BATCH])
            odds = model(listings, ends[batch, 0], ends[batch, 1])
            loss = nn.functional.binary_cross_entropy_with_logits(odds, target[batch], importance[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        rate.step()
        log.info("epoch", epoch=epoch + 1, of=epochs, loss=round(loss.item(), 4))
    return model.exported()


def _drawn(label: Mask, random: np.random.Generator) -> Ints:
    return np.flatnonzero(label | (random.random(len(label)) < _EASY_SHARE))


def _joined(sides: list[Sides]) -> tuple[Tensor, Tensor, Tensor]:
    """text [n, 128], image [n, 128] and has [n, 2] of all pools' listings, one after another."""
    text, image, has = (
        torch.from_numpy(np.concatenate([getattr(each, name) for each in sides])) for name in ("text", "image", "has")
    )
    return text, image, has


class Twin(nn.Module):  # type: ignore[misc]  # torch is not followed
    """What `sosie.decider.mlp.Perceptron` works out, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(2 * DIM + 2, _WIDTH)
        widths = (_WIDTH + 4, *_HIDDEN, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, listings: tuple[Tensor, Tensor, Tensor], left: Tensor, right: Tensor) -> Tensor:
        """Log-odds [pairs] of the pairs of rows of `listings`."""
        text, image, has = listings
        one, other = (self.shared(torch.cat([text[side], image[side], has[side]], dim=1)) for side in (left, right))
        cosines = torch.stack([(vectors[left] * vectors[right]).sum(dim=1) for vectors in (text, image)], dim=1)
        differ = nn.functional.dropout((one - other).abs(), _DROPOUT, self.training)
        values = torch.cat([differ, _COSINES * cosines, has[left] * has[right]], dim=1)
        for layer in self.layers[:-1]:
            values = torch.relu(layer(values))
        return torch.as_tensor(self.layers[-1](values)[:, 0])

    def exported(self) -> Perceptron:
        layers = [self.shared, *self.layers]
        matrices, biases = (
            tuple(np.ascontiguousarray(getattr(layer, name).detach().numpy().T) for layer in layers)
            for name in ("weight", "bias")
        )
        matrices[1][_WIDTH : _WIDTH + 2] *= _COSINES
        return Perceptron(matrices, biases)


if __name__ == "__main__":
    stage(main, __doc__)
