"""The three stages that train the image encoder, one epoch at a time, with a checkpoint after each."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sosie.errors import ModelError
from sosie.training.image.data import Pictures
from sosie.training.image.noise import overlays, relisted
from sosie.training.image.vit import Encoder, Reconstruction, Shape, structured_choice
from sosie.training.losses import info_nce

log = structlog.get_logger()


@dataclass(frozen=True)
class Recipe:
    """Every knob: epochs and AdamW's peak learning rate of each stage, sizes in pixels, batches in pictures."""

    seed: int = 11
    picture: int = 144
    patch: int = 16
    width: int = 192
    depth: int = 6
    heads: int = 3
    stored_side: int = 160
    reconstruct_epochs: int = 5
    reconstruct_batch: int = 64
    reconstruct_rate: float = 6e-4
    contrast_epochs: int = 5
    whole_epochs: int = 2
    contrast_batch: int = 128
    contrast_rate: float = 6e-4
    temperature: float = 0.07
    weight_decay: float = 0.05
    neighbours: int = 32

    @property
    def shape(self) -> Shape:
        return Shape(self.picture, self.patch, self.width, self.depth, self.heads)

    def stages(self) -> list[str]:
        """The stage of each epoch."""
        return (
            ["reconstruct"] * self.reconstruct_epochs
            + ["contrast"] * self.contrast_epochs
            + ["whole"] * self.whole_epochs
        )


