"""EfficientNet-B3 with ArcFace, as the second paper has it, from random weights: no pretrained ones are to be had here.

EfficientNet: Tan and Le 2019, arXiv:1905.11946, by timm. ArcFace: Deng et al. 2019, arXiv:1801.07698.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.tables import DIM
from sosie.training.checkpoints import Checkpoint, write_metrics
from sosie.training.image.data import Pictures
from sosie.training.image.noise import overlays, relisted
from sosie.training.losses import ArcFace
from sosie.training.profile import Profile
from sosie.training.schedule import shuffled, warm_then_cosine
from sosie.training.torchvision_ops import declare_missing_ops

log = structlog.get_logger()

WEIGHTS = "encoder.pt"
_SAVE_EVERY = 20


@dataclass(frozen=True)
class Recipe:
    """Every knob: sizes in pixels, batches in pictures, AdamW's peak rate, ArcFace's scale and margin (radians)."""

    epochs: float = 4
    picture: int = 112
    batch: int = 64
    rate: float = 1e-3
    scale: float = 24.0
    margin: float = 0.3
    weight_decay: float = 0.02
    warmup: float = 0.1


class EfficientNet(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Pictures [n, 3, s, s] with values in 0…255 → unit vectors [n, 128]."""

    def __init__(self) -> None:
        super().__init__()
        declare_missing_ops()
        import timm

        self.trunk = timm.create_model("efficientnet_b3", pretrained=False, num_classes=0)
        self.norm = nn.BatchNorm1d(self.trunk.num_features)
        self.head = nn.Linear(self.trunk.num_features, DIM, bias=False)

    def pooled(self, pixels: Tensor) -> Tensor:
        """[n, 1536] of unit length."""
        return F.normalize(self.norm(self.trunk((pixels - 127.5) / 64)), dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.head(self.pooled(pixels)), dim=1)


def recipe_of(profile: Profile) -> Recipe:
    knobs: dict[str, Any] = dict(profile.image.efficientnet_b3)
    return Recipe(**knobs)


def load(profile: Profile) -> EfficientNet:
    """The trained encoder, ready for use."""
    model = EfficientNet()
    file = profile.work / "image" / "efficientnet_b3" / WEIGHTS
    model.load_state_dict(torch.load(file, weights_only=True))
    model.eval()
    return model


def train(profile: Profile) -> None:
    """Write work/image/efficientnet_b3; goes on from its last checkpoint."""
    recipe, out = recipe_of(profile), profile.work / "image" / "efficientnet_b3"
    if (out / WEIGHTS).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(profile.seed)
    pictures = Pictures.read(profile.data("encoder"), math.ceil(recipe.picture * 1.1)).subset(spared=False)
    # Variants of a product may show one picture, so a class is a family.
    classes = pictures.codes("family")
    model = EfficientNet()
    arcface = ArcFace(torch.randn(int(classes.max()) + 1, DIM), recipe.scale)
    parts = nn.ModuleDict({"encoder": model, "arcface": arcface})
    optimiser = torch.optim.AdamW(parts.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    checkpoint = Checkpoint(out / "last.pt", parts=parts, optimiser=optimiser)
    held = checkpoint.resume()
    history: list[dict[str, float]] = held.get("history", [])
    bank = overlays(256, recipe.picture, np.random.default_rng(profile.seed))
    rows = len(pictures.pixels)
    order = shuffled(rows, recipe.epochs, profile.seed)
    steps = len(order) // recipe.batch
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    for step in range(held.get("step", 0), steps):
        optimiser.param_groups[0]["lr"] = recipe.rate * warm_then_cosine(step / steps, recipe.warmup)
        chosen = torch.from_numpy(order[step * recipe.batch : (step + 1) * recipe.batch])
        chance = torch.Generator().manual_seed(profile.seed * 100_003 + step)
        pixels = relisted(pictures.pixels[chosen], recipe.picture, bank, chance)
        loss = arcface(model(pixels), classes[chosen], recipe.margin * min(1.0, 2 * step / steps))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 2.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            history.append({"step": step + 1, "loss": round(float(np.mean(losses)), 4)})
            log.info("efficientnet_b3", of=steps, seconds=round(time.monotonic() - started), **history[-1])
            checkpoint.save(step=step + 1, history=history)
            losses = []
    write_metrics(out, {"pictures": rows, "classes": int(classes.max()) + 1, **(history or [{}])[-1]})
    torch.save(model.state_dict(), out / WEIGHTS)
    checkpoint.file.unlink(missing_ok=True)
