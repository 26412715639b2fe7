"""Train the image encoder: `python -m sosie.training.image --images DIR --out models/image`.

Three stages, one after the other, on the CPU: masked auto-encoding on structured patches; then the same structured
patches of two simulated re-listings of a picture are pulled together against all others of the batch (InfoNCE, after
van den Oord et al., arXiv:1807.03748, in the symmetric form of SimCLR, arXiv:2002.05709); then the same with whole
pictures, as the encoder is used later. A checkpoint after every epoch: a run that was stopped goes on from there.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl
import structlog
import torch
from torch import Tensor
from torch.nn import functional as F

from sosie.training import picture_data
from sosie.training.picture_data import Pictures
from sosie.training.picture_noise import overlays, relisted
from sosie.training.vision import Encoder, Reconstruction, Shape, structured_choice

log = structlog.get_logger()


@dataclass(frozen=True)
class Recipe:
    """Every knob. Times out of mind: `*_epochs` over the training pictures, learning rates of AdamW."""

    seed: int = 11
    picture: int = 144
    patch: int = 16
    width: int = 192
    depth: int = 6
    heads: int = 3
    stored_side: int = 160
    held_out: int = 1_000
    reconstruct_epochs: int = 5
    reconstruct_batch: int = 64
    reconstruct_rate: float = 6e-4
    contrast_epochs: int = 7
    whole_epochs: int = 3
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
        spared = picture_data.held_out(pictures.products, recipe.held_out)
        is_spared = pictures.products["id"].is_in(spared.implode())
        self.seen = pictures.subset((~is_spared).arg_true())
        self.unseen = pictures.subset(is_spared.arg_true())
        torch.manual_seed(recipe.seed)
        sample = self.seen.pixels[::8].float()
        mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
        self.encoder = Encoder(recipe.shape, tuple(mean.tolist()), tuple(std.tolist()))
        self.decoder = Reconstruction(recipe.shape)
        self.bank = overlays(256, recipe.picture, np.random.default_rng(recipe.seed))
        self.done = 0
        self.history: list[dict[str, float | str]] = []

    @property
    def checkpoint(self) -> Path:
        return self.work / "last.pt"

    def resume(self) -> None:
        """Take up the last checkpoint, if it is of the same recipe's shape."""
        if not self.checkpoint.exists():
            return
        held = torch.load(self.checkpoint, weights_only=True)
        self.encoder.load_state_dict(held["encoder"])
        self.decoder.load_state_dict(held["decoder"])
        self.done, self.history = held["done"], held["history"]
        self._optimiser_state = held["optimiser"]

    def run(self, until: int | None = None) -> None:
        """Train up to the end of the recipe, or to `until` epochs in all."""
        stages = self.recipe.stages()
        optimiser, stage = None, ""
        for epoch in range(self.done, len(stages) if until is None else until):
            kind = "reconstruct" if stages[epoch] == "reconstruct" else "contrast"
            if kind != stage:
                optimiser, stage = self._optimiser(kind), kind
                if self.done and epoch == self.done and (held := getattr(self, "_optimiser_state", None)):
                    if held["kind"] == kind:
                        optimiser.load_state_dict(held["state"])
            assert optimiser is not None
            started = time.monotonic()
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000 + epoch)
            loss = self._epoch(stages[epoch], epoch, optimiser, generator)
            entry: dict[str, float | str] = {"stage": stages[epoch], "epoch": epoch + 1, "loss": round(loss, 4)}
            entry["seconds"] = round(time.monotonic() - started, 1)
            if kind == "contrast":
                entry["recall_at_1"] = self.quick_recall()
            self.history.append(entry)
            self.done = epoch + 1
            log.info("epoch", **entry)
            self.work.mkdir(parents=True, exist_ok=True)
            held = {"kind": kind, "state": optimiser.state_dict()}
            partial = self.checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "encoder": self.encoder.state_dict(),
                    "decoder": self.decoder.state_dict(),
                    "optimiser": held,
                    "done": self.done,
                    "history": self.history,
                },
                partial,
            )
            partial.rename(self.checkpoint)

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
            with torch.autocast("cpu", dtype=torch.bfloat16):
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
        return sum(losses) / len(losses)

    def _batches(self, stage: str, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers. For contrast, runs of products of one category side by side, so that negatives are hard."""
        n = len(self.seen.pixels)
        if stage == "reconstruct":
            order, size = torch.randperm(n, generator=generator), self.recipe.reconstruct_batch
        else:
            shuffled = torch.rand(n, generator=generator).numpy()
            by_category = self.seen.products.select(
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
        twins = torch.from_numpy(self.seen.products["twin"].to_numpy())[rows]
        pixels = torch.cat([self.seen.pixels[rows], self.seen.pixels[twins]])
        with torch.autocast("cpu", enabled=False):
            pixels = relisted(pixels, recipe.picture, self.bank, generator)
        choice = None if whole else structured_choice(len(pixels), recipe.shape, generator)
        vectors = self.encoder(pixels, choice)
        with torch.autocast("cpu", enabled=False):
            groups = self.seen.groups()[rows].repeat(2)
            return info_nce(vectors.float(), groups, recipe.temperature)

    @torch.inference_mode()
    def vectors(self, pixels: Tensor) -> Tensor:
        """[n, dim] of pictures [n, 3, s, s], float or uint8, at the encoder's own size."""
        self.encoder.eval()
        return torch.cat([self.encoder(piece.float()) for piece in pixels.split(64)])

    def quick_recall(self) -> float:
        """Share of unseen products whose simulated re-listing finds its own original first."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        first = (self.unseen.products["id"].is_first_distinct()).arg_true().to_numpy().astype(np.int64)
        pixels = self.unseen.pixels[torch.from_numpy(first)]
        side = self.recipe.picture
        originals = F.interpolate(pixels.float(), size=side, mode="bilinear", antialias=True)
        copies = relisted(pixels, side, self.bank, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            held, asked = self.vectors(originals).float(), self.vectors(copies).float()
        hits = (asked @ held.T).argmax(1) == torch.arange(len(pixels))
        return round(hits.float().mean().item(), 4)


def info_nce(vectors: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE over two views stacked [2n, dim]; rows of one group are never negatives of each other."""
    n = len(vectors) // 2
    logits = vectors @ vectors.T / temperature
    own = torch.arange(2 * n).roll(n)
    same = groups.unsqueeze(0) == groups.unsqueeze(1)
    same[torch.arange(2 * n), own] = False
    return F.cross_entropy(logits.masked_fill(same, -1e4), own)


def _crop(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random window of the pictures, one offset a batch, half of the batches mirrored."""
    room = pixels.shape[-1] - side + 1
    y, x = torch.randint(room, (2,), generator=generator).tolist()
    window = pixels[:, :, y : y + side, x : x + side].float()
    return window.flip(3) if torch.rand((), generator=generator) < 0.5 else window


def main(arguments: list[str] | None = None) -> None:
    """The command line: paths and threads, and a flag for every knob of `Recipe`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--products", type=Path, help="CSV of products; default: products.csv beside the folder")
    parser.add_argument("--out", type=Path, default=Path("models/image"))
    parser.add_argument("--work", type=Path, default=Path("var/training/image"), help="checkpoints")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--until", type=int, help="stop after this many epochs in all")
    for knob in fields(Recipe):
        parser.add_argument(f"--{knob.name.replace('_', '-')}", type=type(knob.default), default=knob.default)
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    recipe = Recipe(**{knob.name: getattr(given, knob.name) for knob in fields(Recipe)})
    log.info("recipe", **asdict(recipe))
    pictures = picture_data.read(
        given.products or given.images.parent / "products.csv", given.images, recipe.stored_side
    )
    trainer = Trainer(recipe, pictures, given.work)
    log.info("pictures", seen=len(trainer.seen.pixels), unseen=len(trainer.unseen.pixels))
    trainer.resume()
    trainer.run(given.until)


if __name__ == "__main__":
    main()
