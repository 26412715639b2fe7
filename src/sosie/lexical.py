"""Lexical retrieval: titles that share rare spellings, which a title embedding smooths over (model codes, odd brands).

Rows are TF-IDF weighted character n-grams under document frequencies frozen with the decider, so a pair's similarity
never depends on what else is in the catalogue today.
"""

import os
from typing import Any

import numpy as np
import polars as pl

from sosie.blocking import NEIGHBOURS, nearest
from sosie.decider.text_features import NGRAM_BITS, Vocabulary, Weighted, ngrams
from sosie.decider.titles import parse
from sosie.settings import Blocking

Sparse = Any
"""A scipy CSR matrix; scipy carries no types."""

_QUERIES_AT_ONCE = 20_000


def rows(titles: pl.Series, vocabulary: Vocabulary) -> Sparse:
    """Unit rows `[titles, 2**17]` float32; a null title is an empty row."""
    return Weighted.of((ngrams(parse(title).text) for title in titles), vocabulary.ngram_idf, NGRAM_BITS).unit


def neighbours(
    asking: pl.Series, listings: pl.DataFrame, vocabulary: Vocabulary, rules: Blocking, *, threads: int = 0
) -> dict[str, pl.DataFrame]:
    """The source "lexical" for `blocking.candidates`: who among `listings` (listing_id, title) is spelt most alike.

    Reads every title of the catalogue; empty where the setting leaves it out.
    """
    if not rules.lexical_neighbours or asking.is_empty():
        return {}
    held = rows(listings["title"], vocabulary)
    k, floor = rules.lexical_neighbours, rules.min_lexical_similarity
    return {"lexical": join(asking, listings["listing_id"], held, k, floor, threads=threads)}


def join(
    query_ids: pl.Series, ids: pl.Series, held: Sparse, k: int, min_similarity: float, *, threads: int = 0
) -> pl.DataFrame:
    """The `k` nearest of `ids` to each query, which is among them, by cosine of their rows `held`; exact.

    Returns query_id, listing_id, similarity, nearest first. Memory is bounded by one block of queries.
    """
    if not (len(query_ids) and k):
        return pl.DataFrame(schema=NEIGHBOURS)
    from sparse_dot_topn import sp_matmul_topn

    order = ids.arg_sort().to_numpy()  # equal similarities are cut alike in whatever order rows arrive
    ids, held = ids.gather(order), held[order]
    places = np.flatnonzero(ids.is_in(query_ids.implode()).to_numpy())
    terms, blocks = held.T.tocsr(), []
    for start in range(0, len(places), _QUERIES_AT_ONCE):
        asked = places[start : start + _QUERIES_AT_ONCE]
        # One more than asked for, as the listing finds itself.
        found = sp_matmul_topn(
            held[asked], terms, top_n=k + 1, threshold=min_similarity, sort=True, n_threads=threads or os.cpu_count()
        )
        blocks.append(
            pl.DataFrame(
                {
                    "query_id": ids.gather(np.repeat(asked, np.diff(found.indptr))),
                    "listing_id": ids.gather(found.indices),
                    "similarity": found.data,
                },
                schema=NEIGHBOURS,
            )
        )
    return nearest(pl.concat(blocks), k)
