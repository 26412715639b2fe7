"""A marketplace drawn at random, with planted duplicates, for benchmarks that look at the pipeline and not at models.

Each listing sells one product, of one kind (about 150 listings each, so that neighbour lists are full). Titles of a
product share its brand, noun, model code and capacity, in other order and among a seller's own words; some leave the
code out. Vectors are simulated: a unit vector of the kind, one of the product and one of the very title or picture,
weighed so that the cosine of two titles is about 0.80 within a product and 0.40 within a kind. Everything else (lake,
index, features, decider, clusters) is the product's own.
"""

import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from sosie.pipeline.run import HOUR
from sosie.settings import Settings
from sosie.tables import DIM

embed = importlib.import_module("sosie.pipeline.embed")  # the step of that name hides its module
START = datetime(2026, 1, 5, tzinfo=UTC)
A_KIND = 150
"""Listings of a kind, whatever the catalogue's size."""
KIND, PRODUCT, OWN = 0.62, 0.62, 0.44
"""Weights of a vector's parts."""
SENT = {
    "listing_id": pl.String, "seller_id": pl.String, "title": pl.String, "brand": pl.String, "category": pl.String,
    "gtin": pl.String, "price": pl.Float64, "currency": pl.String, "image_uri": pl.String, "is_deleted": pl.Boolean,
    "updated_at": pl.String,
}  # fmt: skip
Sent = dict[str, Any]
"""A row of a landing file."""
Turn = npt.NDArray[np.float32]
"""A rotation of all vectors, [128, 128]."""


def hour_id(hour: int) -> str:
    return (START + timedelta(hours=hour)).strftime(HOUR)


def _unit(*seed: object) -> npt.NDArray[np.float32]:
    """A unit vector that follows from its seed."""
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest)).normal(size=DIM)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def _words(rng: np.random.Generator, number: int) -> list[str]:
    syllables = [start + vowel for start in (*"bcdfglmnprstvz", "br", "st", "tr") for vowel in "aeiou"]
    return ["".join(rng.choice(syllables, rng.integers(2, 4))) for _ in range(number)]


@dataclass
class Market:
    """A landing folder that is filled hour by hour, and what a catalogue must hold after it.

    `truth` is the last row of each listing, `sells` its product. `kinds` bounds how many kinds there are.
    """

    settings: Settings
    kinds: int
    rng: np.random.Generator
    pictures: float = 0.3
    truth: dict[str, Sent] = field(default_factory=dict)
    sells: dict[str, int] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)
    _about: dict[str, tuple[int, Turn | None]] = field(default_factory=dict)
    _unsold: list[int] = field(default_factory=list)
    _products: int = 0

    def __post_init__(self) -> None:
        words = np.random.default_rng(11)
        self._brands, self._nouns, self._fillers = _words(words, 2_000), _words(words, 1_500), _words(words, 300)

    # What a feed says

    def new(self, at: datetime) -> Sent:
        """A row of a listing that was never there: of a product that others sell too in about six of ten cases."""
        if not self._unsold:
            for _ in range(64):
                self._unsold += [self._products] * int(self.rng.choice([1, 2, 3, 4, 6], p=[0.62, 0.2, 0.1, 0.06, 0.02]))
                self._products += 1
            self.rng.shuffle(self._unsold)
        product, listing = self._unsold.pop(), f"L{len(self.sells):07d}"
        self.sells[listing] = product
        return {
            "listing_id": listing, "seller_id": f"S{self.rng.integers(500)}", "title": self.title(product),
            "brand": self._brands[product % 2_000], "category": f"kind {product % self.kinds}", "gtin": None,
            "price": self.price(product), "currency": "EUR", "image_uri": self.picture(product), "is_deleted": False,
            "updated_at": at.isoformat(),
        }  # fmt: skip

    def title(self, product: int) -> str:
        rng, kind = self.rng, product % self.kinds
        code = f"{chr(65 + product % 26)}{chr(65 + product // 26 % 26)}-{1000 + product * 37 % 89_000}"
        parts = [
            self._brands[product % 2_000], self._nouns[kind % 1_500], self._nouns[kind * 7 % 1_500],
            f"{100 * (1 + product % 17)} ml", *([] if rng.random() < 0.15 else [code]),
            *rng.choice(self._fillers, rng.integers(1, 4)),
        ]  # fmt: skip
        if rng.random() < 0.5:
            rng.shuffle(parts)
        title = " ".join(parts)
        self.tell(title, product)
        return title

    def tell(self, title: str, product: int, turn: Turn | None = None) -> None:
        """Know which product a title is of, and how vectors of its part of the catalogue are turned."""
        self._about.setdefault(title, (product, turn))

    def price(self, product: int) -> float:
        return round(float(10 + product % 190) * self.rng.uniform(0.92, 1.08), 2)

    def picture(self, product: int) -> str | None:
        """One of two pictures of the product, made when it is first asked for; None for most listings."""
        if self.rng.random() >= self.pictures:
            return None
        uri = f"pictures/{product}-{self.rng.integers(2)}.png"
        file = Path(self.settings.pictures_root) / uri
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            blocks = np.random.default_rng(product).integers(0, 256, (6, 6, 3))
            shade = blocks * (0.9 if uri.endswith("1.png") else 1.0)
            Image.fromarray(np.kron(shade, np.ones((16, 16, 1))).astype(np.uint8)).save(file)
        return uri

    # What lands, and what is true then

    def land(self, hour: int, rows: list[Sent], name: str = "rows") -> None:
        if rows:
            folder = self.settings.landing / hour_id(hour)
            folder.mkdir(parents=True, exist_ok=True)
            frame = pl.DataFrame(rows, schema=SENT)
            frame.with_columns(pl.col("updated_at").str.to_datetime(time_zone="UTC")).write_parquet(
                folder / f"{name}.parquet"
            )

    def take(self, rows: Iterable[Sent]) -> None:
        """Late rows don't count; nor does a row that says a listing is deleted which is."""
        for row in rows:
            held = self.truth.get(row["listing_id"])
            if held is None or row["updated_at"] > held["updated_at"]:
                self.truth[row["listing_id"]] = row
        self.live = [one for one, row in self.truth.items() if not row["is_deleted"]]

    # In the place of the encoders

    def encode(self, settings: Settings, modality: str, contents: pl.DataFrame) -> npt.NDArray[np.float32]:
        """Vectors of contents, float32 [n, 128]: what `pipeline.embed` asks its models for."""
        if modality == "text":
            asked = [(*self._about[title], title) for title in contents["title"]]
        else:
            asked = [(int(Path(uri).stem.split("-")[0]), None, uri) for uri in contents["image_uri"]]
        drawn = np.stack([self._vector(modality, *one) for one in asked])
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)

    def _vector(self, modality: str, product: int, turn: Turn | None, own: str) -> npt.NDArray[np.float32]:
        kind, same = _unit(modality, "kind", product % self.kinds), _unit(modality, "product", product)
        drawn = KIND * kind + PRODUCT * same + OWN * _unit(modality, own)
        return np.asarray(drawn if turn is None else drawn @ turn)

    def __enter__(self) -> "Market":
        self._encoder = embed.encode
        embed.encode = self.encode
        return self

    def __exit__(self, *_: object) -> None:
        embed.encode = self._encoder
