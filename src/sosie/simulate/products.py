"""A product and its pictures. Two listings are duplicates if, and only if, their product is the same."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from sosie.simulate.render import Drawing

__all__ = ["Drawing", "Photo", "Product", "Shot", "bundle_of", "gtin", "identity"]


class Shot(Protocol):
    """A picture of a product before any seller touched it: a drawing or a photo."""

    def render(self) -> Image.Image: ...


@dataclass(frozen=True)
class Photo:
    """A picture file, maybe with its main colour turned to another `hue` (0–255), maybe `count` times side by side."""

    path: Path
    hue: tuple[int, int] | None = None
    count: int = 1

    def render(self) -> Image.Image:
        """RGB picture in the file's own size."""
        with Image.open(self.path) as held:
            image = held.convert("RGB")
        if self.hue is not None:
            image = turn_hue(image, *self.hue)
        if self.count > 1:
            image = _side_by_side(image, self.count)
        return image


@dataclass(frozen=True)
class Product:
    """One product, before any seller described it.

    Attributes:
        family_id: shared by the variants of one thing, which are different products.
        variant: base, size, colour, model or bundle: in what this one differs from its family's first.
        protected: words of the title that tell this product from its family.
        price: in US dollars.
        facts: sentences about it, for descriptions.
        views: none, one picture, or two that show it from two sides.
    """

    product_id: str
    family_id: str
    variant: str
    title: str
    brand: str | None
    category: str
    price: float
    gtin: str
    protected: tuple[str, ...]
    facts: tuple[str, ...]
    views: tuple[Shot, ...]


def identity(*parts: object, length: int = 12) -> str:
    """Hex digits that say nothing about what they were made of."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:length]


def gtin(*parts: object) -> str:
    """A GTIN-13 with a correct check digit, in the range that GS1 keeps for use inside one company (prefix 2)."""
    digits = "2" + f"{int(identity(*parts, length=15), 16) % 10**11:011d}"
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return digits + str(-total % 10)


def bundle_of(product: Product, seed: int, *, shows_one: bool) -> Product:
    """Two of `product` as a product of its own. `shows_one`: its pictures show a single one, as lazy sellers do."""
    views = product.views if shows_one else tuple(_doubled(shot) for shot in product.views[:1]) + product.views[1:2]
    return replace(
        product,
        product_id=identity(seed, product.product_id, "bundle"),
        variant="bundle",
        title=f"{product.title} 2 pcs",
        price=round(product.price * 1.85, 2),
        gtin=gtin(seed, product.product_id, "bundle"),
        facts=("Set of two.", *product.facts),
        views=views,
    )


def _doubled(shot: Shot) -> Shot:
    if isinstance(shot, Photo | Drawing):
        return replace(shot, count=2)
    raise TypeError(f"A shot is a Photo or a Drawing; received {type(shot).__name__}.")


def turn_hue(image: Image.Image, hue: int, target: int, reach: int = 26) -> Image.Image:
    """Turn what is coloured within `reach` of `hue` to `target`; all on the scale of 0–255 that PIL's HSV has."""
    pixels = np.asarray(image.convert("HSV"))
    away = (pixels[..., 0].astype(np.int16) - hue + 128) % 256 - 128
    coloured = (np.abs(away) <= reach) & (pixels[..., 1] > 45)
    turned = pixels.copy()
    turned[..., 0] = np.where(coloured, (target + away // 2) % 256, pixels[..., 0]).astype(np.uint8)
    return Image.fromarray(turned, "HSV").convert("RGB")


def _side_by_side(image: Image.Image, count: int) -> Image.Image:
    """`count` copies in a row on white, each cut to its middle, with the original's size."""
    width, height = image.size
    each = image.crop((width // 10, 0, width - width // 10, height))
    wide = width // count
    tall = min(height, round(each.height * wide / each.width))
    each = each.resize((wide, tall), Image.Resampling.BILINEAR)
    row = Image.new("RGB", (width, tall + height // 10), (255, 255, 255))
    for i in range(count):
        row.paste(each, (i * wide, height // 20))
    return row
