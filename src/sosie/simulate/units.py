"""The many ways to write one quantity: 1 L, 1000 ml, 1 Liter, 100 cl."""

import re
from dataclasses import dataclass

import numpy as np

DECIMAL_COMMA = frozenset({"id", "de", "fr", "es"})

QUANTITY = re.compile(
    r"(?<![\w.,-])(?P<number>\d+(?:[.,]\d+)?)[ \x1f]?(?P<unit>"
    r"ml|cl|l|ltr|litre|liter|g|gr|gram|kg|gb|tb|mah|ah|cm|mm|inch|watt|w)(?!\w)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Unit:
    """One way to write a quantity: its worth in the base unit, and whether it reads well at a given value."""

    worth: float
    spellings: tuple[str, ...]
    least: float = 0.0
    most: float = float("inf")


SCALES: dict[str, tuple[Unit, ...]] = {
    "volume": (
        Unit(1, (" ml", "ml", "ML", " mL"), most=5000),
        Unit(10, (" cl", "cl"), 10, 200),
        Unit(1000, ("L", " L", " Liter", " ltr", "l"), 0.25),
    ),
    "mass": (Unit(1, (" g", "g", " gr", "gr", " gram"), most=5000), Unit(1000, (" kg", "kg", "KG"), 0.25)),
    "storage": (Unit(1, ("GB", " GB", "gb", " Gb"), most=2000), Unit(1000, ("TB", " TB"), 1)),
    "charge": (Unit(1, (" mAh", "mAh", "mah", " MAH")), Unit(1000, (" Ah", "Ah"), 1)),
    "length": (Unit(1, (" mm", "mm"), 10, 600), Unit(10, (" cm", "cm", "CM"), 1)),
    "screen": (Unit(1, (" inch", '"', "in", " Zoll", "''")), Unit(1 / 2.54, (" cm", "cm"), 5, 100)),
    "power": (Unit(1, ("W", " W", " Watt", "watt")),),
}
_SCALE_OF = {
    "ml": ("volume", 1), "cl": ("volume", 10), "l": ("volume", 1000), "ltr": ("volume", 1000),
    "litre": ("volume", 1000), "liter": ("volume", 1000), "g": ("mass", 1), "gr": ("mass", 1), "gram": ("mass", 1),
    "kg": ("mass", 1000),
    "gb": ("storage", 1), "tb": ("storage", 1000), "mah": ("charge", 1), "ah": ("charge", 1000), "mm": ("length", 1),
    "cm": ("length", 10), "inch": ("screen", 1), "w": ("power", 1), "watt": ("power", 1),
}  # fmt: skip


def rewrite(title: str, rng: np.random.Generator, language: str = "en") -> str:
    """`title` with each quantity in another unit or spelling of the same value."""
    return QUANTITY.sub(lambda hit: _another(hit, rng, language), title)


def _another(hit: re.Match[str], rng: np.random.Generator, language: str) -> str:
    scale, worth = _SCALE_OF[hit["unit"].lower()]
    value = float(hit["number"].replace(",", ".")) * worth
    fitting = [unit for unit in SCALES[scale] if unit.least <= value / unit.worth <= unit.most]
    if not fitting:
        return hit.group()
    unit = fitting[int(rng.integers(0, len(fitting)))]
    number = f"{round(value / unit.worth, 3):g}" if value / unit.worth < 1e5 else f"{value / unit.worth:.0f}"
    if language in DECIMAL_COMMA and rng.random() < 0.6:
        number = number.replace(".", ",")
    return number + unit.spellings[int(rng.integers(0, len(unit.spellings)))]
