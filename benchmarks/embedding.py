"""Titles and pictures to vectors: the product's encoders beside the plain loop over the same weights in torch.

    python benchmarks/embedding.py [--size small|standard|large] [--json FILE]
    SOSIE_TRAINING=FOLDER python benchmarks/embedding.py      # weights of a training profile, as in var/training/full

Plain is what one writes first: batches of 32 in the order of arrival, float32, padded to the longest title of the batch
(and, as a second peer, to the most tokens that the model takes) by transformers' tokenizer; a picture decoded whole by
Pillow, resized and turned into a tensor by torchvision, one after the other. Both sides have every core.

Titles are Shopee's, pictures those of data/fashion, else a simulated marketplace's. Pictures there have 224 px, so they
are also enlarged to 1,000 px, as sellers send them. `parity` is the lowest cosine between the two sides' vectors. Where
no training folder with all of that is found, torch gets the same architecture with random weights: times stand, parity
is left out.
"""

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch.nn.functional import linear, normalize

from sosie.bench import Figure, Size, against, interleaved, script, within
from sosie.embedding.image import ImageEncoder
from sosie.embedding.text import TOKENIZER, TextEncoder
from sosie.evaluate import datasets
from sosie.evaluate.vectors import Vectors
from sosie.listings import clean_titles
from sosie.settings import PROJECT, settings
from sosie.tables import DIM
from sosie.training import profile
from sosie.training.image.pretrain import recipe_of
from sosie.training.image.vit import Encoder
from sosie.training.text import base
from sosie.training.text.model import TitleEncoder
from sosie.training.torchvision_ops import declare_missing_ops

TITLES: dict[Size, int] = {"small": 64, "standard": 1_000, "large": 10_000}
PICTURES: dict[Size, int] = {"small": 16, "standard": 128, "large": 1_000}
TRIES: dict[Size, int] = {"small": 1, "standard": 5, "large": 5}
BATCH, SELLERS_SIDE = 32, 1_000
TEXT_GOAL, PICTURE_GOAL, PARITY = 6.0, 4.0, 0.99
BERT, MAE = "text/bert/encoder.pt", "image/mae/last.pt"
NEEDED = (
    "models/text/encoder.onnx",
    "models/image/encoder.onnx",
    BERT,
    MAE,
    "reduction/text-bert.npz",
    "reduction/image-mae.npz",
)


@dataclass(frozen=True)
class Trained:
    """A training profile's folder, or none: its weights in torch, and its models as they are served."""

    folder: Path | None

    @classmethod
    def find(cls) -> "Trained":
        folder = Path(os.environ.get("SOSIE_TRAINING") or PROJECT / "var" / "training" / "full")
        return cls(folder if all((folder / name).exists() for name in NEEDED) else None)

    def model(self, modality: str) -> Path:
        return self.folder / "models" / modality if self.folder else settings().encoder(modality)

    def weights(self, name: str) -> Any:
        return torch.load(self.folder / name, weights_only=True) if self.folder else None

    def head(self, name: str, width: int) -> torch.Tensor:
        """float32 [128, width]."""
        if self.folder is None:
            return torch.randn(DIM, width)
        with np.load(self.folder / "reduction" / f"{name}.npz") as held:
            return torch.from_numpy(held["head"])


def measure(size: Size) -> list[Figure]:
    declare_missing_ops()
    trained = Trained.find()
    with tempfile.TemporaryDirectory(prefix="sosie-embedding-") as folder:
        titles, pictures = drawn(Path(folder), TITLES[size], PICTURES[size])
    note = "" if trained.folder else "torch has random weights of the same architecture"
    figures = of_titles(trained, titles, TRIES[size], note)
    plain, encoder = PlainPictures(trained), ImageEncoder.load(trained.model("image"))
    for side in (SELLERS_SIDE, None):
        figures += of_pictures(plain, encoder, [resized(data, side) for data in pictures], TRIES[size], note)
    return figures


def of_titles(trained: Trained, titles: list[str], tries: int, note: str) -> list[Figure]:
    plain, encoder = PlainTitles(trained), TextEncoder.load(trained.model("text"))
    batch = settings().embedding.batch_size
    light = TextEncoder.load(PROJECT / "models" / "light" / "text")
    taken = interleaved(tries, {
        "ours": lambda: encoder.encode(titles, batch),
        "light": lambda: light.encode(titles, batch),
        "longest": lambda: plain.encode(titles, "longest"),
        "max_length": lambda: plain.encode(titles, "max_length"),
    })  # fmt: skip
    ours, longest, whole = (taken[way] for way in ("ours", "longest", "max_length"))
    peer = "transformers, float32, padded to the "
    found = [
        against("titles", len(titles), "titles", ours, f"{peer}batch's longest", longest, TEXT_GOAL, note),
        against("titles", len(titles), "titles", ours, f"{peer}model's most", whole, note=note),
        against("titles, light models", len(titles), "titles", taken["light"], "the default encoder", ours),
    ]
    if trained.folder:
        found.append(parity("titles, parity", encoder.encode(titles, batch), plain.encode(titles, "longest")))
    return found


