"""Titles to learn from: clean, with the number of their true group, of every dataset of a part."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.evaluate import datasets
from sosie.listings import clean_titles

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Titles:
    """`texts` [n] and `groups` int64 [n]: numbers of true groups, none in two corpora. `corpora` [n] names the source.

    A title that a group has twice is there once: there is nothing to learn from a text and itself.
    """

    texts: list[str]
    groups: Ints
    corpora: list[str]

    @classmethod
    def read(cls, part: Path) -> "Titles":
        """All grouped datasets below a part's folder, in the order of their names."""
        frames = []
        for folder in sorted(path for path in part.iterdir() if path.is_dir()):
            dataset = datasets.load(folder)
            if dataset.has_groups:
                rows = dataset.listings.select("listing_id", title=clean_titles(pl.col("title"))).join(
                    dataset.truth, on="listing_id", maintain_order="left"
                )
                frames.append(rows.select("title", "group", corpus=pl.lit(dataset.name)))
        table = (
            pl.concat(frames)
            .filter(pl.col("title").str.len_chars() > 0)
            .unique(maintain_order=True)
            .with_columns(number=pl.struct("corpus", "group").rank("dense") - 1)
        )
        return cls(table["title"].to_list(), table["number"].to_numpy().astype(np.int64), table["corpus"].to_list())

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, corpus: str) -> "Titles":
        """The titles of one corpus; group numbers stay."""
        mine = [place for place, name in enumerate(self.corpora) if name == corpus]
        return Titles([self.texts[i] for i in mine], self.groups[mine], [corpus] * len(mine))
