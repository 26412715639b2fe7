"""A product and its pictures. Two listings are duplicates if, and only if, their product is the same."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from sosie.simulate.render import Drawing

__all__ = ["Drawing", "Photo", "Product", "Shot", "bundle_of", "gtin", "identity", "share_of_hue"]


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


def turn_hue(image: Image.Image, hue: int, target: int) -> Image.Image:
    """Turn what is coloured near `hue` to `target`; both on the scale of 0–255 that PIL's HSV has.

    A picture's own "blue" is taken to be its commonest hue near `hue`, since a name covers many hues.
    """
    pixels = np.asarray(image.convert("HSV"))
    away = _away(pixels, hue)
    own = np.bincount(away[_is_coloured(pixels, away)] + _REACH, minlength=1).argmax() - _REACH
    away = _away(pixels, hue + int(own))
    turned = pixels.copy()
    turned[..., 0] = np.where(_is_coloured(pixels, away), (target + away // 2) % 256, pixels[..., 0]).astype(np.uint8)
    return Image.fromarray(turned, "HSV").convert("RGB")


def share_of_hue(image: Image.Image, hue: int) -> float:
    """The share of the picture that is strongly coloured near `hue`, so that turning it would show."""
    pixels = np.asarray(image.convert("HSV"))
    return float((_is_coloured(pixels, _away(pixels, hue)) & (pixels[..., 1] > 64)).mean())


_REACH = 30


def _away(pixels: np.ndarray, hue: int) -> np.ndarray:
    """How far each pixel's hue is from `hue`, -128 to 127."""
    return np.asarray((pixels[..., 0].astype(np.int16) - hue + 128) % 256 - 128)


def _is_coloured(pixels: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Near enough in hue, and neither grey nor black, where hue means nothing."""
    return np.asarray((np.abs(away) <= _REACH) & (pixels[..., 1] > 28) & (pixels[..., 2] > 36))


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
