"""Rows on their way into the index and neighbours on their way out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from sosie.errors import SchemaMismatch
from sosie.tables import DIM
from sosie.vectors import Vectors

NEIGHBOURS = {"query_id": pl.String, "listing_id": pl.String, "similarity": pl.Float32}
"""Columns of a neighbours frame; similarity is the cosine, in [-1, 1]."""

BATCH = 1_000
"""Queries a call, and rows a call of the embedded server, which pays for the whole collection in each."""

CLUSTER_BATCH = 10_000
"""Rows a call of a Milvus proper: it waits a fifth of a second before a read that must see every write."""

MAX_ID_BYTES = 512


def checked(ids: Sequence[str], vectors: Vectors) -> tuple[list[str], Vectors]:
    ids, vectors = list(ids), np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.shape != (len(ids), DIM):
        raise SchemaMismatch(f"{len(ids)} ids need vectors of shape ({len(ids)}, {DIM}); received {vectors.shape}.")
    if len(set(ids)) != len(ids):
        raise SchemaMismatch(f"{len(ids) - len(set(ids))} of {len(ids)} ids are given twice; give each once.")
    if long := [one for one in ids if len(one.encode()) > MAX_ID_BYTES]:
        raise SchemaMismatch(
            f"{len(long)} ids are longer than {MAX_ID_BYTES} bytes; the first starts {long[0][:40]!r}."
        )
    # `not (… <= …)` so that NaN is refused as well.
    wrong = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= 1e-3)
    if wrong.any():
        raise SchemaMismatch(
            f"{int(wrong.sum())} of {len(ids)} vectors are not of unit length; the first is that of "
            f"{ids[int(wrong.argmax())]!r}. Leave out listings that have no vector."
        )
    return ids, vectors


def batches(ids: list[str], vectors: Vectors, rows: int) -> Iterator[tuple[list[str], Vectors]]:
    for start in range(0, len(ids), rows):
        yield ids[start : start + rows], vectors[start : start + rows]


def neighbours(queries: list[str], found: Any, k: int, min_similarity: float) -> pl.DataFrame:
    hits = pl.DataFrame(
        {
            "query_id": queries,
            "listing_id": pl.Series([list(each.ids) for each in found], dtype=pl.List(pl.String)),
            "similarity": pl.Series([list(each.distances) for each in found], dtype=pl.List(pl.Float32)),
        }
    )
    return (
        hits.explode("listing_id", "similarity", empty_as_null=False)
        .filter(pl.col("listing_id") != pl.col("query_id"), pl.col("similarity") >= min_similarity)
        .filter(pl.int_range(pl.len()).over("query_id") < k)
    )


def same(held: Vectors | None, wanted: Vectors) -> bool:
    """Whether the index holds this very vector: it keeps float32 as given, so no tolerance is needed."""
    return held is not None and np.array_equal(held, wanted)
