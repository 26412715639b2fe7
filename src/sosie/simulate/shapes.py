"""What each kind of product looks like. Every function draws its family's proportions from `rng`, in a fixed order."""

from collections.abc import Callable

import numpy as np

from sosie.simulate.canvas import Canvas, tint

Shape = Callable[[Canvas, np.random.Generator], None]
DARK = (38, 38, 42)
METAL = (190, 194, 200)


def bottle(c: Canvas, rng: np.random.Generator) -> None:
    wide, neck, shoulder, cap = rng.uniform(0.11, 0.19), rng.uniform(0.04, 0.08), rng.uniform(0.28, 0.42), rng.random()
    top = shoulder - rng.uniform(0.04, 0.14)
    c.polygon([(0.5 - neck, top), (0.5 + neck, top), (0.5 + wide, shoulder), (0.5 - wide, shoulder)], body=True)
    c.box(0.5 - wide, shoulder - 0.01, 0.5 + wide, 0.9, radius=0.04, body=True)
    c.pattern(rng)
    lid = c.accent if cap < 0.6 else METAL
    c.box(0.5 - neck * 1.25, top - 0.09, 0.5 + neck * 1.25, top + 0.01, lid, radius=0.015)
    if cap < 0.35:
        c.arc(0.5, top - 0.1, 0.07, 0.07, 180, 360, 0.018, lid)
    c.label(0.5, 0.62, wide * 1.8, 0.24, rng, plate=rng.random() < 0.5)


def pump(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, radius = rng.uniform(0.13, 0.21), rng.uniform(0.3, 0.42), rng.uniform(0.02, 0.12)
    has_pump = rng.random() < 0.6
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, radius=radius, body=True)
    c.pattern(rng)
    if has_pump:
        c.box(0.46, top - 0.07, 0.54, top + 0.01, c.accent)
        c.box(0.485, top - 0.16, 0.515, top - 0.06, METAL)
        c.box(0.36, top - 0.19, 0.55, top - 0.14, c.accent, radius=0.02)
    else:
        c.box(0.5 - wide * 0.5, top - 0.1, 0.5 + wide * 0.5, top + 0.01, c.accent, radius=0.02)
    c.label(0.5, 0.64, wide * 1.7, 0.3, rng, plate=True)


