"""Training pictures: decoded once, small, in memory; and the products that training never sees."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """`pixels` [n, 3, s, s] uint8; `products` has a row a picture: id, title, category, path, digest, twin.

    `twin` is the row of another photograph or encoding of the same product, else the row itself. Rows with an equal
    `digest` are the same file.
    """

    pixels: Tensor
    products: pl.DataFrame

    def subset(self, rows: pl.Series) -> "Pictures":
        """The given rows; `twin` is renumbered, and falls back to the row itself where the twin is left out."""
        renumbered = {int(row): place for place, row in enumerate(rows)}
        places = rows.to_numpy().astype(np.int64, copy=True)
        products = self.products[places]
        twins = [renumbered.get(int(twin), place) for place, twin in enumerate(products["twin"])]
        return Pictures(
            self.pixels[torch.from_numpy(places)], products.with_columns(twin=pl.Series(twins, dtype=pl.Int64))
        )

    def groups(self) -> Tensor:
        """[n] a number a picture, equal where two rows are known to show the same product."""
        codes = self.products.select(
            pl.col("digest").rank("dense").cast(pl.Int64), pl.col("id").rank("dense").cast(pl.Int64)
        )
        # Equal files under two ids join those ids.
        lowest = codes.with_columns(group=pl.col("id").min().over("digest")).with_columns(
            group=pl.col("group").min().over("id")
        )
        return torch.from_numpy(lowest["group"].to_numpy().copy())


def read(products: Path, images: Path, side: int) -> Pictures:
    """Every picture of `products` (columns id, title, category, image, second_image?), squeezed to side × side pixels.

    Raises `FileNotFoundError` naming the first picture that is not there.
    """
    rows = pl.read_csv(products, schema_overrides={"id": pl.String, "title": pl.String})
    columns = ["id", "title", "category"]
    listed = [rows.select(*columns, path="image")]
    if "second_image" in rows.columns:
        listed.append(rows.filter(pl.col("second_image").is_not_null()).select(*columns, path="second_image"))
    table = pl.concat(listed)
    first = {product: place for place, product in enumerate(rows["id"])}
    second = {product: len(rows) + place for place, product in enumerate(table["id"][len(rows) :])}
    twins = [
        second.get(product, place) if place < len(rows) else first[product] for place, product in enumerate(table["id"])
    ]

    pixels = np.empty((len(table), side, side, 3), np.uint8)
    digests = []
    for place, name in enumerate(table["path"]):
        path = images / Path(name).name
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        with Image.open(path) as image:
            pixels[place] = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
    table = table.with_columns(digest=pl.Series(digests), twin=pl.Series(twins, dtype=pl.Int64))
    return Pictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), table)


def held_out(products: pl.DataFrame, count: int) -> pl.Series:
    """Ids of `count` products kept for evaluation: those whose id hashes lowest, so more products move few of them."""
    ids = products["id"].unique().to_list()
    return pl.Series("id", sorted(ids, key=lambda product: hashlib.sha256(product.encode()).hexdigest())[:count])
