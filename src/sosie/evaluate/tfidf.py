"""What the baseline that Sosie has to beat is made of: TF-IDF cosine of titles, and equal perceptual hashes."""

from typing import Any, Literal

import numpy as np
import polars as pl

from sosie.errors import DatasetError
from sosie.evaluate.knn import Links
from sosie.evaluate.metrics import Ints
from sosie.listings import clean_titles

NEIGHBOURS = 50
"""Nearest titles that a row can be linked to; true groups are rarely larger."""

FLOOR = 0.25
"""Cosines below this are never the best threshold and only cost memory."""

_BLOCK = 512

_MANY = 1_000
"""From here on an n-gram that only one title has is left out: it can't be shared, and there are millions."""

Analyzer = Literal["word", "char"]


def titles_of(listings: pl.DataFrame) -> list[str]:
    """Clean titles, an empty one where there is none."""
    return listings.select(clean_titles(pl.col("title")).fill_null(""))["title"].to_list()


def weights(titles: list[str], analyzer: Analyzer = "word") -> Any:
    """TF-IDF rows of unit length, scipy CSR [n, terms]: words, or character 3- to 5-grams within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms: dict[str, Any] = (
        {"analyzer": "word", "token_pattern": r"\w+"}
        if analyzer == "word"
        else {"analyzer": "char_wb", "ngram_range": (3, 5), "min_df": 2 if len(titles) > _MANY else 1}
    )
    vectorizer = TfidfVectorizer(**terms, sublinear_tf=True, dtype=np.float32)
    try:
        return vectorizer.fit_transform(titles)
    except ValueError as error:
        raise DatasetError(f"No title of the {len(titles)} has a word to compare by ({error}).") from None


def nearest(rows: Any, k: int = NEIGHBOURS, floor: float = FLOOR) -> Links:
    """Links of each row to its `k` most similar, by sparse products a block of rows at a time; none below `floor`."""
    columns = rows.T.tocsr()
    left, right, scores = [], [], []
    for start in range(0, rows.shape[0], _BLOCK):
        product = (rows[start : start + _BLOCK] @ columns).tocoo()
        kept = (product.data >= floor) & (product.row + start != product.col)
        row, column, score = product.row[kept].astype(np.int64), product.col[kept], product.data[kept]
        order = np.lexsort((column, -score, row))
        row, column, score = row[order], column[order], score[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        near = rank < k
        left.append(row[near] + start)
        right.append(column[near].astype(np.int64))
        scores.append(score[near])
    return Links.of(np.concatenate(left), np.concatenate(right), np.concatenate(scores))


def cosines(rows: Any, pairs: Ints) -> np.ndarray:
    """Cosine of each pair of row numbers, float32 [m]."""
    left, right = rows[pairs[:, 0]], rows[pairs[:, 1]]
    return np.asarray(left.multiply(right).sum(axis=1), dtype=np.float32).ravel()


def equal_hashes(listings: pl.DataFrame, limit: int = 200) -> Ints:
    """Pairs of rows whose perceptual hash is equal, int64 [m, 2]; a hash of more than `limit` rows is a placeholder."""
    hashed = listings.select(row=pl.int_range(pl.len(), dtype=pl.Int64), key=pl.col("image_phash").str.to_lowercase())
    hashed = hashed.filter(pl.col("key").is_not_null(), pl.len().over("key").is_between(2, limit))
    pairs = hashed.join(hashed, on="key", suffix="_right").filter(pl.col("row") < pl.col("row_right"))
    return pairs.select("row", "row_right").sort("row", "row_right").to_numpy().astype(np.int64)
