"""The first paper's decider (Kulunk et al. 2025): a small perceptron on a pair's four vectors, text and image of each.

Both sides go through one shared layer; what follows sees how far they differ, and both cosines, so that left and right
can be exchanged. A missing vector is zeros, and a flag says so. Runs in numpy alone, in float32.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.artifacts import Artifact
from sosie.decider.batch import Prepared
from sosie.decider.model import Calibration, Decider, First, verdicts
from sosie.decider.neighbourhood import FLOOR
from sosie.decider.text_features import Vocabulary
from sosie.tables import DIM

KIND = "decider-mlp"
WEIGHTS, VOCABULARY, CALIBRATION = "weights.npz", "vocabulary.npz", "calibration.npz"
FILES = [WEIGHTS, VOCABULARY, CALIBRATION]

_AT_ONCE = 2_048
"""Pairs whose numbers fit the cache of a core together."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """Vectors of listings, float32 `[listings, 128]`, zeros where one is missing; `has` [listings, 2] is 1 or 0."""

    text: Floats
    image: Floats
    has: Floats

    @classmethod
    def of(cls, text: Floats, image: Floats) -> "Sides":
        """From vectors with a row of NaN where a listing has none (of any width where no listing has one)."""
        has = np.stack([~np.isnan(vectors[:, 0]) for vectors in (text, image)], axis=1)
        full = [
            np.where(known[:, None], vectors, np.float32(0)) if known.any() else np.zeros((len(known), DIM), np.float32)
            for vectors, known in zip((text, image), has.T, strict=True)
        ]
        return cls(np.ascontiguousarray(full[0]), np.ascontiguousarray(full[1]), has.astype(np.float32))


@dataclass(frozen=True)
class Perceptron:
    """`matrices` and `biases`, float32: the layer that both sides share [258, width], then those on a pair."""

    matrices: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    @classmethod
    def load(cls, file: Path) -> "Perceptron":
        with np.load(file) as held:
            count = len(held.files) // 2
            return cls(*(tuple(held[f"{kind}_{place}"] for place in range(count)) for kind in ("matrix", "bias")))

    def save(self, file: Path) -> None:
        held: dict[str, Any] = {f"matrix_{place}": matrix for place, matrix in enumerate(self.matrices)}
        held |= {f"bias_{place}": bias for place, bias in enumerate(self.biases)}
        np.savez_compressed(file, **held)

    def log_odds(self, sides: Sides, left: Ints, right: Ints, threads: int = 0) -> Floats:
        """float32 [pairs], by row numbers of `sides`. `threads` 0 takes every core."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        shared = np.hstack([sides.text, sides.image, sides.has]) @ self.matrices[0] + self.biases[0]
        odds = np.empty(len(left), dtype=np.float32)

        def work(start: int) -> None:
            part = slice(start, start + _AT_ONCE)
            odds[part] = self._pairs(sides, shared, left[part], right[part])

        # Each part's products are small: the library's own threads would only wait for each other.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            list(pool.map(work, range(0, len(left), _AT_ONCE)))
        return odds

    def _pairs(self, sides: Sides, shared: Floats, left: Ints, right: Ints) -> Floats:
        one, other = shared[left], shared[right]
        width = one.shape[1]
        values = np.empty((len(left), width + 4), dtype=np.float32)
        np.abs(np.subtract(one, other, out=one), out=values[:, :width])
        for place, vectors in enumerate((sides.text, sides.image)):
            values[:, width + place] = np.einsum("ij,ij->i", vectors[left], vectors[right])
        values[:, width + 2 :] = sides.has[left] * sides.has[right]
        for matrix, bias in zip(self.matrices[1:-1], self.biases[1:-1], strict=True):
            values = values @ matrix
            np.maximum(np.add(values, bias, out=values), 0, out=values)
        return np.asarray((values @ self.matrices[-1] + self.biases[-1])[:, 0])


@dataclass(frozen=True)
class MlpDecider(Decider):
    """In the place of the boosted decider: the same candidates, verdicts and columns; one step, and no reasons."""

    perceptron: Perceptron = field(kw_only=True)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> "MlpDecider":
        """Read a model folder. `threads` 0 takes every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        calibration = Calibration.load(artifact.file(CALIBRATION))
        vocabulary = Vocabulary.load(artifact.file(VOCABULARY))
        perceptron = Perceptron.load(artifact.file(WEIGHTS))
        return cls(artifact, vocabulary, calibration, calibration, threads, perceptron=perceptron)

    def first(
        self,
        pairs: pl.DataFrame,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
    ) -> First:
        """Probability of every pair; there are no features to look at again."""
        listed = Prepared(listings, text_vectors, image_vectors, self.vocabulary)
        left, right = (listed.places(pairs[side]) for side in ("left_id", "right_id"))
        found = self.perceptron.log_odds(Sides.of(listed.text, listed.image), left, right, self.threads)
        odds = found.astype(np.float64) + self.prior
        score = self.calibration.apply(1 / (1 + np.exp(-odds)))
        near = np.flatnonzero(score >= FLOOR)
        return First(score, near, np.empty((len(near), 0), np.float32), odds[near])

    def second(
        self,
        pairs: pl.DataFrame,
        first: First,
        *,
        around: pl.DataFrame | None = None,
        match_at: float | None = None,
        review_at: float | None = None,
        reasons: int = 6,
    ) -> pl.DataFrame:
        """As `Decider.second`; pairs are scored by themselves, so `around` and `reasons` change nothing."""
        match, review = self.thresholds(match_at, review_at)
        return self._decided(pairs, first.score, first.score, verdicts(first.score, match, review))


def load(folder: Path, *, threads: int = 0) -> Decider:
    """The decider in a model folder, of whichever kind its card names. Raises `ModelError`."""
    kind = MlpDecider if (folder / WEIGHTS).exists() else Decider
    return kind.load(folder, threads=threads)
