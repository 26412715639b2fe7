"""Pictures of products that don't exist: a drawn shape, lit from one side, standing before a backdrop."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sosie.simulate import shapes, shapes_home
from sosie.simulate.canvas import Canvas, Colour, tint

SIDE = 256
SHAPES = shapes.SHAPES | shapes_home.SHAPES
_OVER = 2  # drawn this much larger, then reduced, which smooths every edge


@dataclass(frozen=True)
class Drawing:
    """What to draw. Variants of one family share `style`, and so everything that isn't said here.

    Attributes:
        words: brand, model and size as printed on the product.
        scale: size of the product in the picture, 1 is the family's largest.
        view: 0 the front with its print; 1 the same thing turned, without it.
        count: how many stand in the picture.
    """

    shape: str
    style: int
    colour: Colour
    accent: Colour
    words: tuple[str, ...]
    scale: float = 1.0
    view: int = 0
    count: int = 1

    def render(self) -> Image.Image:
        """RGB picture of `SIDE` × `SIDE` pixels, the same for equal drawings."""
        rng = np.random.default_rng([self.style, 1])
        side = SIDE * _OVER
        front = self.words if self.view == 0 else ()
        canvas = Canvas(side, self.colour, self.accent, front)
        SHAPES[self.shape](canvas, rng)
        thing = canvas.layer.crop(canvas.layer.getbbox())
        fill = np.random.default_rng([self.style, 4]).uniform(0.72, 0.9) * self.scale * (1 if self.count == 1 else 0.72)
        ratio = fill * SIDE / max(thing.size)
        thing = thing.resize((int(thing.width * ratio), int(thing.height * ratio)), Image.Resampling.BOX)
        if self.view:
            thing = _turned(thing, np.random.default_rng([self.style, 3]))
        thing = _lit(thing)
        scene = _backdrop(np.random.default_rng([self.style, 2, self.view]))
        middle, floor = (SIDE - thing.width) // 2, min(int(SIDE * 0.93), (SIDE + thing.height) // 2)
        if self.count == 1:
            _place(scene, thing, middle, floor)
        else:
            apart = min(thing.width // 2, SIDE // 4)
            _place(scene, thing, middle + apart - thing.width // 10, floor - SIDE // 20)
            _place(scene, thing, middle - apart + thing.width // 10, floor)
        return scene


def _place(scene: Image.Image, thing: Image.Image, x: int, floor: int) -> None:
    """Stand `thing` on row `floor` with its left edge at column `x`, and cast its shadow."""
    shadow = Image.new("L", (SIDE // 4, SIDE // 4), 0)
    ImageDraw.Draw(shadow).ellipse((x // 4, floor // 4 - 3, (x + thing.width) // 4, floor // 4 + 3), 110)
    shadow = shadow.filter(ImageFilter.BoxBlur(2)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scene.paste((40, 40, 48), (0, 0), shadow)
    scene.paste(thing.convert("RGB"), (x, floor - thing.height), thing.getchannel("A"))


def _turned(thing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Seen from the other side, a little narrower and aslant."""
    narrow, slant = float(rng.uniform(0.78, 0.92)), float(rng.uniform(-0.14, 0.14))
    width, height = thing.size
    lean = int(abs(slant) * height)
    across = int(width * narrow) + lean
    # Output column → input column: mirrored, stretched back, and shifted by the row.
    start = width + (lean / narrow if slant < 0 else 0.0)
    turned = thing.transform(
        (across, height),
        Image.Transform.AFFINE,
        (-1 / narrow, slant / narrow, start, 0.0, 1.0, 0.0),
        Image.Resampling.BILINEAR,
    )
    turned = turned.rotate(float(rng.uniform(-8, 8)), Image.Resampling.BILINEAR, expand=True)
    return turned.crop(turned.getbbox())


def _lit(thing: Image.Image) -> Image.Image:
    """Light from the left: a bright edge, a long shade to the right, and a shine."""
    shade, shine = (light.resize(thing.size, Image.Resampling.BILINEAR) for light in _light())
    colours = ImageChops.screen(ImageChops.multiply(thing.convert("RGB"), shade), shine)
    colours.putalpha(thing.getchannel("A"))
    return colours


@lru_cache(maxsize=1)
def _light() -> tuple[Image.Image, Image.Image]:
    """What the light takes away and what it adds, over a square."""
    x = np.linspace(0, 1, SIDE)
    shade = np.interp(x, [0.0, 0.25, 0.45, 0.8, 1.0], [0.80, 0.97, 1.0, 0.76, 0.66])
    shine = 46 * np.exp(-(((x - 0.36) / 0.05) ** 2)) + 14 * np.exp(-(((x - 0.66) / 0.03) ** 2))
    taken = np.rint(np.outer(np.linspace(1.0, 0.9, SIDE), shade) * 255).astype(np.uint8)
    added = np.ascontiguousarray(np.broadcast_to(np.rint(shine).astype(np.uint8), (SIDE, SIDE)))
    return Image.fromarray(taken).convert("RGB"), Image.fromarray(added).convert("RGB")


_WALLS: tuple[Colour, ...] = (
    (232, 238, 246), (246, 236, 228), (234, 244, 234), (244, 232, 240), (228, 228, 230), (250, 244, 214),
    (214, 226, 232),
)  # fmt: skip


def _backdrop(rng: np.random.Generator) -> Image.Image:
    """Plain white half of the time; else a gradient, or a wall and a table."""
    kind, first, second = rng.random(), _WALLS[int(rng.integers(len(_WALLS)))], _WALLS[int(rng.integers(len(_WALLS)))]
    if kind < 0.5:
        return Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    if kind < 0.8:
        fade = np.linspace(0, 1, SIDE)[:, None, None]
        rows = np.rint(np.array(tint(first, 1.3)) * (1 - fade) + np.array(tint(second, 0.88)) * fade).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (SIDE, SIDE, 3))))
    scene = Image.new("RGB", (SIDE, SIDE), first)
    edge = int(SIDE * rng.uniform(0.66, 0.8))
    ImageDraw.Draw(scene).rectangle((0, edge, SIDE, SIDE), tint((176, 138, 98), float(rng.uniform(0.7, 1.4))))
    return scene
