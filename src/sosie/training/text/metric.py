"""Metric learning of a title encoder over groups of titles that name one product."""

import math
from pathlib import Path

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.training.checkpoints import Checkpoint
from sosie.training.losses import ArcFace, supervised_contrastive
from sosie.training.profile import Metric
from sosie.training.schedule import warm_then_cosine
from sosie.training.text.batches import Sampler
from sosie.training.text.model import Encoded, TitleEncoder, encode
from sosie.training.text.titles import Titles

log = structlog.get_logger()

_SAVE_EVERY = 50
_POOLED_SHARE = 0.5
"""Weight of the same loss on the pooled features, so that what the reduction starts from is worth reducing."""

History = list[dict[str, float]]


def learn(
    model: TitleEncoder, encoded: Encoded, titles: Titles, vectors: np.ndarray, knobs: Metric, seed: int, out: Path
) -> History:
    """Train `model` in place; what was lost along the way.

    `vectors` [n, 128] of unit length are where groups lie before the first step: neighbours are looked up among them,
    and in the last ones that the model gave afterwards. Takes up a checkpoint in `out`.
    """
    objective = _objective(knobs, titles, vectors)
    optimiser = torch.optim.AdamW(_rates(model, objective, knobs), weight_decay=0.01)
    peaks = [group["lr"] for group in optimiser.param_groups]
    checkpoint = Checkpoint(out / "last.pt", model=model, objective=objective, optimiser=optimiser)
    held = checkpoint.resume()
    history: History = held.get("history", [])
    last = held["vectors"].numpy() if held else vectors.astype(np.float32, copy=True)
    model.train()
    for epoch in range(held.get("epoch", 0), math.ceil(knobs.epochs)):
        resumed = held and held["epoch"] == epoch
        before = held["epoch_vectors"].numpy() if resumed else last.copy()
        sampler = Sampler(titles, before, knobs.rows_per_group, knobs.hard_share)
        batches = sampler.epoch(knobs.batch, np.random.default_rng([seed, epoch]))
        losses: list[float] = []
        last_place = min(len(batches), math.ceil((knobs.epochs - epoch) * len(batches)))
        for place in range(held["place"] if resumed else 0, last_place):
            progress = (epoch + place / len(batches)) / knobs.epochs
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * warm_then_cosine(progress, knobs.warmup)
            rows = batches[place]
            pooled, vector = _encoded(model, encoded, rows, knobs)
            loss = objective(pooled, vector, torch.from_numpy(titles.groups[rows]), progress)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            last[rows] = vector.detach().numpy()
            losses.append(loss.item())
            if (place + 1) % _SAVE_EVERY == 0 or place + 1 == last_place:
                at, mean = epoch + (place + 1) / len(batches), float(np.mean(losses))
                history.append({"epoch": round(at, 3), "loss": round(mean, 4)})
                log.info("metric learning", epochs=knobs.epochs, **history[-1])
                checkpoint.save(
                    epoch=epoch, place=place + 1, history=history,
                    vectors=torch.from_numpy(last), epoch_vectors=torch.from_numpy(before),
                )  # fmt: skip
                losses = []
    return history


def _encoded(model: TitleEncoder, encoded: Encoded, rows: np.ndarray, knobs: Metric) -> tuple[Tensor, Tensor]:
    """(pooled, vector) of some rows in float32, of unit length also where the model works in half precision."""
    if not knobs.bfloat16:
        return encode(model, encoded, rows, knobs.hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, vector = encode(model, encoded, rows, knobs.hidden)
    return F.normalize(pooled.float(), dim=1), F.normalize(vector.float(), dim=1)


class _Contrastive(nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, pooled: Tensor, vector: Tensor, groups: Tensor, progress: float) -> Tensor:
        loss = supervised_contrastive(vector, groups, self.temperature)
        return loss + _POOLED_SHARE * supervised_contrastive(pooled, groups, self.temperature)


class _Angular(nn.Module):  # type: ignore[misc]
    """ArcFace over the groups; the margin grows to its full size in the first half of training."""

    def __init__(self, arcface: ArcFace, groups: np.ndarray, margin: float) -> None:
        super().__init__()
        self.arcface, self.margin = arcface, margin
        self.register_buffer("number", torch.from_numpy(groups), persistent=False)

    def forward(self, pooled: Tensor, vector: Tensor, groups: Tensor, progress: float) -> Tensor:
        classes = torch.searchsorted(self.number, groups)
        loss: Tensor = self.arcface(vector, classes, self.margin * min(1.0, 2 * progress))
        return loss


def _objective(knobs: Metric, titles: Titles, vectors: np.ndarray) -> nn.Module:
    if knobs.loss == "contrastive":
        return _Contrastive(knobs.temperature)
    numbers, place = np.unique(titles.groups, return_inverse=True)
    centres = np.zeros((len(numbers), vectors.shape[1]), np.float32)
    np.add.at(centres, place, vectors)
    return _Angular(ArcFace(torch.from_numpy(centres), knobs.scale), numbers, knobs.margin)


def _rates(model: TitleEncoder, objective: nn.Module, knobs: Metric) -> list[dict[str, object]]:
    """Parameters with their peak rates: what is new learns faster than what was pretrained."""
    new = [parameter for name, parameter in model.named_parameters() if not name.startswith("bert.")]
    return [
        {"params": list(model.bert.parameters()), "lr": knobs.rate},
        {"params": [*new, *objective.parameters()], "lr": knobs.head_rate},
    ]
