"""What things for the home, the desk and the pantry look like; see `shapes`."""

import numpy as np

from sosie.simulate.canvas import Canvas, tint
from sosie.simulate.shapes import DARK, METAL, Shape, ink_on


def lamp(c: Canvas, rng: np.random.Generator) -> None:
    top, bottom, tall, base = (
        rng.uniform(0.06, 0.14),
        rng.uniform(0.18, 0.28),
        rng.uniform(0.42, 0.52),
        rng.uniform(0.1, 0.18),
    )
    c.box(0.485, tall, 0.515, 0.88, METAL if rng.random() < 0.5 else c.accent)
    c.oval(0.5, 0.88, base, 0.028, c.accent)
    c.polygon([(0.5 - top, 0.16), (0.5 + top, 0.16), (0.5 + bottom, tall), (0.5 - bottom, tall)], body=True)
    c.pattern(rng)
    c.oval(0.5, tall, bottom, 0.022, (255, 244, 200))
    if c.words:
        c.text(0.5, 0.94, " ".join(c.words[:2]), 0.04, 0.5, (90, 90, 90))


def pouch(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, pinch = rng.uniform(0.18, 0.25), rng.uniform(0.2, 0.32), rng.uniform(0.0, 0.03)
    c.polygon(
        [(0.5 - wide, top), (0.5 + wide, top), (0.5 + wide - pinch, 0.5), (0.5 + wide + 0.01, 0.9),
         (0.5 - wide - 0.01, 0.9),
         (0.5 - wide + pinch, 0.5)], body=True,
    )  # fmt: skip
    c.pattern(rng)
    c.box(0.5 - wide, top, 0.5 + wide, top + 0.055, tint(c.colour, 0.8))
    c.label(0.5, 0.56, wide * 1.6, 0.24, rng, plate=True)
    picture = int(rng.integers(0, 3))
    if picture == 0:
        for i in range(5):
            c.oval(0.4 + i * 0.05, 0.78 + (i % 2) * 0.03, 0.025, 0.018, (92, 58, 34))
    elif picture == 1:
        c.oval(0.5, 0.79, 0.07, 0.05, c.accent)
    else:
        c.polygon([(0.42, 0.84), (0.5, 0.72), (0.58, 0.84)], c.accent)


def carton(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, deep = rng.uniform(0.17, 0.26), rng.uniform(0.2, 0.42), rng.uniform(0.05, 0.1)
    c.polygon(
        [
            (0.5 + wide, top),
            (0.5 + wide + deep, top - deep * 0.6),
            (0.5 + wide + deep, 0.9 - deep * 0.6),
            (0.5 + wide, 0.9),
        ],
        tint(c.colour, 0.6),
    )
    c.polygon(
        [
            (0.5 - wide, top),
            (0.5 + wide, top),
            (0.5 + wide + deep, top - deep * 0.6),
            (0.5 - wide + deep, top - deep * 0.6),
        ],
        tint(c.colour, 1.25),
    )
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, body=True)
    c.pattern(rng)
    c.label(0.5, top + 0.18, wide * 1.8, 0.22, rng, plate=rng.random() < 0.7)
    shape, size = int(rng.integers(0, 3)), rng.uniform(0.06, 0.1)
    if shape == 0:
        c.oval(0.5, 0.76, size * 1.3, size, c.accent)
        c.oval(0.5, 0.74, size, size * 0.6, tint(c.accent, 1.5))
    elif shape == 1:
        for i in range(-1, 2):
            c.oval(0.5 + i * size, 0.76, size * 0.45, size * 0.8, c.accent)
    else:
        c.box(0.5 - size * 1.4, 0.76 - size * 0.6, 0.5 + size * 1.4, 0.76 + size * 0.6, c.accent, radius=0.02)


def laptop(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, hue = rng.uniform(0.28, 0.33), rng.uniform(0.26, 0.36), int(rng.integers(0, 3))
    screen = ((30, 60, 120), (90, 40, 110), (20, 90, 90))[hue]
    c.box(0.5 - wide, top, 0.5 + wide, 0.74, DARK, radius=0.02)
    c.box(0.52 - wide, top + 0.02, 0.48 + wide, 0.71, screen, body=True)
    c.pattern(rng)
    c.polygon([(0.5 - wide, 0.74), (0.5 + wide, 0.74), (0.56 + wide, 0.87), (0.44 - wide, 0.87)], c.colour)
    c.polygon(
        [(0.54 - wide, 0.755), (0.46 + wide, 0.755), (0.49 + wide, 0.82), (0.51 - wide, 0.82)], tint(c.colour, 0.5)
    )
    c.box(0.43, 0.828, 0.57, 0.862, tint(c.colour, 0.8))
    if c.words:
        c.text(0.5, 0.5, c.words[0], 0.09, wide, (250, 250, 250))
        c.text(0.5, 0.6, " ".join(c.words[1:]), 0.05, wide * 1.3, (235, 235, 235))


def glasses(c: Canvas, rng: np.random.Generator) -> None:
    wide, tall, kind = rng.uniform(0.13, 0.18), rng.uniform(0.09, 0.14), int(rng.integers(0, 3))
    lens = (c.accent, DARK, (90, 70, 50))[int(rng.integers(0, 3))]
    for side in (-1, 1):
        c.line([(0.5 + side * (wide * 2 + 0.03), 0.5), (0.5 + side * 0.47, 0.42)], 0.025, c.colour)
    c.line([(0.5 - 0.06, 0.51), (0.5, 0.49), (0.5 + 0.06, 0.51)], 0.022, c.colour)
    for side in (-1, 1):
        x = 0.5 + side * (wide + 0.035)
        if kind == 0:
            c.oval(x, 0.54, wide, tall, c.colour, body=True)
            c.oval(x, 0.54, wide - 0.022, tall - 0.022, lens)
        elif kind == 1:
            c.box(x - wide, 0.54 - tall, x + wide, 0.54 + tall, c.colour, radius=0.03, body=True)
            c.box(x - wide + 0.022, 0.562 - tall, x + wide - 0.022, 0.518 + tall, lens, radius=0.02)
        else:
            frame = [
                (x - wide, 0.54 - tall),
                (x + wide, 0.54 - tall),
                (x + wide * 0.7, 0.54 + tall),
                (x - wide * 0.6, 0.54 + tall),
            ]
            c.polygon(frame, c.colour, body=True)
            c.polygon([(x + (a - x) * 0.85, 0.54 + (b - 0.54) * 0.82) for a, b in frame], lens)
        c.polygon([(x - wide * 0.5, 0.5), (x - wide * 0.2, 0.48), (x - wide * 0.4, 0.58)], tint(lens, 1.35))
    if c.words:
        c.text(0.5, 0.78, " ".join(c.words[:2]), 0.05, 0.5, (110, 110, 110))


def pan(c: Canvas, rng: np.random.Generator) -> None:
    radius, handle, tilt = rng.uniform(0.22, 0.28), rng.uniform(0.035, 0.055), rng.uniform(0.7, 1.0)
    c.line([(0.42 + radius * 0.7, 0.56 - radius * 0.5), (0.94, 0.22)], handle, c.accent)
    c.oval(0.92, 0.235, 0.012, 0.012, (240, 240, 240))
    c.oval(0.42, 0.6, radius + 0.02, (radius + 0.02) * tilt, METAL)
    c.oval(0.42, 0.6, radius, radius * tilt, body=True)
    c.oval(0.42, 0.61, radius * 0.82, radius * 0.8 * tilt, tint(c.colour, 0.7))
    rings = int(rng.integers(0, 4))
    for i in range(rings):
        c.ring(0.42, 0.61, radius * (0.7 - 0.15 * i), radius * (0.68 - 0.15 * i) * tilt, 0.006, tint(c.colour, 1.2))
    if c.words:
        c.text(0.42, 0.6, c.words[0], 0.06, radius, METAL)
        c.text(0.42, 0.67, " ".join(c.words[1:]), 0.04, radius * 1.2, METAL)


def cushion(c: Canvas, rng: np.random.Generator) -> None:
    half, sag = rng.uniform(0.26, 0.32), rng.uniform(0.03, 0.07)
    top, bottom, left, right = 0.55 - half, 0.55 + half, 0.5 - half, 0.5 + half
    c.polygon(
        [(left, top), (0.5, top + sag), (right, top), (right - sag, 0.55), (right, bottom), (0.5, bottom - sag),
         (left, bottom), (left + sag, 0.55)], body=True,
    )  # fmt: skip
    c.pattern(rng)
    motif, size = int(rng.integers(0, 4)), rng.uniform(0.07, 0.12)
    if motif == 0:
        c.oval(0.5, 0.55, size, size, c.accent)
    elif motif == 1:
        c.polygon([(0.5, 0.55 - size), (0.5 + size, 0.55), (0.5, 0.55 + size), (0.5 - size, 0.55)], c.accent)
    elif motif == 2:
        c.ring(0.5, 0.55, size, size, 0.025, c.accent)
    if c.words:
        c.text(0.5, 0.82, c.words[1], 0.04, 0.3, ink_on(c.colour))


def umbrella(c: Canvas, rng: np.random.Generator) -> None:
    wide, ribs, deep = rng.uniform(0.33, 0.4), int(rng.integers(4, 8)), rng.uniform(0.22, 0.32)
    c.line([(0.5, 0.2), (0.5, 0.84)], 0.02, METAL)
    c.arc(0.545, 0.83, 0.045, 0.06, 0, 180, 0.025, c.accent)
    angles = np.linspace(np.pi, 2 * np.pi, 40)
    dome = [(0.5 + wide * float(np.cos(a)), 0.5 + deep * float(np.sin(a))) for a in angles]
    c.polygon(dome, body=True)
    c.pattern(rng)
    step = 2 * wide / ribs
    for i in range(ribs):
        middle = 0.5 - wide + (i + 0.5) * step
        c.line([(0.5, 0.5 - deep), (0.5 - wide + i * step, 0.5)], 0.005, tint(c.colour, 0.6))
        if i % 2:
            c.polygon([(0.5, 0.5 - deep), (middle - step / 2, 0.5), (middle + step / 2, 0.5)], c.accent)
    if c.words:
        c.text(0.5, 0.93, " ".join(c.words[:2]), 0.04, 0.5, (90, 90, 90))


def speaker(c: Canvas, rng: np.random.Generator) -> None:
    wide, top, cones = rng.uniform(0.16, 0.3), rng.uniform(0.34, 0.52), int(rng.integers(1, 3))
    c.box(0.5 - wide, top, 0.5 + wide, 0.9, radius=rng.uniform(0.03, 0.12), body=True)
    c.pattern(rng)
    radius = min(wide / cones, (0.9 - top) / 2) * 0.72
    for i in range(cones):
        x = 0.5 + (i - (cones - 1) / 2) * wide
        c.oval(x, (top + 0.9) / 2, radius, radius, DARK)
        c.ring(x, (top + 0.9) / 2, radius, radius, 0.012, c.accent)
        c.oval(x, (top + 0.9) / 2, radius * 0.4, radius * 0.4, (80, 80, 86))
    if c.words:
        c.text(0.5, 0.875, c.words[0], 0.035, wide, ink_on(c.colour))


SHAPES: dict[str, Shape] = {
    shape.__name__: shape for shape in (lamp, pouch, carton, laptop, glasses, pan, cushion, umbrella, speaker)
}
