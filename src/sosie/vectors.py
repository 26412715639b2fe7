"""Vectors between tables and arrays: a list column in a frame (listing_id, vector), float32 [n, width] in numpy."""

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.tables import DIM, VECTOR

Vectors = npt.NDArray[np.float32]


def matrix(frame: pl.DataFrame) -> Vectors:
    """The frame's column `vector` as float32 [n, 128], contiguous. Raises where a vector has another width."""
    return np.ascontiguousarray(frame["vector"].cast(pl.Array(pl.Float32, DIM)).to_numpy())


def frame(ids: pl.Series, vectors: Vectors) -> pl.DataFrame:
    """Frame (listing_id, vector) of float32 [n, 128]."""
    return pl.DataFrame({"listing_id": ids, "vector": pl.Series(vectors).cast(VECTOR)})
