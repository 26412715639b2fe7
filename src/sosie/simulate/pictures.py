"""What sellers do to a picture before they list it again.

Pictures are RGB `PIL.Image`s of any size. Every change keeps the product recognisable: a colour stays the same colour
name, since another colour is another product. The same functions augment the training of the image encoder.
"""

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

T = TypeVar("T")
Change = Callable[[Image.Image, np.random.Generator], Image.Image]

SHORTEST, LONGEST = 96, 640
"""No change makes a picture's shorter side less, or its longer side more than this many pixels."""

SHOP_NAMES = (
    "bestpickID", "toko_murah88", "happy-shop", "MEGA STORE", "city outlet", "Lucky Mall", "shop.example",
    "Kaufladen24", "www.deals.example", "la boutique", "Casa Directa", "GROSIR JAYA", "official reseller",
    "my closet", "DealZone",
)  # fmt: skip
BADGES = (
    "SALE", "-50%", "ORI 100%", "PROMO", "COD", "READY", "NEW", "TOP", "BEST", "NEU", "OFERTA", "SOLDES", "HIT", "HOT",
    "Free Ongkir", "Gratis Versand", "24h", "GARANSI",
)  # fmt: skip
LOUD = ((214, 32, 39), (240, 120, 0), (250, 204, 21), (22, 130, 70), (20, 90, 200), (120, 40, 160), (20, 20, 20))
QUIET = ((255, 255, 255), (245, 243, 238), (232, 238, 244), (250, 232, 232), (230, 240, 228), (214, 214, 214))


def relist(image: Image.Image, rng: np.random.Generator, strength: float = 1.0) -> Image.Image:
    """`image` as another seller would show it: a few changes drawn from `CHANGES`, in their order.

    Args:
        image: picture of any mode; the result is RGB and may have another size and aspect.
        rng: the only source of chance.
        strength: factor on each change's probability; 0 gives the picture back as RGB.
    """
    picture = image if image.mode == "RGB" else image.convert("RGB")
    for change, probability in CHANGES:
        if rng.random() < probability * strength:
            picture = change(picture, rng)
    return picture


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut up to 14 % off each side."""
    width, height = image.size
    if min(width, height) < SHORTEST * 1.4:
        return image
    left, top, right, bottom = rng.uniform(0, 0.14, 4) * rng.integers(0, 2, 4)
    return image.crop((int(left * width), int(top * height), int(width * (1 - right)), int(height * (1 - bottom))))


def rescale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another resolution, and sometimes an aspect that is a little off."""
    width, height = image.size
    scale = float(np.exp(rng.uniform(np.log(0.6), np.log(1.5))))
    squeeze = float(rng.uniform(0.9, 1.1)) if rng.random() < 0.3 else 1.0
    scale = min(max(scale, SHORTEST / min(width, height)), LONGEST / max(width, height) / max(squeeze, 1.0))
    return image.resize(
        (max(1, int(width * scale * squeeze)), max(1, int(height * scale))), Image.Resampling.BILINEAR, reducing_gap=2.0
    )


