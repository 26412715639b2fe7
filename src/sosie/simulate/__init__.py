"""A marketplace with ground truth: products, the listings that sellers make of them, and hourly change feeds.

    <out>/landing/<YYYY-MM-DDTHH>/listings.parquet   the feed of an hour, columns `tables.FEED`
    <out>/landing/pictures/<2 hex>/<name>.jpg        pictures; `image_uri` is relative to <out>/landing
    <out>/truth.parquet                              listing_id, product_id of what lives after the last hour
    <out>/truth_hours.parquet                        hour, listing_id, kind, rule of every row that was sent
    <out>/products.parquet                           product_id, family_id, variant, title, brand, category
    <out>/simulation.json                            options and counts; written last

Equal options give equal bytes. Chance is drawn from generators seeded by (seed, purpose, serial), so no listing's noise
depends on how many others there are before it in a file.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sosie.errors import SettingsError
from sosie.simulate import album, base, generated
from sosie.simulate.feeds import Life, Sent, group_sizes
from sosie.simulate.options import Marketplace
from sosie.simulate.products import Product
from sosie.tables import FEED

__all__ = ["Marketplace", "Summary", "write"]

CARD = "simulation.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Summary:
    """What was written. `rows` counts each hour's rows by kind; `groups` the live duplicate groups by their size."""

    out: Path
    live: int
    products: int
    pictures: int
    rows: dict[str, dict[str, int]]
    groups: dict[str, int]

    def __str__(self) -> str:
        hours = "\n".join(
            f"  {hour}  {sum(kinds.values()):>7,} rows: "
            + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
            for hour, kinds in self.rows.items()
        )
        return (
            f"{self.live:,} live listings of {self.products:,} products with {self.pictures:,} pictures in {self.out}\n"
            f"{hours}\n  duplicate groups: " + ", ".join(f"{count:,} of {size}" for size, count in self.groups.items())
        )

    def __rich__(self) -> str:
        return str(self)


def write(out: Path, options: Marketplace) -> Summary:
    """Simulate a marketplace into `out`. A folder that holds the same simulation is left as it is.

    Many pictures are written by two spawned processes, so a script that calls this needs its `__main__` guard.

    Raises `SettingsError` where `out` holds anything else, `DatasetError` where the given products can't be read.
    """
    wanted = options.as_dict()
    if (out / CARD).is_file():
        return _held(out, wanted)
    partial = out / _PARTIAL
    if out.exists() and any(path != partial for path in out.iterdir()):
        raise SettingsError(
            f"{out} is not empty and holds no finished simulation; give another folder, or delete this one first."
        )
    shutil.rmtree(partial, ignore_errors=True)  # left by a simulation that was interrupted
    partial.mkdir(parents=True)
    card = {"options": wanted, **_simulate(partial, options)}
    (partial / CARD).write_text(json.dumps(card, indent=2) + "\n")
    # The card says that all is there, so it goes last.
    for path in sorted(partial.iterdir(), key=lambda path: path.name == CARD):
        path.replace(out / path.name)
    partial.rmdir()
    return _summary(out, card)


def _held(out: Path, wanted: dict[str, Any]) -> Summary:
    try:
        card = json.loads((out / CARD).read_text())
        options = card["options"]
        summary = _summary(out, card)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SettingsError(f"{out / CARD} is damaged ({error!r}); delete {out} and simulate again.") from None
    if differing := sorted(name for name in wanted | options if wanted.get(name) != options.get(name)):
        raise SettingsError(
            f"{out} holds a simulation with other options ({', '.join(differing)}); give another folder, or delete it."
        )
    return summary


def _summary(out: Path, card: dict[str, Any]) -> Summary:
    return Summary(out, card["live"], card["products"], card["pictures"], card["rows"], card["groups"])


def _simulate(out: Path, options: Marketplace) -> dict[str, Any]:
    """Write everything but the card; the card's counts."""
    total = options.listings + round(options.new * options.listings) * (options.hours - 1)
    products, slots = _assortment(options, total)
    life = Life(options, products, slots)
    landing, told = out / "landing", []
    rows: dict[str, dict[str, int]] = {}
    for hour, sent in life.hours():
        (landing / hour).mkdir(parents=True)
        pl.DataFrame([one.row for one in sent], schema=FEED).write_parquet(landing / hour / "listings.parquet")
        told += [_told(hour, one) for one in sent]
        rows[hour] = dict(sorted(Counter(one.kind for one in sent).items()))
    pl.DataFrame(
        told, schema=dict.fromkeys(("hour", "listing_id", "kind", "rule"), pl.String), orient="row"
    ).write_parquet(out / "truth_hours.parquet")
    truth = pl.DataFrame(
        sorted((name, products[listing.product].product_id) for name, listing in life.live.items()),
        schema={"listing_id": pl.String, "product_id": pl.String}, orient="row",
    )  # fmt: skip
    truth.write_parquet(out / "truth.parquet")
    names = ("product_id", "family_id", "variant", "title", "brand", "category")
    pl.DataFrame(
        sorted(tuple(getattr(product, name) for name in names) for product in products),
        schema=dict.fromkeys(names, pl.String), orient="row",
    ).write_parquet(out / "products.parquet")  # fmt: skip
    shelves = ((products[index].views, takes) for index, takes in sorted(life.takes.items()))
    sizes = Counter(truth["product_id"].value_counts()["count"].to_list())
    return {
        "live": truth.height,
        "products": truth["product_id"].n_unique(),
        "pictures": album.write(landing, options.seed, shelves),
        "rows": rows,
        "groups": {str(size): count for size, count in sorted(sizes.items())},
    }


def _told(hour: str, sent: Sent) -> tuple[str, str | None, str, str | None]:
    return hour, sent.row["listing_id"], sent.kind, sent.rule


def _assortment(options: Marketplace, total: int) -> tuple[list[Product], list[int]]:
    """Products, and for each of `total` listings the index of its product, in mixed order."""
    rng = np.random.default_rng([options.seed, 31])
    products: list[Product] = []
    slots: list[int] = []
    for product, size in zip(_products(options), group_sizes(rng), strict=False):
        slots += [len(products)] * size
        products.append(product)
        if len(slots) >= total:
            break
    if missing := total - len(slots):
        # More listings than the products would have by nature: what is listed often is listed more often still.
        slots += [slots[i] for i in rng.integers(0, len(slots), max(0, missing))]
    return products, [slots[i] for i in rng.permutation(len(slots))[:total]]


def _products(options: Marketplace) -> Iterator[Product]:
    if options.products is None:
        made = generated.generate(options.seed, options.family_share)
        if options.with_pictures:
            return made
        return (replace(product, views=()) for product in made)
    return base.read(
        options.products, options.images, options.seed, options.family_share, with_pictures=options.with_pictures
    )