def mug(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, taper, loop = (
        rng.uniform(0.2, 0.27),
        rng.uniform(0.34, 0.5),
        rng.uniform(0.0, 0.06),
        rng.uniform(0.1, 0.15),
    )
    c.ring(0.5 + wide, (top + 0.88) / 2, loop, 0.15, 0.045, c.accent if rng.random() < 0.4 else tint(c.colour, 0.85))
    c.polygon([(0.5 - wide, top), (0.5 + wide, top), (0.5 + wide - taper, 0.9), (0.5 - wide + taper, 0.9)], body=True)
    c.pattern(rng)
    c.oval(0.5, top, wide, 0.045, tint(c.colour, 0.6))
    c.oval(0.5, top + 0.008, wide * 0.9, 0.032, c.accent if rng.random() < 0.5 else (245, 245, 240))
    c.label(0.5, 0.66, wide * 1.5, 0.26, rng, plate=rng.random() < 0.3)


def sneaker(c: Canvas, rng: np.random.Generator) -> None:
    heel, toe, ankle = rng.uniform(0.36, 0.46), rng.uniform(0.62, 0.7), rng.uniform(0.34, 0.48)
    sole, stripe = rng.uniform(0.05, 0.1), int(rng.integers(0, 4))
    upper = [
        (0.1, 0.8), (0.09, heel + 0.06), (0.13, heel), (ankle - 0.06, heel + 0.03), (ankle, heel + 0.04),
        (0.6, toe - 0.05), (0.78, toe), (0.89, toe + 0.06), (0.92, 0.8),
    ]  # fmt: skip
    c.polygon(upper, body=True)
    c.pattern(rng)
    c.polygon([(0.13, heel), (ankle, heel + 0.04), (ankle - 0.05, heel + 0.1), (0.17, heel + 0.08)], DARK)
    for i in range(5):
        x, y = ankle + 0.02 + i * 0.042, heel + 0.07 + i * 0.033
        c.line([(x - 0.03, y + 0.05), (x + 0.03, y - 0.02)], 0.014, (245, 245, 245))
    if stripe == 1:
        for i in range(3):
            c.polygon(
                [(0.3 + i * 0.06, 0.8), (0.33 + i * 0.06, 0.8), (0.4 + i * 0.06, 0.6), (0.37 + i * 0.06, 0.6)], c.accent
            )
    elif stripe == 2:
        c.polygon([(0.2, 0.66), (0.36, 0.78), (0.66, 0.64), (0.37, 0.71)], c.accent)
    elif stripe == 3:
        c.oval(0.3, 0.66, 0.06, 0.06, c.accent)
    c.polygon([(0.86, toe + 0.05), (0.92, 0.8), (0.74, 0.8), (0.78, 0.74)], c.accent)
    c.box(0.08, 0.79, 0.94, 0.79 + sole, (244, 244, 240) if rng.random() < 0.6 else c.accent, radius=0.03)
    c.box(0.08, 0.79 + sole * 0.7, 0.94, 0.8 + sole, DARK, radius=0.02)
    if c.words:
        c.text(0.22, heel + 0.14, c.words[0], 0.05, 0.18, (250, 250, 250) if sum(c.colour) < 390 else DARK)


def shirt(c: Canvas, rng: np.random.Generator) -> None:
    _garment(c, rng, sleeve=rng.uniform(0.3, 0.42), hood=False)


def hoodie(c: Canvas, rng: np.random.Generator) -> None:
    _garment(c, rng, sleeve=rng.uniform(0.62, 0.74), hood=True)


def _garment(c: Canvas, rng: np.random.Generator, *, sleeve: float, hood: bool) -> None:
    wide, hem, neck = rng.uniform(0.2, 0.25), rng.uniform(0.8, 0.9), rng.uniform(0.07, 0.1)
    spread = 0.06 if hood else rng.uniform(0.12, 0.18)
    cuffs = c.accent if rng.random() < 0.4 else tint(c.colour, 0.85)
    if hood:
        c.oval(0.5, 0.19, 0.14, 0.11, tint(c.colour, 0.9), body=True)
    for side in (-1, 1):
        out = 0.5 + side * (wide + spread)
        c.polygon(
            [(0.5 + side * neck, 0.18), (0.5 + side * wide, 0.22), (out + side * 0.04, sleeve - 0.03),
             (out - side * 0.07, sleeve + 0.02), (0.5 + side * wide * 0.9, 0.42)], tint(c.colour, 0.93), body=True,
        )  # fmt: skip
        c.line([(out + side * 0.04, sleeve - 0.03), (out - side * 0.07, sleeve + 0.02)], 0.022, cuffs)
    c.polygon(
        [(0.5 - neck, 0.18), (0.5 + neck, 0.18), (0.5 + wide, 0.22), (0.5 + wide * 0.95, hem), (0.5 - wide * 0.95, hem),
         (0.5 - wide, 0.22)], body=True,
    )  # fmt: skip
    c.pattern(rng)
    c.oval(0.5, 0.18, neck, 0.035 if not hood else 0.06, tint(c.colour, 0.5))
    logo, size = int(rng.integers(0, 4)), rng.uniform(0.06, 0.1)
    if hood:
        c.polygon([(0.38, 0.62), (0.62, 0.62), (0.66, 0.76), (0.34, 0.76)], tint(c.colour, 0.85))
        c.line([(0.47, 0.21), (0.46, 0.36)], 0.01, (240, 240, 240))
        c.line([(0.53, 0.21), (0.54, 0.34)], 0.01, (240, 240, 240))
    if logo == 0:
        c.oval(0.5, 0.46, size, size, c.accent)
    elif logo == 1:
        c.polygon([(0.5, 0.46 - size), (0.5 + size, 0.46 + size), (0.5 - size, 0.46 + size)], c.accent)
    elif logo == 2:
        c.box(0.5 - size * 1.3, 0.46 - size * 0.6, 0.5 + size * 1.3, 0.46 + size * 0.6, c.accent)
    if c.words:
        ground = c.accent if logo < 3 else c.colour
        c.text(0.5, 0.46, c.words[0], 0.075, 0.3, (250, 250, 250) if sum(ground) < 390 else DARK)
        c.text(0.5, 0.54 if logo == 3 else 0.46 + size + 0.04, c.words[1], 0.045, 0.3, ink_on(c.colour))


def backpack(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, pocket = rng.uniform(0.2, 0.27), rng.uniform(0.2, 0.32), rng.uniform(0.58, 0.68)
    c.arc(0.5, top, 0.08, 0.09, 180, 360, 0.025, c.accent)
    for side in (-1, 1):
        c.line(
            [(0.5 + side * wide, top + 0.12), (0.5 + side * (wide + 0.07), 0.55), (0.5 + side * wide, 0.8)],
            0.035,
            tint(c.colour, 0.6),
        )
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, radius=rng.uniform(0.06, 0.16), body=True)
    c.pattern(rng)
    c.box(
        0.5 - wide * 0.8,
        pocket,
        0.5 + wide * 0.8,
        0.86,
        tint(c.colour, 0.8) if rng.random() < 0.5 else c.accent,
        radius=0.04,
    )
    c.line([(0.5 - wide * 0.8, top + 0.13), (0.5 + wide * 0.8, top + 0.13)], 0.012, DARK)
    c.line([(0.5 - wide * 0.6, pocket + 0.04), (0.5 + wide * 0.6, pocket + 0.04)], 0.012, DARK)
    c.label(0.5, top + 0.23, wide * 1.2, 0.14, rng, plate=rng.random() < 0.6)


def handbag(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, slope = rng.uniform(0.26, 0.36), rng.uniform(0.42, 0.54), rng.uniform(-0.06, 0.09)
    flap = rng.random() < 0.5
    c.arc(0.5, top + 0.02, wide * 0.6, rng.uniform(0.16, 0.28), 180, 360, 0.03, tint(c.colour, 0.7))
    c.polygon([(0.5 - wide + slope, top), (0.5 + wide - slope, top), (0.5 + wide, 0.88), (0.5 - wide, 0.88)], body=True)
    c.pattern(rng)
    if flap:
        c.polygon([(0.5 - wide + slope, top), (0.5 + wide - slope, top), (0.5, top + 0.22)], tint(c.colour, 0.8))
        c.oval(0.5, top + 0.2, 0.025, 0.025, METAL)
    else:
        c.line([(0.5 - wide + slope, top + 0.03), (0.5 + wide - slope, top + 0.03)], 0.014, METAL)
    c.label(0.5, 0.78, wide, 0.13, rng, plate=rng.random() < 0.4)


def phone(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, lenses, across = (
        rng.uniform(0.15, 0.19),
        rng.uniform(0.16, 0.22),
        int(rng.integers(1, 4)),
        rng.random() < 0.5,
    )
    c.box(0.5 - wide - 0.008, top - 0.008, 0.5 + wide + 0.008, 0.908, tint(c.colour, 0.6), radius=0.045)
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, radius=0.04, body=True)
    c.pattern(rng)
    if c.words:
        c.box(
            0.5 - wide + 0.02,
            top + 0.02,
            0.5 - wide + (0.06 + 0.075 * (lenses if across else 1)),
            top + (0.1 if across else 0.03 + 0.075 * lenses),
            tint(c.colour, 0.75),
            radius=0.03,
        )
        for i in range(lenses):
            x = 0.5 - wide + 0.06 + (0.075 * i if across else 0)
            y = top + 0.06 + (0 if across else 0.075 * i)
            c.oval(x, y, 0.03, 0.03, DARK)
            c.oval(x, y, 0.014, 0.014, (70, 80, 110))
        c.text(0.5, 0.62, c.words[0], 0.06, wide * 1.5, ink_on(c.colour))
        c.text(0.5, 0.69, " ".join(c.words[1:]), 0.036, wide * 1.6, ink_on(c.colour))
    else:
        c.box(0.5 - wide + 0.012, top + 0.012, 0.5 + wide - 0.012, 0.888, (18, 20, 30), radius=0.032)
        for row in range(4):
            for column in range(3):
                c.box(
                    0.5 - wide + 0.05 + column * 0.09,
                    top + 0.28 + row * 0.09,
                    0.5 - wide + 0.1 + column * 0.09,
                    top + 0.33 + row * 0.09,
                    c.accent if (row + column) % 2 else METAL,
                    radius=0.012,
                )


def power_bank(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, ports = rng.uniform(0.16, 0.25), rng.uniform(0.32, 0.48), int(rng.integers(1, 4))
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, radius=rng.uniform(0.02, 0.08), body=True)
    c.pattern(rng)
    for i in range(ports):
        c.box(0.5 - wide * 0.7 + i * 0.1, top + 0.012, 0.5 - wide * 0.7 + 0.065 + i * 0.1, top + 0.035, DARK)
    for i in range(4):
        c.oval(0.5 - 0.06 + i * 0.04, 0.85, 0.009, 0.009, c.accent)
    c.label(0.5, 0.64, wide * 1.6, 0.2, rng, plate=rng.random() < 0.3)


def headphones(c: Canvas, rng: np.random.Generator) -> None:
    wide, tall, cup, thick = (
        rng.uniform(0.22, 0.28),
        rng.uniform(0.3, 0.38),
        rng.uniform(0.075, 0.11),
        rng.uniform(0.03, 0.06),
    )
    c.arc(0.5, 0.56, wide, tall, 180, 360, thick, c.colour)
    c.arc(0.5, 0.56, wide - 0.02, tall - 0.03, 200, 340, 0.02, c.accent)
    for side in (-1, 1):
        c.box(0.5 + side * wide - cup, 0.5, 0.5 + side * wide + cup, 0.82, radius=rng.uniform(0.04, 0.075), body=True)
    c.pattern(rng)
    for side in (-1, 1):
        c.oval(0.5 + side * wide, 0.66, cup * 0.6, 0.1, c.accent)
        if c.words:
            c.text(0.5 + side * wide, 0.66, c.words[0], 0.04, cup * 1.1, ink_on(c.accent))
    if c.words:
        c.text(0.5, 0.93, " ".join(c.words[1:]), 0.045, 0.5, (90, 90, 90))


def watch(c: Canvas, rng: np.random.Generator) -> None:
    radius, square, strap = rng.uniform(0.17, 0.22), rng.random() < 0.35, rng.uniform(0.09, 0.13)
    face, hour, minute = (DARK if rng.random() < 0.5 else (246, 246, 240)), rng.uniform(0, 6.28), rng.uniform(0, 6.28)
    c.polygon([(0.5 - strap, 0.4), (0.5 - strap * 0.75, 0.1), (0.5 + strap * 0.75, 0.1), (0.5 + strap, 0.4)], body=True)
    c.polygon(
        [(0.5 - strap, 0.6), (0.5 - strap * 0.75, 0.92), (0.5 + strap * 0.75, 0.92), (0.5 + strap, 0.6)], body=True
    )
    c.pattern(rng)
    case = METAL if rng.random() < 0.6 else c.accent
    if square:
        c.box(0.5 - radius, 0.5 - radius, 0.5 + radius, 0.5 + radius, case, radius=0.05)
        c.box(0.53 - radius, 0.53 - radius, 0.47 + radius, 0.47 + radius, face, radius=0.04)
    else:
        c.oval(0.5, 0.5, radius, radius, case)
        c.oval(0.5, 0.5, radius - 0.03, radius - 0.03, face)
    c.box(0.5 + radius, 0.48, 0.53 + radius, 0.52, METAL)
    for i in range(12):
        x, y = np.sin(i * np.pi / 6) * (radius - 0.055), np.cos(i * np.pi / 6) * (radius - 0.055)
        c.oval(0.5 + x, 0.5 + y, 0.007, 0.007, c.accent if i % 3 else ink_on(face))
    c.line([(0.5, 0.5), (0.5 + np.sin(hour) * 0.07, 0.5 - np.cos(hour) * 0.07)], 0.014, ink_on(face))
    c.line([(0.5, 0.5), (0.5 + np.sin(minute) * 0.11, 0.5 - np.cos(minute) * 0.11)], 0.009, ink_on(face))
    if c.words:
        c.text(0.5, 0.44, c.words[0], 0.034, radius, ink_on(face))


def ink_on(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """Ink that reads on `ground`."""
    return (250, 250, 250) if sum(ground) < 390 else DARK


SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        bottle, pump, mug, sneaker, shirt, hoodie, backpack, handbag, phone, power_bank, headphones, watch,
    )
}  # fmt: skip
