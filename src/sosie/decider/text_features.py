"""What titles share, weighted by how rare it is: sparse rows of words and character n-grams, and sums over row pairs.

The document frequencies are frozen with the decider: a pair's features never depend on what else is in the catalogue
today, so scoring a pair in an hourly run and in a full rebuild gives the same number.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.decider.parsed import BITS, parsed
from sosie.decider.titles import DIMENSIONS

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Sparse = Any
"""A scipy CSR matrix `[listings, hashed terms]`; scipy carries no types."""

_AT_ONCE = 10_000
"""Rows that are scaled together."""


def rows(hashed: pl.Series, weights: Floats | None = None) -> Sparse:
    """Sets of hashed terms, lists that rise, as sparse rows `[sets, 2**17]` float32 of each term's weight, or of 1."""
    from scipy.sparse import csr_matrix

    lengths = hashed.list.len().fill_null(0).to_numpy()
    terms = hashed.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    bounds = bounds.astype(np.int32 if bounds[-1] < 2**31 else np.int64)  # half the memory, for any usual catalogue
    values = np.ones(len(terms), np.float32) if weights is None else weights[terms]
    return csr_matrix((values, terms, bounds), shape=(len(hashed), 1 << BITS))


def of_unit_length(given: Sparse) -> Sparse:
    """Sparse rows scaled to unit length, an empty one left as it is; to the last bit what scikit-learn's `normalize`
    gives, whose import takes longer than an hour's titles do."""
    from scipy.sparse import csr_matrix

    values = np.empty(given.nnz, np.float32)
    for start in range(0, given.shape[0], _AT_ONCE):  # what comes and goes stays small: memory is dear when it is new
        bounds = given.indptr[start : start + _AT_ONCE + 1]
        part, own = slice(bounds[0], bounds[-1]), np.diff(bounds)
        row, weights = np.repeat(np.arange(len(own)), own), given.data[part]
        length = np.sqrt(np.bincount(row, weights=weights * weights, minlength=len(own)))
        values[part] = weights / np.where(length > 0, length, 1)[row]
    return csr_matrix((values, given.indices, given.indptr), shape=given.shape)


@dataclass(frozen=True)
class Vocabulary:
    """Inverse document frequencies of hashed words `[2**17]` and character n-grams `[2**17]`, float32."""

    word_idf: Floats
    ngram_idf: Floats

    @classmethod
    def fit(cls, titles: pl.Series) -> "Vocabulary":
        """Smoothed idf, log((1 + n) / (1 + df)) + 1 (as scikit-learn has it), rounded to half precision as stored.

        What no title has weighs as what one has: else who learns from these titles never meets the weight that new
        words have.
        """
        found = parsed(titles)

        def idf(column: str) -> Floats:
            frequency = np.bincount(found[column].explode().drop_nulls().to_numpy(), minlength=1 << BITS)
            weights = np.log((1 + len(titles)) / (1 + np.maximum(frequency, 1))) + 1
            return np.asarray(weights, dtype=np.float16).astype(np.float32)

        return cls(idf("words"), idf("spelling"))

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
    def of(cls, hashed: pl.Series, idf: Floats) -> "Weighted":
        return cls(rows(hashed, idf), rows(hashed))

    @cached_property
    def total(self) -> Floats:
        return np.asarray(self.weight.sum(axis=1)).ravel()

    @cached_property
    def size(self) -> Floats:
        return np.asarray(np.diff(self.present.indptr), dtype=np.float32)

    @cached_property
    def unit(self) -> Sparse:
        """Rows scaled to unit length."""
        return of_unit_length(self.weight)

    def cosine(self, left: Rows, right: Rows) -> Floats:
        """TF-IDF cosine of each pair of rows, `[pairs]`."""
        return np.asarray(self.unit[left].multiply(self.unit[right]).sum(axis=1), dtype=np.float32).ravel()

    def shared(self, left: Rows, right: Rows) -> Floats:
        """Summed idf of what each pair of rows shares, `[pairs]`."""
        return _sums(self.weight[left].multiply(self.present[right]))

    def compare(self, left: Rows, right: Rows) -> "Compared":
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


