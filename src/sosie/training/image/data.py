"""Training pictures: the listings' pictures of simulated marketplaces, decoded once, small, in memory."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sosie.embedding.image import squeezed
from sosie.evaluate import datasets
from sosie.pictures import PictureFault

_SPARED = 0.07
"""Share of the families that training doesn't see, for the figures that are logged on the way."""


@dataclass(frozen=True)
class Pictures:
    """`pixels` uint8 [n, 3, s, s]; `table` has a row a picture: path, product, family, category, spared.

    A family are the variants of one product: other sizes may show the very same picture, so variants are never taught
    to be apart, and never to be together.
    """

    pixels: Tensor
    table: pl.DataFrame

    @classmethod
    def read(cls, part: Path, side: int) -> "Pictures":
        """Each different picture file of the marketplaces below a part's folder, side × side pixels."""
        tables = [listed(folder) for folder in sorted(part.iterdir()) if (folder / "products.parquet").is_file()]
        table = pl.concat(tables).unique("path", keep="first", maintain_order=True)
        pixels, kept = [], []
        for path in table["path"]:
            try:
                pixels.append(squeezed(Path(path).read_bytes(), side))
                kept.append(True)
            except (PictureFault, FileNotFoundError):  # broken or missing on purpose, as in some feeds
                kept.append(False)
        stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        return cls(stacked, table.filter(pl.Series(kept)))

    def subset(self, *, spared: bool) -> "Pictures":
        rows = np.flatnonzero(self.table["spared"].to_numpy() == spared)
        return Pictures(self.pixels[torch.from_numpy(rows)], self.table[rows])

    def codes(self, column: str) -> Tensor:
        """int64 [n] a number a picture, equal where `column` is."""
        return torch.from_numpy(self.table[column].rank("dense").to_numpy().astype(np.int64) - 1)

    def twins(self, generator: torch.Generator) -> Tensor:
        """int64 [n] for each picture another of its product, drawn anew; the picture itself where there is no other."""
        product = self.codes("product")
        order = torch.argsort(product + torch.rand(len(product), generator=generator) * 0.5)
        ranked = product[order]
        following = order.roll(-1)
        first = torch.searchsorted(ranked, ranked, side="left")
        is_last = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])
        twin = torch.where(is_last, order[first], following)
        found = torch.empty_like(order)
        found[order] = twin
        return found


def listed(folder: Path) -> pl.DataFrame:
    """Pictures of a marketplace's live listings, with what they show."""
    dataset = datasets.load(folder)
    products = pl.read_parquet(folder / "products.parquet").select(
        pl.col("product_id").alias("product"), pl.col("family_id").alias("family"), "category"
    )
    root = str(dataset.root)
    return (
        dataset.listings.drop_nulls("image_uri")
        .select("listing_id", path=pl.lit(f"{root}/") + pl.col("image_uri"))
        .join(dataset.truth.rename({"group": "product"}), on="listing_id", maintain_order="left")
        .join(products, on="product", maintain_order="left")
        .with_columns(spared=pl.col("family").map_elements(_is_spared, return_dtype=pl.Boolean))
        .select("path", "product", "family", "category", "spared")
    )


def _is_spared(family: str) -> bool:
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:4], "big") < _SPARED * 2**32