def of_pictures(
    plain: "PlainPictures", encoder: ImageEncoder, pictures: list[bytes], tries: int, note: str
) -> list[Figure]:
    batch = settings().embedding.batch_size
    taken = interleaved(
        tries, {"ours": lambda: encoder.encode(pictures, batch), "plain": lambda: plain.encode(pictures)}
    )
    side = max(Image.open(io.BytesIO(pictures[0])).size)
    name, peer = f"pictures of {side:,} px", "Pillow, torchvision, torch, float32"
    found = [against(name, len(pictures), "pictures", taken["ours"], peer, taken["plain"], PICTURE_GOAL, note)]
    if plain.trained.folder:
        found.append(parity(f"{name}, parity", encoder.encode(pictures, batch), plain.encode(pictures)))
    return found


def parity(name: str, ours: Vectors, theirs: Vectors) -> Figure:
    cosines = (ours * theirs).sum(1)
    note = f"lowest of {len(cosines):,}; mean {cosines.mean():.4f}"
    return within(name, float(cosines.min()), "cosine", PARITY, at_most=False, note=note)


class PlainTitles:
    """The trained title encoder in torch, with transformers' tokenizer."""

    def __init__(self, trained: Trained) -> None:
        from transformers import PreTrainedTokenizerFast

        knobs = profile.load("full").text
        self.most = knobs.max_tokens
        file = trained.model("text") / TOKENIZER
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(file), pad_token="[PAD]", model_max_length=self.most
        )
        bert, _ = base.load(base.PACKAGED)
        bert.set_input_embeddings(torch.nn.Embedding(len(self.tokenizer), bert.config.hidden_size))
        bert.set_attn_implementation("sdpa")
        self.model = TitleEncoder(bert, knobs.layers)
        if trained.folder:
            self.model.load_state_dict(trained.weights(BERT))
        self.model.eval()
        self.head = trained.head("text-bert", self.model.head.in_features)

    def encode(self, titles: list[str], padding: str) -> Vectors:
        found = []
        with torch.inference_mode():
            for start in range(0, len(titles), BATCH):
                given = self.tokenizer(
                    titles[start : start + BATCH], padding=padding, truncation=True, return_tensors="pt"
                )
                pooled = self.model.pooled(given["input_ids"], given["attention_mask"])
                found.append(normalize(linear(pooled, self.head), dim=1).numpy())
        return np.concatenate(found)


class PlainPictures:
    """The trained picture encoder in torch, with torchvision's transforms."""

    def __init__(self, trained: Trained) -> None:
        from torchvision import transforms

        shape = recipe_of(profile.load("full")).shape
        self.trained = trained
        self.model = Encoder(shape, (0.0,) * 3, (1.0,) * 3)
        if trained.folder:
            self.model.load_state_dict(trained.weights(MAE)["encoder"])
        self.model.eval()
        self.head = trained.head("image-mae", self.model.head.in_features)
        self.prepare = transforms.Compose([transforms.Resize((shape.picture, shape.picture)), transforms.PILToTensor()])

    def encode(self, pictures: list[bytes]) -> Vectors:
        found = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures[start : start + BATCH]]
                pixels = torch.stack([self.prepare(image) for image in opened]).float()
                found.append(normalize(linear(self.model.pooled(pixels), self.head), dim=1).numpy())
        return np.concatenate(found)


def drawn(folder: Path, titles: int, pictures: int) -> tuple[list[str], list[bytes]]:
    """Different titles, and files of different pictures."""
    from sosie.simulate import Marketplace, write

    rng, shopee, fashion = np.random.default_rng(7), PROJECT / "data" / "shopee", PROJECT / "data" / "fashion"
    if not (shopee.is_dir() and fashion.is_dir()):
        write(folder, Marketplace(listings=max(titles, pictures), hours=1))
    listings = datasets.load(shopee if shopee.is_dir() else folder).listings
    known = listings.select(clean_titles(pl.col("title")))["title"].drop_nulls().unique(maintain_order=True)
    files = sorted((fashion / "images").glob("*.jpg")) or sorted((folder / "landing").rglob("*.jpg"))
    chosen = rng.choice(len(files), min(pictures, len(files)), replace=False)
    return known.sample(min(titles, len(known)), seed=7).to_list(), [files[place].read_bytes() for place in chosen]


def resized(data: bytes, side: int | None) -> bytes:
    """The picture as JPEG with its longer side so long, or as it is."""
    if side is None:
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / max(image.size)
    held = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC).save(
        held, "JPEG", quality=90
    )
    return held.getvalue()


if __name__ == "__main__":
    script(measure, __doc__)
