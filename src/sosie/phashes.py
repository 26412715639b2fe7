"""Near pictures by perceptual hash: one picture scaled, squeezed or stamped anew, where nothing but its hash is known.

Equal hashes are an exact key (`blocking.KEYS`); these are the ones a few bits away. All of them are found, without
looking at every hash, by hashing parts of them (Norouzi et al. 2012, "Fast search in Hamming space with multi-index
hashing", by FAISS).
"""

import math

import numpy as np
import polars as pl

from sosie.blocking import NEIGHBOURS, nearest, nobody
from sosie.settings import Blocking

SOURCE = "near_phash"

_BITS, _PARTS = 64, 4
_ASKED_AT_ONCE = 512
"""Hashes whose near ones are in memory together. Plain pictures have thousands of those, of which few are kept."""


def neighbours(asking: pl.Series, listings: pl.DataFrame, rules: Blocking) -> dict[str, pl.DataFrame]:
    """The source "near_phash" for `blocking.candidates`: whose picture among `listings` (listing_id, image_phash) is
    nearly the same. Empty where the setting leaves it out."""
    if not rules.phash_neighbours or asking.is_empty():
        return {}
    return {SOURCE: join(asking, listings, rules.phash_neighbours, rules.min_phash_similarity)}


def join(asking: pl.Series, listings: pl.DataFrame, k: int, min_similarity: float) -> pl.DataFrame:
    """The `k` nearest among `listings` (listing_id, image_phash: 16 hexadecimal digits or null) of each that asks.

    Similarity is the share of equal bits; who has an equal hash is left out. Exact. Returns query_id, listing_id,
    similarity, nearest first.
    """
    import faiss

    hashed = listings.select("listing_id", code=pl.col("image_phash").cast(pl.String).str.to_lowercase())
    hashed = hashed.filter(pl.col("code").str.contains("^[0-9a-f]{16}$")).sort("listing_id")
    asked = hashed.filter(pl.col("listing_id").is_in(asking.implode()))
    # Each hash once: a placeholder may have thousands of listings, of which a list has room for the first few.
    members = hashed.group_by("code").agg(pl.col("listing_id").head(k)).sort("code")
    farthest = math.floor((1 - min_similarity) * _BITS + 1e-6)
    found = []
    if not asked.is_empty() and farthest > 0:
        # Of so many bits that differ, one part of four has a quarter at most.
        index = faiss.IndexBinaryMultiHash(_BITS, _PARTS, _BITS // _PARTS)
        index.nflip = farthest // _PARTS
        index.add(_bytes(members["code"]))
        codes = asked["code"].unique().sort()
        for start in range(0, len(codes), _ASKED_AT_ONCE):
            part = codes[start : start + _ASKED_AT_ONCE]
            limits, bits, rows = index.range_search(_bytes(part), farthest + 1)
            owner = np.repeat(np.arange(len(part)), np.diff(limits).astype(np.int64))
            other = bits > 0
            hits = pl.DataFrame(
                {
                    "code": part.gather(owner[other]),
                    "row": rows[other],
                    "similarity": (1 - bits[other] / _BITS).astype(np.float32),
                }
            )
            # The nearest k hashes, and those as near as the last: all have a listing, so no other is needed.
            place = pl.col("similarity").rank("min", descending=True).over("code")
            hits = hits.filter(place <= k)
            near = hits.hstack(members[hits["row"].to_numpy()].select("listing_id")).explode("listing_id")
            near = near.join(asked.rename({"listing_id": "query_id"}), on="code").select(NEIGHBOURS.names())
            found.append(nearest(near, k))
    return pl.concat([nobody(listings["listing_id"]), *found]).sort("query_id", maintain_order=True)


def _bytes(codes: pl.Series) -> np.ndarray:
    """uint8 [n, 8] of hashes in hex."""
    return np.frombuffer(bytes.fromhex("".join(codes)), dtype=np.uint8).reshape(-1, _BITS // 8)
