"""EfficientNet-B3 with ArcFace, as the second paper has it, from random weights: no pretrained ones are to be had here.

EfficientNet: Tan and Le 2019, arXiv:1905.11946, by timm. ArcFace: Deng et al. 2019, arXiv:1801.07698.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
from sosie.training.losses import ArcFace, info_nce
from sosie.training.profile import Profile
from sosie.training.schedule import shuffled, warm_then_cosine
from sosie.training.torchvision_ops import declare_missing_ops

log = structlog.get_logger()

WEIGHTS = "encoder.pt"
_SAVE_EVERY = 20
_LAYOUT = torch.channels_last
"""A third faster on one core."""


@dataclass(frozen=True)
class Recipe:
    """Every knob: sizes in pixels, batches in pictures, AdamW's peak rates, ArcFace's scale and margin (radians)."""

    imitate_epochs: float = 6
    epochs: float = 3
    picture: int = 112
    batch: int = 64
    imitate_rate: float = 1e-3
    rate: float = 3e-4
    temperature: float = 0.07
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


def is_trained(profile: Profile) -> bool:
    return (profile.work / "image" / "efficientnet_b3" / WEIGHTS).exists()


def load(profile: Profile) -> EfficientNet:
    """The trained encoder, ready for use."""
    model = EfficientNet()
    file = profile.work / "image" / "efficientnet_b3" / WEIGHTS
    model.load_state_dict(torch.load(file, weights_only=True))
    model.eval()
    return model


def train(profile: Profile, teacher: Callable[[Tensor], Tensor], side: int) -> None:
    """Write work/image/efficientnet_b3; goes on from its last checkpoint.

    Classes of three pictures each teach random weights nothing: with them alone every picture came to lie in one place.
    So a re-listing first learns to find the vector that `teacher` gives its original among those of the batch
    (InfoNCE), and ArcFace's centres start where the classes then lie. `teacher` takes pictures of `side` pixels, uint8
    [n, 3, side, side], and gives unit vectors [n, 128].
    """
    recipe, out = recipe_of(profile), profile.work / "image" / "efficientnet_b3"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(profile.seed)
    pictures = Pictures.read(profile.data("encoder"), math.ceil(recipe.picture * 1.1)).subset(spared=False)
    # Variants of a product may show one picture, so a class is a family.
    classes = pictures.codes("family")
    model = EfficientNet().to(memory_format=_LAYOUT)
    bank = overlays(256, recipe.picture, np.random.default_rng(profile.seed))

    def seen(rows: Tensor, step: int) -> Tensor:
        chance = torch.Generator().manual_seed(profile.seed * 100_003 + step)
        return relisted(pictures.pixels[rows], recipe.picture, bank, chance).contiguous(memory_format=_LAYOUT)

    taught = teacher(Pictures.read(profile.data("encoder"), side).subset(spared=False).pixels)

    def imitated(rows: Tensor, step: int, progress: float) -> Tensor:
        both = torch.cat([model(seen(rows, step)), taught[rows]])
        return info_nce(both, classes[rows].repeat(2), recipe.temperature)

    orders = [shuffled(len(classes), epochs, profile.seed) for epochs in (recipe.imitate_epochs, recipe.epochs)]
    first = nn.ModuleDict({"encoder": model})
    history = _descend("imitate", first, imitated, orders[0], recipe.imitate_rate, recipe, out)
    arcface = ArcFace(_centres(model, pictures.pixels, classes, recipe), recipe.scale)

    def angular(rows: Tensor, step: int, progress: float) -> Tensor:
        return arcface(model(seen(rows, step)), classes[rows], recipe.margin * min(1.0, 2 * progress))

    parts = nn.ModuleDict({"encoder": model, "arcface": arcface})
    history += _descend("arcface", parts, angular, orders[1], recipe.rate, recipe, out)
    (out / "history.json").write_text(json.dumps(history))
    write_metrics(out, {"pictures": len(classes), "classes": int(classes.max()) + 1, **(history or [{}])[-1]})
    torch.save(model.state_dict(), out / WEIGHTS)
    for checkpoint in out.glob("*.ckpt"):
        checkpoint.unlink()


History = list[dict[str, Any]]


def _descend(
    kind: str,
    parts: nn.ModuleDict,
    loss_of: Callable[[Tensor, int, float], Tensor],
    order: np.ndarray,
    rate: float,
    recipe: Recipe,
    out: Path,
) -> History:
    """Train `parts` in place on the pictures of `order`, a batch a step, and return how the loss fell.

    The checkpoint of a kind that is done stays, so that an interrupted stage takes up where it was.
    """
    optimiser = torch.optim.AdamW(parts.parameters(), lr=rate, weight_decay=recipe.weight_decay)
    checkpoint = Checkpoint(out / f"{kind}.ckpt", parts=parts, optimiser=optimiser)
    held = checkpoint.resume()
    history: History = held.get("history", [])
    steps = len(order) // recipe.batch
    parts.train()
    losses: list[float] = []
    started = time.monotonic()
    for step in range(held.get("step", 0), steps):
        optimiser.param_groups[0]["lr"] = rate * warm_then_cosine(step / steps, recipe.warmup)
        rows = torch.from_numpy(order[step * recipe.batch : (step + 1) * recipe.batch])
        loss = loss_of(rows, step, step / steps)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 2.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            history.append({"kind": kind, "step": step + 1, "loss": round(float(np.mean(losses)), 4)})
            log.info("efficientnet_b3", of=steps, seconds=round(time.monotonic() - started), **history[-1])
            checkpoint.save(step=step + 1, history=history)
            losses = []
    return history


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _centres(model: EfficientNet, pixels: Tensor, classes: Tensor, recipe: Recipe) -> Tensor:
    """Mean vector of each class, float32 [classes, 128], of its pictures as they are."""
    model.eval()
    centres = torch.zeros(int(classes.max()) + 1, DIM)
    for piece, numbers in zip(pixels.split(recipe.batch), classes.split(recipe.batch), strict=True):
        small = F.interpolate(piece.float(), size=recipe.picture, mode="bilinear", antialias=True)
        centres.index_add_(0, numbers, model(small.contiguous(memory_format=_LAYOUT)))
    return centres.clone()