class Trainer:
    """Holds the weights and the pictures; `run` trains what is left of the recipe."""

    def __init__(self, recipe: Recipe, pictures: Pictures, work: Path) -> None:
        self.recipe, self.work = recipe, work
        self.seen, self.unseen = pictures.subset(spared=False), pictures.subset(spared=True)
        torch.manual_seed(recipe.seed)
        sample = self.seen.pixels[::8].float()
        mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
        self.encoder = Encoder(recipe.shape, tuple(mean.tolist()), tuple(std.tolist()))
        self.decoder = Reconstruction(recipe.shape)
        self.bank = overlays(256, recipe.picture, np.random.default_rng(recipe.seed))
        self.done = 0
        self._held: dict[str, Any] = {}  # the optimiser of the checkpoint
        self.history: list[dict[str, float | str]] = []

    @property
    def checkpoint(self) -> Path:
        return self.work / "last.pt"

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one. Raises `ModelError` where it is of another shape."""
        if not self.checkpoint.exists():
            return
        held = torch.load(self.checkpoint, weights_only=True)
        if held["shape"] != asdict(self.recipe.shape):
            raise ModelError(
                f"{self.checkpoint} is of another shape ({held['shape']}); remove its folder, then train again."
            )
        self.encoder.load_state_dict(held["encoder"])
        self.decoder.load_state_dict(held["decoder"])
        self.done, self.history = held["done"], held["history"]
        self._held = held["optimiser"]

    def run(self, until: int | None = None) -> None:
        """Train up to the end of the recipe, or to `until` epochs in all."""
        stages = self.recipe.stages()
        optimiser, stage = None, ""
        for epoch in range(self.done, len(stages) if until is None else until):
            kind = "reconstruct" if stages[epoch] == "reconstruct" else "contrast"
            if kind != stage:
                optimiser, stage = self._optimiser(kind), kind
                if self._held.get("kind") == kind:
                    optimiser.load_state_dict(self._held.pop("state"))
                self._held = {}
            assert optimiser is not None
            started = time.monotonic()
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000 + epoch)
            loss = self._epoch(stages[epoch], epoch, optimiser, generator)
            entry: dict[str, float | str] = {"stage": stages[epoch], "epoch": epoch + 1, "loss": round(loss, 4)}
            entry["last_rate"] = round(optimiser.param_groups[0]["lr"], 7)
            entry["seconds"] = round(time.monotonic() - started, 1)
            if kind == "contrast":
                entry["recall_at_1"] = self.quick_recall()
            self.history.append(entry)
            self.done = epoch + 1
            log.info("epoch", **entry)
            self._save({"kind": kind, "state": optimiser.state_dict()})

    def _save(self, optimiser: dict[str, Any]) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        state = {
            "shape": asdict(self.recipe.shape),
            "encoder": self.encoder.state_dict(),
            "decoder": self.decoder.state_dict(),
            "optimiser": optimiser,
            "done": self.done,
            "history": self.history,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _optimiser(self, kind: str) -> torch.optim.AdamW:
        recipe = self.recipe
        weights = [*self.encoder.parameters(), *(self.decoder.parameters() if kind == "reconstruct" else ())]
        rate = recipe.reconstruct_rate if kind == "reconstruct" else recipe.contrast_rate
        return torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)

    def _rate(self, epoch: int, share: float) -> float:
        """Learning rate: warm up over the first epoch of a kind, then a cosine to a hundredth of it."""
        recipe = self.recipe
        if epoch < recipe.reconstruct_epochs:
            peak, place, length = recipe.reconstruct_rate, epoch + share, recipe.reconstruct_epochs
        else:
            peak, length = recipe.contrast_rate, recipe.contrast_epochs + recipe.whole_epochs
            place = epoch - recipe.reconstruct_epochs + share
        return peak * min(place + 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * place / length)))

    def _epoch(self, stage: str, epoch: int, optimiser: torch.optim.AdamW, generator: torch.Generator) -> float:
        batches = list(self._batches(stage, generator))
        losses = []
        for step, rows in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = self._rate(epoch, step / len(batches))
            # For so few tokens the plain attention is faster than the fused one, most of all backwards.
            with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                if stage == "reconstruct":
                    loss = self._reconstruction(rows, generator)
                else:
                    loss = self._contrast(rows, generator, whole=stage == "whole")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            if step % 20 == 0:
                log.info("step", stage=stage, epoch=epoch + 1, step=step, of=len(batches), loss=round(loss.item(), 4))
        return float(np.mean(losses))

    def _batches(self, stage: str, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers. For contrast, runs of products of one category side by side, so that negatives are hard."""
        n = len(self.seen.pixels)
        if stage == "reconstruct":
            order, size = torch.randperm(n, generator=generator), self.recipe.reconstruct_batch
        else:
            shuffled = torch.rand(n, generator=generator).numpy()
            by_category = self.seen.table.select(
                place=pl.struct("category", pl.Series("r", shuffled)).rank("ordinal").cast(pl.Int64) - 1
            )["place"].to_numpy()
            order = torch.from_numpy(np.argsort(by_category))
            run, size = self.recipe.neighbours, self.recipe.contrast_batch
            runs = order[: n // run * run].view(-1, run)
            order = runs[torch.randperm(len(runs), generator=generator)].flatten()
        yield from order[: n // size * size].split(size)

    def _reconstruction(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        pixels = _crop(self.seen.pixels[rows], self.recipe.picture, generator)
        return self.decoder.loss(self.encoder, pixels, structured_choice(len(rows), self.recipe.shape, generator))

    def _contrast(self, rows: Tensor, generator: torch.Generator, *, whole: bool) -> Tensor:
        recipe = self.recipe
        twins = self.seen.twins(generator)[rows]
        pixels = torch.cat([self.seen.pixels[rows], self.seen.pixels[twins]])
        with torch.autocast("cpu", enabled=False):
            pixels = relisted(pixels, recipe.picture, self.bank, generator)
        choice = None if whole else structured_choice(len(pixels), recipe.shape, generator)
        vectors = self.encoder(pixels, choice)
        with torch.autocast("cpu", enabled=False):
            groups = self.seen.codes("family")[rows].repeat(2)
            return info_nce(vectors.float(), groups, recipe.temperature)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def vectors(self, pixels: Tensor) -> Tensor:
        """[n, dim] of pictures [n, 3, s, s], float or uint8, at the encoder's own size."""
        self.encoder.eval()
        return torch.cat([self.encoder(piece.float()) for piece in pixels.split(64)])

    def quick_recall(self) -> float:
        """Share of unseen products whose simulated re-listing finds its own original first."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        first = self.unseen.table["family"].is_first_distinct().arg_true().to_numpy().astype(np.int64)
        pixels = self.unseen.pixels[torch.from_numpy(first)]
        side = self.recipe.picture
        originals = F.interpolate(pixels.float(), size=side, mode="bilinear", antialias=True)
        copies = relisted(pixels, side, self.bank, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            held, asked = self.vectors(originals).float(), self.vectors(copies).float()
        hits = (asked @ held.T).argmax(1) == torch.arange(len(pixels))
        return round(float(hits.float().mean()), 4)


def _crop(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random window of the pictures, one offset a batch, half of the batches mirrored."""
    room = pixels.shape[-1] - side + 1
    y, x = torch.randint(room, (2,), generator=generator).tolist()
    window = pixels[:, :, y : y + side, x : x + side].float()
    return window.flip(3) if torch.rand((), generator=generator) < 0.5 else window
