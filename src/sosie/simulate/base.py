"""Products read from a table of real ones and a folder of their pictures."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from sosie.errors import DatasetError
from sosie.simulate.products import Photo, Product, bundle_of, gtin, identity, share_of_hue

COLUMNS = ("id", "title", "category", "image")
OPTIONAL = ("colour", "gender", "season", "usage", "second_image", "brand", "price")

HUES = {
    "Green": 85, "Sea Green": 105, "Teal": 128, "Turquoise Blue": 128, "Blue": 155, "Navy Blue": 160, "Lavender": 190,
    "Purple": 195, "Magenta": 220,
}  # fmt: skip
"""Colours that can be turned into another without touching skin, on PIL's scale of 0–255."""

TARGETS = {"Green": 85, "Teal": 125, "Blue": 158, "Purple": 196, "Pink": 232, "Red": 0, "Orange": 18}

SIZES = {
    "Apparel": ("Size S", "Size M", "Size L", "Size XL", "Size XXL"),
    "Footwear": ("EU 38", "EU 39", "EU 40", "EU 41", "EU 42", "EU 43"),
    "Personal Care": ("30 ml", "50 ml", "100 ml", "150 ml"),
}
PRICES = {"Apparel": (6, 70), "Footwear": (12, 140), "Accessories": (8, 180), "Personal Care": (4, 70)}


PEOPLE = frozenset(("men", "women", "unisex", "kids", "boys", "girls", "men's", "women's", "mens", "womens"))


def read(
    products: Path, images: Path | None, seed: int, family_share: float, *, with_pictures: bool = True
) -> Iterator[Product]:
    """Each product of the CSV once, in an order drawn from `seed`; `family_share` of them with variants.

    Raises `DatasetError` where the file is no such CSV, or a picture that it names is missing.
    """
    table = _table(products)
    folder = (images or products.parent / "images") if with_pictures else None
    brands = _brands(table["title"].to_list())
    rows = table.to_dicts()
    for index in np.random.default_rng([seed, 20]).permutation(len(rows)).tolist():
        yield from _family(rows[index], brands[index], folder, seed, family_share)


def _table(products: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(products, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"{products} can't be read as a CSV of products: {error}") from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DatasetError(
            f"{products} lacks the columns {missing}; needed are {list(COLUMNS)}, {list(OPTIONAL)} if known."
        )
    table = table.with_columns(pl.lit(None, pl.String).alias(name) for name in OPTIONAL if name not in table.columns)
    table = table.filter(pl.col("title").str.strip_chars().str.len_chars() > 0).unique(
        "id", keep="first", maintain_order=True
    )
    if table.is_empty():
        raise DatasetError(f"{products} holds no product with a title; give a file that does.")
    return table


def picture(name: str, folder: Path) -> Path:
    """Where the picture `name` lies: under the folder, or, where `name` repeats the folder's own name, beside it."""
    for path in (folder / name, folder.parent / name, folder / Path(name).name):
        if path.is_file():
            return path
    raise DatasetError(
        f"Picture {name} is neither under {folder} nor under {folder.parent}; check the pictures' folder."
    )


def _brands(titles: list[str]) -> list[str | None]:
    """The words that a title begins with, as far as most titles that begin alike go on alike."""
    heads: dict[str, Counter[str]] = defaultdict(Counter)
    split = [title.split() for title in titles]
    for words in split:
        for length in range(min(4, len(words) - 1)):
            heads[" ".join(words[:length])][words[length]] += 1
    brands: list[str | None] = []
    for words in split:
        length = 1 if heads[""][words[0]] >= 3 else 0
        while 0 < length < min(4, len(words) - 1):
            following = heads[" ".join(words[:length])]
            if words[length].lower() in PEOPLE or following[words[length]] < 5:
                break
            if following[words[length]] < 0.8 * following.total():
                break
            length += 1
        brands.append(" ".join(words[:length]) or None)
    return brands


def _family(
    row: dict[str, str | None], brand: str | None, folder: Path | None, seed: int, family_share: float
) -> Iterator[Product]:
    rng = np.random.default_rng([seed, 21, int(identity(row["id"], length=8), 16)])
    title, category, colour = str(row["title"]).strip(), str(row["category"] or ""), row["colour"] or ""
    top = category.split("/")[0]
    low, high = PRICES.get(top, (5, 100))
    drawn = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 2)
    sides = [name for name in (row["image"], row["second_image"]) if name]
    base = Product(
        product_id=identity(seed, "product", row["id"]),
        family_id=identity(seed, "family", row["id"]),
        variant="base",
        title=title,
        brand=row["brand"] or brand,
        category=category,
        price=float(row["price"] or drawn),
        gtin=gtin(seed, "base", row["id"]),
        protected=tuple(colour.lower().split()),
        facts=tuple(
            f"{name.capitalize()}: {row[name]}." for name in ("colour", "gender", "season", "usage") if row[name]
        ),
        views=() if folder is None else tuple(Photo(picture(name, folder)) for name in sides),
    )
    if rng.random() >= family_share:
        yield base
        return
    ways = ["bundle"] + ["size"] * (top in SIZES) + ["colour"] * _shows(base, colour)
    chosen = [ways[i] for i in rng.permutation(len(ways))][: int(rng.integers(1, len(ways) + 1))]
    if "size" in chosen:  # then every one of the family says its size
        first, *others = rng.permutation(SIZES[top])[: int(rng.integers(2, 4))].tolist()
        sized = [_sized(base, size, seed) for size in others]
        base = replace(_sized(base, first, seed), product_id=base.product_id, variant="base", gtin=base.gtin)
        yield base
        yield from sized
    else:
        yield base
    if "colour" in chosen:
        yield _coloured(base, colour, seed, rng)
    if "bundle" in chosen:
        yield bundle_of(base, seed, shows_one=bool(rng.random() < 0.4))


def _shows(product: Product, colour: str) -> bool:
    """Whether `colour` can be turned, and is there to be turned in each of the product's pictures."""
    return colour in HUES and all(share_of_hue(shot.render(), HUES[colour]) > 0.07 for shot in product.views)


def _sized(product: Product, size: str, seed: int) -> Product:
    return replace(
        product,
        product_id=identity(seed, product.product_id, size),
        variant="size",
        title=f"{product.title} {size}",
        gtin=gtin(seed, product.product_id, size),
        protected=(*product.protected, *size.lower().split()),
        facts=(*product.facts, f"Size: {size.removeprefix('Size ')}."),
    )


def _coloured(product: Product, colour: str, seed: int, rng: np.random.Generator) -> Product:
    """The same thing in a colour at least a fifth of the circle away from its own."""
    far = [name for name, hue in TARGETS.items() if 50 <= (hue - HUES[colour]) % 256 <= 206]
    target = str(rng.choice(far))
    title = product.title
    for said in (colour, colour.split()[0], colour.split()[-1]):
        if said in title.split() or said in title:
            title = title.replace(said, target)
            break
    else:
        title = f"{title} {target}"
    turn = (HUES[colour], TARGETS[target])
    return replace(
        product,
        product_id=identity(seed, product.product_id, target),
        variant="colour",
        title=title,
        gtin=gtin(seed, product.product_id, target),
        protected=(*(word for word in product.protected if word not in colour.lower().split()), target.lower()),
        facts=(*(fact for fact in product.facts if not fact.startswith("Colour")), f"Colour: {target}."),
        views=tuple(replace(shot, hue=turn) for shot in product.views if isinstance(shot, Photo)),
    )