def mirror(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def tilt(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn by up to 5 degrees; the corners take the colour of the picture's own corner."""
    corner = image.getpixel((1, 1))
    return image.rotate(float(rng.uniform(-5, 5)), Image.Resampling.BILINEAR, fillcolor=corner)


def recolour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another camera and lamp: exposure, contrast, warmth and saturation, never another hue."""
    ramp = np.linspace(0, 1, 256)
    gamma, contrast, lift = np.exp(rng.uniform(-0.28, 0.28)), rng.uniform(0.8, 1.25), rng.uniform(-0.06, 0.06)
    curve = (ramp**gamma - 0.5) * contrast + 0.5 + lift
    warmth = rng.uniform(-0.07, 0.07)
    table = np.concatenate([curve * (1 + warmth), curve, curve * (1 - warmth)])
    picture = image.point(np.clip(np.rint(table * 255), 0, 255).astype(int).tolist())
    if rng.random() < 0.5:
        picture = ImageEnhance.Color(picture).enhance(float(rng.uniform(0.6, 1.4)))
    return picture


def other_background(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put another backdrop where the picture is near white all the way to an edge."""
    clear = background(image)
    if clear.mean() < 0.15:
        return image
    mask = Image.fromarray((clear * np.uint8(255)), "L").filter(ImageFilter.BoxBlur(1))
    top, bottom = (np.array(QUIET[int(i)]) + rng.integers(-25, 1, 3) for i in rng.integers(1, len(QUIET), 2))
    if rng.random() < 0.5:
        bottom = top
    fade = np.linspace(0, 1, image.height)[:, None, None]
    backdrop = np.clip(top * (1 - fade) + bottom * fade, 0, 255).astype(np.uint8)
    backdrop = np.broadcast_to(backdrop, (image.height, image.width, 3))
    return Image.composite(Image.fromarray(np.ascontiguousarray(backdrop)), image, mask)


def background(image: Image.Image, brightness: int = 236) -> np.ndarray:
    """Boolean (height, width): near-white pixels joined to an edge by a straight near-white run."""
    bright = (np.asarray(image).min(axis=2) >= brightness).astype(np.uint8)
    reach = np.minimum.accumulate
    runs = reach(bright, 0) | reach(bright[::-1], 0)[::-1] | reach(bright, 1) | reach(bright[:, ::-1], 1)[:, ::-1]
    return np.asarray(runs, dtype=bool)


def frame(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A border, padding to a square, or a strip with the shop's name."""
    width, height = image.size
    kind = rng.integers(0, 3)
    if kind == 0:
        edge = max(2, int(min(width, height) * rng.uniform(0.015, 0.07)))
        framed = Image.new("RGB", (width + 2 * edge, height + 2 * edge), _any(LOUD + QUIET, rng))
        framed.paste(image, (edge, edge))
    elif kind == 1:
        side = int(max(width, height) * rng.uniform(1.05, 1.3))
        framed = Image.new("RGB", (side, side), _any(QUIET, rng))
        framed.paste(image, ((side - width) // 2, (side - height) // 2))
    else:
        strip = max(14, int(height * rng.uniform(0.08, 0.15)))
        framed = Image.new("RGB", (width, height + strip), _any(LOUD, rng))
        at_top = rng.random() < 0.3
        framed.paste(image, (0, strip if at_top else 0))
        words = ImageDraw.Draw(framed)
        words.text(
            (width // 2, strip // 2 if at_top else height + strip // 2),
            _any(SHOP_NAMES, rng), "white", font(int(strip * 0.6)), "mm",
        )  # fmt: skip
    return framed if max(framed.size) <= LONGEST else image


def watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The shop's name, see-through: once across, in a corner, or as a pattern."""
    width, height = image.size
    name, kind = _any(SHOP_NAMES, rng), rng.integers(0, 3)
    stencil = Image.new("L", (width, height), 0)
    draw, opacity = ImageDraw.Draw(stencil), int(rng.uniform(70, 170))
    if kind == 0:
        draw.text((width // 2, int(height * rng.uniform(0.3, 0.7))), name, opacity, font(max(12, width // 9)), "mm")
        stencil = stencil.rotate(float(rng.choice([0, 0, 20, 30, -25])), Image.Resampling.BILINEAR)
    elif kind == 1:
        x, anchor = (6, "l") if rng.random() < 0.5 else (width - 6, "r")
        y, line = (6, "a") if rng.random() < 0.5 else (height - 6, "d")
        draw.text((x, y), name, min(255, opacity + 60), font(max(10, width // 14)), anchor + line)
    else:
        size = max(9, width // 18)
        for row, y in enumerate(range(size, height, size * 4)):
            for x in range((row % 2) * size * 3, width, size * 8):
                draw.text((x, y), name, opacity // 2, font(size), "lm")
    ink = Image.new("RGB", image.size, (255, 255, 255) if rng.random() < 0.4 else (90, 90, 90))
    return Image.composite(ink, image, stencil)


def badge(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One or two loud stickers in the corners."""
    picture = image.copy()
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    for corner in rng.permutation(4)[: rng.integers(1, 3)]:
        text, fill = _any(BADGES, rng), _any(LOUD, rng)
        size = max(9, int(min(width, height) * rng.uniform(0.06, 0.1)))
        half = int(font(size).getlength(text) / 2) + size // 2
        tall = half if len(text) <= 4 and rng.random() < 0.6 else int(size * 0.9)
        x = half + 2 if corner % 2 == 0 else width - half - 3
        y = tall + 2 if corner < 2 else height - tall - 3
        box = (x - half, y - tall, x + half, y + tall)
        if tall == half:
            draw.ellipse(box, fill)
        else:
            draw.rounded_rectangle(box, size // 3, fill)
        draw.text((x, y), text, "black" if sum(fill) > 420 else "white", font(size), "mm")
    return picture


def soften(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Out of focus, over-sharpened, or grainy."""
    kind = rng.integers(0, 3)
    if kind == 0:
        return image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.5, 1.3))))
    if kind == 1:
        return image.filter(ImageFilter.SHARPEN)
    grain = rng.integers(-9, 10, (image.height, image.width, 1), dtype=np.int16)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def recompress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through JPEG once, at a quality between 70 and 92."""
    return decode(encode(image, int(rng.integers(70, 93))))


def encode(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes of an RGB picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode(content: bytes) -> Image.Image:
    """RGB picture of JPEG (or other) bytes."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


@lru_cache(maxsize=128)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries, so that pictures are the same wherever they are made."""
    return ImageFont.load_default(size)


def _any(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(0, len(choices)))]


CHANGES: tuple[tuple[Change, float], ...] = (
    (mirror, 0.15),
    (crop, 0.45),
    (other_background, 0.10),
    (recolour, 0.40),
    (tilt, 0.06),
    (soften, 0.10),
    (rescale, 0.40),
    (badge, 0.16),
    (watermark, 0.22),
    (frame, 0.20),
    (recompress, 0.60),
)
"""Each change and the share of re-listed pictures that it touches, in the order in which a seller would do them."""
