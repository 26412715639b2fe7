"""Lexical retrieval: titles that share rare spellings, which a title embedding smooths over (model codes, odd brands).

Rows are TF-IDF weighted character n-grams under document frequencies frozen with the decider, so a pair's similarity
never depends on what else is in the catalogue today.
"""

import os

import numpy as np
import polars as pl

from sosie.blocking import nearest, nobody
from sosie.decider import parsed
from sosie.decider.text_features import Sparse, Vocabulary, of_unit_length, rows
from sosie.settings import Blocking

_QUERIES_AT_ONCE = 20_000


def weighed(spellings: pl.Series, vocabulary: Vocabulary) -> Sparse:
    """Unit rows `[titles, 2**17]` float32 of the hashed n-grams of each title; null is an empty row."""
    return of_unit_length(rows(spellings, vocabulary.ngram_idf))


def neighbours(
    asking: pl.Series, listings: pl.DataFrame, vocabulary: Vocabulary, rules: Blocking, *, threads: int = 0
) -> dict[str, pl.DataFrame]:
    """The source "lexical" for `blocking.candidates`: who among `listings` (listing_id, title, perhaps parsed) is spelt
    most alike.

    Reads every title of the catalogue; empty where the setting leaves it out.
    """
    if not rules.lexical_neighbours or asking.is_empty():
        return {}
    held = weighed(parsed.of(listings)["spelling"], vocabulary)
    k, floor = rules.lexical_neighbours, rules.min_lexical_similarity
    return {"lexical": join(asking, listings["listing_id"], held, k, floor, threads=threads)}


def turned(held: Sparse) -> Sparse:
    """A row a term: who has it, and how much it weighs there."""
    return held.T.tocsr()


def join(
    query_ids: pl.Series,
    ids: pl.Series,
    held: Sparse,
    k: int,
    min_similarity: float,
    *,
    threads: int = 0,
    terms: Sparse | None = None,
) -> pl.DataFrame:
    """The `k` nearest of `ids` to each query, which is among them, by cosine of their rows `held`; exact.

    `terms` is `turned(held)`, for who has it already and has `ids` in order.
    Returns query_id, listing_id, similarity, nearest first. Memory is bounded by one block of queries.
    """
    if not (len(query_ids) and k):
        return nobody(ids)
    from sparse_dot_topn import sp_matmul_topn

    if not ids.is_sorted():  # equal similarities are cut alike in whatever order rows arrive
        order = ids.arg_sort().to_numpy()
        ids, held, terms = ids.gather(order), held[order], None
    places = np.flatnonzero(ids.is_in(query_ids.implode()).to_numpy())
    terms, blocks = turned(held) if terms is None else terms, []
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
                schema=nobody(ids).schema,
            )
        )
    return nearest(pl.concat(blocks), k)
