"""What titles share, weighted by how rare it is: sparse rows of words and character n-grams, and sums over row pairs.

The document frequencies are frozen with the decider: a pair's features never depend on what else is in the catalogue
today, so scoring a pair in an hourly run and in a full rebuild gives the same number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sosie.decider.titles import DIMENSIONS, Title

WORD_BITS, NGRAM_BITS = 17, 17
NGRAMS = (3, 4)

Sparse = Any
"""A scipy CSR matrix `[listings, hashed terms]`; scipy carries no types."""


def _binary_rows(terms: Iterable[Iterable[str]], bits: int) -> Sparse:
    """One row of hashed terms each, 1 where a term is there (hashing trick, Weinberger et al. 2009)."""
    from sklearn.feature_extraction import FeatureHasher

    rows = FeatureHasher(n_features=1 << bits, input_type="string", alternate_sign=False, dtype=np.float32)
    matrix = rows.transform([list(found) for found in terms])
    matrix.data[:] = 1
    return matrix


def _ngrams(text: str) -> set[str]:
    """Character n-grams of the title without its blanks, and of its ends: `64 gb` and `64gb` are the same."""
    joined = f"^{text.replace(' ', '')}$"
    return {joined[i : i + n] for n in NGRAMS for i in range(len(joined) - n + 1)}


@dataclass(frozen=True)
class Vocabulary:
    """Inverse document frequencies of hashed words `[2**17]` and character n-grams `[2**17]`, float32."""

    word_idf: np.ndarray
    ngram_idf: np.ndarray

    @classmethod
    def fit(cls, titles: list[Title]) -> "Vocabulary":
        """Smoothed idf, log((1 + n) / (1 + df)) + 1 (as scikit-learn has it), rounded to half precision as stored."""

        def idf(rows: Sparse) -> np.ndarray:
            frequency = np.asarray(rows.sum(axis=0)).ravel()
            weights = np.log((1 + len(titles)) / (1 + frequency)) + 1
            return np.asarray(weights, dtype=np.float16).astype(np.float32)

        return cls(
            idf(_binary_rows((set(title.words) for title in titles), WORD_BITS)),
            idf(_binary_rows((_ngrams(title.text) for title in titles), NGRAM_BITS)),
        )

    def save(self, path: Path) -> None:
        """Half precision: the third decimal of an idf decides nothing."""
        np.savez_compressed(
            path, word_idf=self.word_idf.astype(np.float16), ngram_idf=self.ngram_idf.astype(np.float16)
        )

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        with np.load(path) as tables:
            return cls(tables["word_idf"].astype(np.float32), tables["ngram_idf"].astype(np.float32))


@dataclass(frozen=True)
class Weighted:
    """Sets of terms as sparse rows: `weight` holds each term's idf, `present` a 1."""

    weight: Sparse
    present: Sparse

    @classmethod
    def of(cls, terms: Iterable[Iterable[str]], idf: np.ndarray, bits: int) -> "Weighted":
        present = _binary_rows(terms, bits)
        weight = present.copy()
        weight.data = idf[present.indices]
        return cls(weight, present)

    @cached_property
    def total(self) -> np.ndarray:
        return np.asarray(self.weight.sum(axis=1)).ravel()

    @cached_property
    def size(self) -> np.ndarray:
        return np.diff(self.present.indptr).astype(np.float32)

    @cached_property
    def unit(self) -> Sparse:
        """Rows scaled to unit length."""
        from sklearn.preprocessing import normalize

        return normalize(self.weight)

    def cosine(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """TF-IDF cosine of each pair of rows, `[pairs]`."""
        return np.asarray(self.unit[left].multiply(self.unit[right]).sum(axis=1), dtype=np.float32).ravel()

    def compare(self, left: np.ndarray, right: np.ndarray) -> "Compared":
        """What each pair of rows shares and what only one side has."""
        a, b = self.weight[left], self.present[right]
        shared = a.multiply(b).tocsr()
        # What is left of a row once the shared terms are taken out; their places stay, as explicit zeros.
        only_left = a - shared
        only_right = self.weight[right] - shared
        return Compared(
            shared=_sums(shared),
            shared_count=np.diff(shared.indptr).astype(np.float32),
            rarest_shared=_maxima(shared),
            rarest_left=_maxima(only_left),
            rarest_right=_maxima(only_right),
            total_left=self.total[left],
            total_right=self.total[right],
            size_left=self.size[left],
            size_right=self.size[right],
        )


def _sums(rows: Sparse) -> np.ndarray:
    return np.asarray(rows.sum(axis=1), dtype=np.float32).ravel()


def _maxima(rows: Sparse) -> np.ndarray:
    return np.asarray(rows.max(axis=1).todense(), dtype=np.float32).ravel()


@dataclass(frozen=True)
class Compared:
    """Sums of idf per pair: shared, in all on each side; the rarest term that is shared, and that one side alone has."""

    shared: np.ndarray
    shared_count: np.ndarray
    rarest_shared: np.ndarray
    rarest_left: np.ndarray
    rarest_right: np.ndarray
    total_left: np.ndarray
    total_right: np.ndarray
    size_left: np.ndarray
    size_right: np.ndarray

    @property
    def jaccard(self) -> np.ndarray:
        return _share(self.shared, self.total_left + self.total_right - self.shared)

    @property
    def overlap(self) -> np.ndarray:
        """Share of the lighter side that the other has too."""
        return _share(self.shared, np.minimum(self.total_left, self.total_right))

    @property
    def coverage(self) -> np.ndarray:
        """Share of the heavier side that the other has too."""
        return _share(self.shared, np.maximum(self.total_left, self.total_right))

    @property
    def lesser_remainder(self) -> np.ndarray:
        """Rarity of what the lighter side alone has: small where one title contains the other."""
        return np.minimum(self.total_left, self.total_right) - self.shared

    @property
    def rarest_on_both(self) -> np.ndarray:
        """Rarest unshared term of the side where it is less rare: high only where *each* side names something else."""
        return np.minimum(self.rarest_left, self.rarest_right)

    @property
    def rarest_on_one(self) -> np.ndarray:
        return np.maximum(self.rarest_left, self.rarest_right)

    @property
    def alone(self) -> tuple[np.ndarray, np.ndarray]:
        """Terms that only one side has: the smaller and the larger of the two counts."""
        left, right = self.size_left - self.shared_count, self.size_right - self.shared_count
        return np.minimum(left, right), np.maximum(left, right)

    @property
    def agreement(self) -> np.ndarray:
        """1 something shared and nothing on its own on both sides; -1 both name some and share none; NaN a side has none."""
        both = (self.size_left > 0) & (self.size_right > 0)
        lesser, _ = self.alone
        value = np.where(self.shared_count == 0, -1.0, np.where(lesser == 0, 1.0, 0.0))
        return np.where(both, value, np.nan).astype(np.float32)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@dataclass(frozen=True)
class Quantities:
    """Smallest and largest quantity `[listings, dimensions]` in base units, NaN where a title names none."""

    least: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, titles: list[Title]) -> "Quantities":
        least = np.full((len(titles), len(DIMENSIONS)), np.nan, dtype=np.float32)
        most = least.copy()
        for row, title in enumerate(titles):
            for dimension, values in title.quantities.items():
                column = DIMENSIONS.index(dimension)
                least[row, column], most[row, column] = values[0], values[-1]
        return cls(least, most)

    def difference(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """|log ratio| of the quantities by dimension `[pairs, dimensions]`, the larger of least and most; NaN unless both have one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.abs(np.log(self.least[left]) - np.log(self.least[right]))
            most = np.abs(np.log(self.most[left]) - np.log(self.most[right]))
        return np.minimum(np.maximum(least, most), 20.0)

    def one_sided(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """How many dimensions only one of the two titles names, `[pairs]`."""
        return (np.isnan(self.most[left]) != np.isnan(self.most[right])).sum(axis=1).astype(np.float32)
