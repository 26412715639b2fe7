"""A similarity depends on the two listings alone: not on who asks, nor on how many are asked together."""

import numpy as np
import polars as pl

from sosie import blocking


def test_one_query_and_many_find_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(400, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = pl.Series([f"L{number:03d}" for number in range(400)])
    together = blocking.join(ids, vectors, ids, vectors, 399, -1.0)
    alone = [
        blocking.join(ids[place : place + 1], vectors[place : place + 1], ids, vectors, 399, -1.0)
        for place in range(0, 400, 40)
    ]
    for found in alone:
        assert together.join(found, on=found.columns).height == found.height == 399
    back = together.rename({"query_id": "listing_id", "listing_id": "query_id"}).select(together.columns)
    assert together.join(back, on=together.columns).height == together.height
