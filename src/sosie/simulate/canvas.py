"""A canvas in unit coordinates for drawing one product: (0, 0) is top left, (1, 1) bottom right."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from sosie.simulate.pictures import font

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """Draws on an RGBA layer of `side` × `side` pixels. `body` is the part that takes the pattern."""

    def __init__(self, side: int, colour: Colour, accent: Colour, words: Sequence[str]) -> None:
        self.side = side
        self.colour = colour
        self.accent = accent
        self.words = tuple(words)
        self.layer = Image.new("RGBA", (side, side), (*colour, 0))
        self.body = Image.new("L", (side, side), 0)
        self._ink = ImageDraw.Draw(self.layer)
        self._mask = ImageDraw.Draw(self.body)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a unit point."""
        return x * self.side, y * self.side

    def length(self, share: float) -> int:
        return max(1, round(share * self.side))

    def polygon(self, points: Iterable[Point], fill: Colour | None = None, *, body: bool = False) -> None:
        path = [self.at(x, y) for x, y in points]
        self._ink.polygon(path, fill or self.colour)
        if body:
            self._mask.polygon(path, 255)

    def box(
        self, left: float, top: float, right: float, bottom: float, fill: Colour | None = None,
        *, radius: float = 0.0, body: bool = False,
    ) -> None:  # fmt: skip
        path = [self.at(left, top), self.at(right, bottom)]
        self._ink.rounded_rectangle(path, self.length(radius) if radius else 0, fill or self.colour)
        if body:
            self._mask.rounded_rectangle(path, self.length(radius) if radius else 0, 255)

    def oval(
        self, x: float, y: float, wide: float, tall: float, fill: Colour | None = None, *, body: bool = False
    ) -> None:
        """An ellipse about (x, y) with half axes `wide` and `tall`."""
        path = [self.at(x - wide, y - tall), self.at(x + wide, y + tall)]
        self._ink.ellipse(path, fill or self.colour)
        if body:
            self._mask.ellipse(path, 255)

    def ring(self, x: float, y: float, wide: float, tall: float, thick: float, fill: Colour | None = None) -> None:
        path = [self.at(x - wide, y - tall), self.at(x + wide, y + tall)]
        self._ink.ellipse(path, None, fill or self.colour, self.length(thick))

    def arc(
        self, x: float, y: float, wide: float, tall: float, start: float, end: float, thick: float,
        fill: Colour | None = None,
    ) -> None:  # fmt: skip
        """Part of an ellipse's outline; degrees run clockwise from three o'clock."""
        path = [self.at(x - wide, y - tall), self.at(x + wide, y + tall)]
        self._ink.arc(path, start, end, fill or self.colour, self.length(thick))

    def line(self, points: Iterable[Point], thick: float, fill: Colour | None = None) -> None:
        self._ink.line([self.at(x, y) for x, y in points], fill or self.colour, self.length(thick), "curve")

    def text(self, x: float, y: float, words: str, tall: float, widest: float, fill: Colour) -> None:
        """Words about (x, y), `tall` high, smaller where they would be wider than `widest`."""
        size = self.length(tall)
        wide = font(size).getlength(words)
        if wide > self.length(widest):
            size = max(6, int(size * self.length(widest) / wide))
        self._ink.text(self.at(x, y), words, fill, font(size), "mm", stroke_width=size // 24)

    def label(self, x: float, y: float, wide: float, tall: float, rng: np.random.Generator, *, plate: bool) -> None:
        """Brand, model and size about (x, y) within `wide` × `tall`, on a plate of its own or on the product."""
        shade = (250, 250, 246) if sum(self.accent) > 300 or rng.random() < 0.5 else self.accent
        round_plate = bool(rng.random() < 0.3)
        if not self.words:
            return
        ground = shade if plate else self.colour
        if plate and round_plate:
            self.oval(x, y, wide * 0.62, tall * 0.62, ground)
        elif plate:
            self.box(x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2, ground, radius=0.01)
        ink = (20, 20, 24) if sum(ground) > 390 else (250, 250, 250)
        heights = (0.42, 0.26, 0.22)[: len(self.words)]
        top = y - tall * sum(heights) / 2
        for words, share in zip(self.words, heights, strict=False):
            self.text(x, top + tall * share / 2, words, tall * share * 0.8, wide * 0.88, ink)
            top += tall * share

    def pattern(self, rng: np.random.Generator) -> None:
        """Cover the body with the family's pattern. Draws the same numbers whatever the pattern."""
        kind, period, phase = int(rng.integers(0, len(_PATTERNS) + 3)), rng.uniform(0.05, 0.14), rng.uniform(0.3, 0.7)
        tone = self.accent if rng.random() < 0.6 else tint(self.colour, 0.75)
        if kind >= len(_PATTERNS):
            return
        stencil = Image.new("L", self.body.size, 0)
        _PATTERNS[kind](ImageDraw.Draw(stencil), self.side, period * self.side, phase)
        self.layer.paste(tone, (0, 0), ImageChops.multiply(stencil, self.body))


def tint(colour: Colour, factor: float) -> Colour:
    """Darker below a factor of 1; above it, lighter by the share of the way to white that is above 1."""
    if factor <= 1:
        return tuple(round(part * factor) for part in colour)  # type: ignore[return-value]
    return tuple(round(part + (255 - part) * min(1.0, factor - 1)) for part in colour)  # type: ignore[return-value]


def _across(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    for y in np.arange(0, side, period):
        draw.rectangle((0, y, side, y + period * phase), 255)


def _upright(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    for x in np.arange(0, side, period):
        draw.rectangle((x, 0, x + period * phase * 0.6, side), 255)


def _slanted(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    for x in np.arange(-side, side, period * 1.4):
        draw.line((x, 0, x + side, side), 255, max(2, int(period * phase)))


def _dotted(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    radius = period * phase * 0.4
    for row, y in enumerate(np.arange(0, side, period)):
        for x in np.arange((row % 2) * period / 2, side, period):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 255)


def _halved(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    draw.rectangle((0, side * (0.35 + phase * 0.4), side, side), 255)


def _banded(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    draw.rectangle((0, side * phase, side, side * phase + period * 1.5), 255)


def _checked(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    _across(draw, side, period * 1.5, phase * 0.35)
    _upright(draw, side, period * 1.5, phase * 0.5)


def _zigzag(draw: ImageDraw.ImageDraw, side: int, period: float, phase: float) -> None:
    for y in np.arange(0, side, period * 2):
        steps = np.arange(0, side + period, period)
        path = [(float(x), float(y + (i % 2) * period)) for i, x in enumerate(steps)]
        draw.line(path, 255, max(2, int(period * phase * 0.5)))


_PATTERNS: tuple[Callable[[ImageDraw.ImageDraw, int, float, float], None], ...] = (
    _across, _upright, _slanted, _dotted, _halved, _banded, _checked, _zigzag,
)  # fmt: skip
