"""Vectors between tables and arrays: a list column in a frame (listing_id, vector), float32 [n, width] in numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.tables import DIM, VECTOR

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picked:
    """Rows of matrices that lie elsewhere, as in mapped files; what is asked for of them is copied, and not before.

    Reads as float32 [n, width]. `rows` int64 [n] are counted through all `parts`, each float32 [*, width].
    """

    parts: Sequence[Vectors]
    rows: Places

    @classmethod
    def of(cls, vectors: pl.Series, rows: pl.Series) -> "Picked":
        """Of a list column some rows, in the order that they are named in. None of them is null."""
        return cls([_matrix(part) for part in vectors.get_chunks()], rows.cast(pl.Int64).to_numpy())

    @cached_property
    def _ends(self) -> Places:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: slice | Places) -> Vectors:
        rows = self.rows[where]
        found = np.empty((len(rows), self.parts[0].shape[1] if self.parts else DIM), np.float32)
        of = np.searchsorted(self._ends, rows, side="right")
        for number in np.flatnonzero(np.bincount(of)).tolist():
            mine, part = np.flatnonzero(of == number), self.parts[number]
            found[mine] = part[rows[mine] - (self._ends[number] - len(part))]
        return found


def matrix(frame: pl.DataFrame) -> Vectors:
    """The frame's column `vector` as float32 [n, 128], contiguous. Raises where a vector has another width."""
    return _matrix(frame["vector"])


def _matrix(vectors: pl.Series) -> Vectors:
    return np.ascontiguousarray(vectors.cast(pl.Array(pl.Float32, DIM)).to_numpy())


def frame(ids: pl.Series, vectors: Vectors) -> pl.DataFrame:
    """Frame (listing_id, vector) of float32 [n, 128]."""
    return pl.DataFrame({"listing_id": ids, "vector": pl.Series(vectors).cast(VECTOR)})