def _sums(rows: Sparse) -> Floats:
    return np.asarray(rows.sum(axis=1), dtype=np.float32).ravel()


def _maxima(rows: Sparse) -> Floats:
    return np.asarray(rows.max(axis=1).todense(), dtype=np.float32).ravel()


@dataclass(frozen=True)
class Compared:
    """Per pair, by idf: what is shared, the total of each side, the rarest term that is shared, and each side's own."""

    shared: Floats
    shared_count: Floats
    rarest_shared: Floats
    rarest_left: Floats
    rarest_right: Floats
    total_left: Floats
    total_right: Floats
    size_left: Floats
    size_right: Floats

    @property
    def jaccard(self) -> Floats:
        return _share(self.shared, self.total_left + self.total_right - self.shared)

    @property
    def overlap(self) -> Floats:
        """Share of the lighter side that the other has too."""
        return _share(self.shared, np.minimum(self.total_left, self.total_right))

    @property
    def coverage(self) -> Floats:
        """Share of the heavier side that the other has too."""
        return _share(self.shared, np.maximum(self.total_left, self.total_right))

    @property
    def lesser_remainder(self) -> Floats:
        """Rarity of what the lighter side alone has: small where one title contains the other."""
        return np.minimum(self.total_left, self.total_right) - self.shared

    @property
    def rarest_on_both(self) -> Floats:
        """Rarest unshared term of the side where it is less rare: high only where *each* side names something else."""
        return np.minimum(self.rarest_left, self.rarest_right)

    @property
    def rarest_on_one(self) -> Floats:
        return np.maximum(self.rarest_left, self.rarest_right)

    @property
    def alone(self) -> tuple[Floats, Floats]:
        """Terms that only one side has: the smaller and the larger of the two counts."""
        left, right = self.size_left - self.shared_count, self.size_right - self.shared_count
        return np.minimum(left, right), np.maximum(left, right)

    @property
    def agreement(self) -> Floats:
        """1 shared with nothing beside it on a side; -1 both have some, none shared; 0 between; NaN a side has none."""
        both = (self.size_left > 0) & (self.size_right > 0)
        lesser, _ = self.alone
        value = np.where(self.shared_count == 0, -1.0, np.where(lesser == 0, 1.0, 0.0))
        return np.where(both, value, np.nan).astype(np.float32)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@dataclass(frozen=True)
class Quantities:
    """Smallest and largest quantity `[listings, dimensions]` in base units, NaN where a title names none."""

    least: Floats
    most: Floats

    @classmethod
    def of(cls, least: pl.Series, most: pl.Series) -> "Quantities":
        """Lists with a number for each dimension, or none at all."""
        return cls(*(_dense(values) for values in (least, most)))

    def difference(self, left: Rows, right: Rows) -> Floats:
        """|log ratio| `[pairs, dimensions]`, the larger of the least's and the most's; NaN unless both have one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.abs(np.log(self.least[left]) - np.log(self.least[right]))
            most = np.abs(np.log(self.most[left]) - np.log(self.most[right]))
        return np.asarray(np.minimum(np.maximum(least, most), 20.0), dtype=np.float32)

    def one_sided(self, left: Rows, right: Rows) -> Floats:
        """How many dimensions only one of the two titles names, `[pairs]`."""
        return np.asarray((np.isnan(self.most[left]) != np.isnan(self.most[right])).sum(axis=1), dtype=np.float32)


def _dense(values: pl.Series) -> Floats:
    dense = np.full((len(values), len(DIMENSIONS)), np.nan, dtype=np.float32)
    named = values.list.len().fill_null(0).to_numpy() > 0
    dense[named] = values.explode(empty_as_null=False, keep_nulls=False).to_numpy().reshape(-1, len(DIMENSIONS))
    return dense
