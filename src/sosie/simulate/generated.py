"""Products that don't exist, family by family."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sosie.simulate.catalogue import BRANDS, COLOURS, KINDS, MODELS, Kind
from sosie.simulate.products import Drawing, Product, bundle_of, gtin, identity


@dataclass(frozen=True)
class _Design:
    """The choices that make one product of a family."""

    model: str
    size: int | None
    colour: str


def generate(seed: int, family_share: float) -> Iterator[Product]:
    """Endless different products; `family_share` of the families have two to four variants, the others one."""
    index, taken = 0, set[str]()
    while True:
        rng = np.random.default_rng([seed, 10, index])
        for product in _family(seed, index, rng, with_variants=rng.random() < family_share):
            if product.title not in taken:  # two families can draw the same words; the second one goes
                taken.add(product.title)
                yield product
        index += 1


def _family(seed: int, index: int, rng: np.random.Generator, *, with_variants: bool) -> Iterator[Product]:
    kind = KINDS[int(rng.integers(len(KINDS)))]
    brand = str(rng.choice(BRANDS[kind.brands]))
    model = str(rng.choice(MODELS))
    number = int(rng.integers(1, 90))
    code = f"{chr(65 + int(rng.integers(26)))}{number}"
    noun, feature = str(rng.choice(kind.nouns)), str(rng.choice(kind.features))
    accent = COLOURS[str(rng.choice(list(COLOURS)))]
    price = float(np.exp(rng.uniform(*np.log(kind.price))))
    coded = kind.coded or rng.random() < 0.25
    first = _Design(
        f"{model} {code}" if coded else model,
        int(rng.integers(len(kind.sizes))) if kind.sizes else None,
        str(rng.choice(list(COLOURS))),
    )

    def product(design: _Design, variant: str) -> Product:
        size = kind.sizes[design.size] if design.size is not None else ""
        shown = "{colour}" in kind.wording
        words = {"brand": brand, "model": design.model, "feature": feature, "noun": noun, "size": size}
        title = " ".join(kind.wording.format(colour=design.colour if shown else "", **words).split())
        step = 1.0 if design.size is None else 0.75 + 0.5 * (design.size + 1) / len(kind.sizes)
        drawing = Drawing(
            shape=kind.shape,
            style=int(identity(seed, "style", index, length=8), 16),
            colour=COLOURS[design.colour],
            accent=accent,
            words=(brand, design.model, size.removeprefix("Size ") or noun.split()[-1]),
            scale=1.0 if design.size is None else 0.86 + 0.14 * (design.size + 1) / len(kind.sizes),
        )
        second = (replace(drawing, view=1),) if index % 5 < 3 else ()
        return Product(
            product_id=identity(seed, "product", index, design),
            family_id=identity(seed, "family", index),
            variant=variant,
            title=title,
            brand=brand,
            category=kind.category,
            price=round(price * step, 2),
            gtin=gtin(seed, "generated", index, design),
            protected=(*design.colour.lower().split(), *design.model.lower().split(), *size.lower().split()),
            facts=(f"{feature} {noun.lower()} by {brand}.", f"Model {design.model}.", f"Colour: {design.colour}.")
            + ((f"Size: {size.removeprefix('Size ')}.",) if size else ()),
            views=(drawing, *second),
        )

    base = product(first, "base")
    yield base
    if not with_variants:
        return
    siblings = _siblings(kind, first, model, code, number, coded, rng)
    for name, design in siblings[: int(rng.integers(1, 4))]:
        yield bundle_of(base, seed, shows_one=bool(rng.random() < 0.4)) if design is None else product(design, name)


def _siblings(
    kind: Kind, first: _Design, model: str, code: str, number: int, coded: bool, rng: np.random.Generator
) -> list[tuple[str, _Design | None]]:
    """Each way to differ from `first`, shuffled; `None` is the bundle."""
    others = [size for size in range(len(kind.sizes)) if size != first.size]
    ways: list[tuple[str, _Design | None]] = [("bundle", None)]
    ways += [("size", replace(first, size=int(size))) for size in rng.permutation(others)[:2]]
    if "{colour}" in kind.wording:
        colours = [colour for colour in COLOURS if colour != first.colour]
        ways += [("colour", replace(first, colour=str(colour))) for colour in rng.permutation(colours)[:2]]
    if coded:
        next_code = f"{code[0]}{number + int(rng.choice([1, 2, 10]))}"
        ways.append(("model", replace(first, model=f"{model} {next_code}")))
    return [ways[i] for i in rng.permutation(len(ways))]
