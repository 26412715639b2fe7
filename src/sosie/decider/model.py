"""The learned decider: gradient-boosted trees over pair features, calibrated, with the reasons for each verdict."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sosie.artifacts import Artifact
from sosie.decider.features import NAMES, pair_features
from sosie.decider.text_features import Vocabulary
from sosie.errors import ModelError, SettingsError

KIND = "decider"
TREES, CALIBRATION, VOCABULARY = "trees.txt", "calibration.npz", "vocabulary.npz"
REASON = pl.Struct({"feature": pl.String, "value": pl.Float64, "contribution": pl.Float64})
_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "left_id": pl.String,
    "right_id": pl.String,
    "score": pl.Float64,
    "verdict": pl.String,
    "reasons": pl.List(REASON),
    "blocked_by": pl.List(pl.String),
    "decider_version": pl.String,
}
DECIDED = pl.Schema(_COLUMNS)


@dataclass(frozen=True)
class Calibration:
    """Raw score → probability, linear between knots (both float64 `[knots]`, rising)."""

    raw: np.ndarray
    probability: np.ndarray

    def apply(self, raw: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(raw, self.raw, self.probability))

    def save(self, path: Path) -> None:
        np.savez_compressed(path, raw=self.raw, probability=self.probability)

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        with np.load(path) as knots:
            return cls(knots["raw"].astype(np.float64), knots["probability"].astype(np.float64))


@dataclass(frozen=True)
class Decider:
    """Gives a pair the probability that both listings sell the same product.

    Scores depend on the two listings and on this model only, so the same pair has the same score in every run.
    """

    artifact: Artifact
    vocabulary: Vocabulary
    calibration: Calibration
    threads: int = 0

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> "Decider":
        """Read a model folder. `threads` 0 takes every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        if tuple(artifact.usage["features"]) != NAMES:
            raise ModelError(
                f"{folder} was trained on other pair features than this code works out; "
                "train it again with `python -m sosie.training.decider`, or check out the code that it came with."
            )
        return cls(
            artifact,
            Vocabulary.load(artifact.file(VOCABULARY)),
            Calibration.load(artifact.file(CALIBRATION)),
            threads,
        )

    @property
    def version(self) -> str:
        return self.artifact.version

    @cached_property
    def _trees(self) -> Any:
        import lightgbm

        return lightgbm.Booster(model_file=str(self.artifact.file(TREES)))

    def thresholds(self, match_at: float | None = None, review_at: float | None = None) -> tuple[float, float]:
        """(match_at, review_at): what is given, else what was fitted with the model. Raises `SettingsError`.

        Where only one is given, the fitted other one gives way to it.
        """
        match = self.artifact.usage["match_at"] if match_at is None else match_at
        review = self.artifact.usage["review_at"] if review_at is None else review_at
        if match_at is not None and review_at is not None and review_at > match_at:
            raise SettingsError(
                f"decider.review_at ({review_at}) is above decider.match_at ({match_at}); "
                "lower the first or raise the second."
            )
        return (max(match, review), review) if match_at is None else (match, min(review, match))

    def features(
        self,
        pairs: pl.DataFrame,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
    ) -> np.ndarray:
        """Pair features `[pairs, features]` float32 with this model's vocabulary."""
        return pair_features(pairs, listings, text_vectors, image_vectors, self.vocabulary)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[pairs]` of feature rows."""
        if not len(features):
            return np.empty(0)
        raw = self._trees.predict(features, num_threads=self.threads)
        return self.calibration.apply(raw)

    def decide(
        self,
        pairs: pl.DataFrame,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
        *,
        match_at: float | None = None,
        review_at: float | None = None,
        reasons: int = 6,
    ) -> pl.DataFrame:
        """Score every pair and say why.

        `pairs` has left_id < right_id and perhaps blocked_by. `listings` holds both sides of every pair (listing_id,
        title and any column of the feed, image_hash); vectors have listing_id and vector, no row where there is none.
        Returns a row a pair, in the order of `pairs`: left_id, right_id, score, verdict (match, review or no_match),
        reasons, blocked_by, decider_version. Reasons are the `reasons` features with the largest TreeSHAP contribution
        in log-odds (Lundberg et al., arXiv:1802.03888), of matches and reviews only; a missing value is null.
        Raises `UnknownListing`, `SettingsError`.
        """
        match, review = self.thresholds(match_at, review_at)
        values = self.features(pairs, listings, text_vectors, image_vectors)
        score = self.score(values)
        verdict = np.where(score >= match, "match", np.where(score >= review, "review", "no_match"))
        blocked = pairs["blocked_by"] if "blocked_by" in pairs.columns else pl.Series([None] * pairs.height)
        told = self._reasons(values, score >= review, reasons)
        return pl.DataFrame(
            {
                "left_id": pairs["left_id"],
                "right_id": pairs["right_id"],
                "score": score,
                "verdict": verdict.astype(object) if pairs.height else [],
                "reasons": told,
                "blocked_by": blocked.cast(pl.List(pl.String)),
                "decider_version": pl.Series([self.version] * pairs.height, dtype=pl.String),
            },
            schema=DECIDED,
        )

    def _reasons(self, values: np.ndarray, wanted: np.ndarray, top: int) -> pl.Series:
        """List of (feature, value, contribution) per row, strongest first; null where not wanted."""
        rows = np.flatnonzero(wanted)
        empty = pl.Series([None] * len(values), dtype=pl.List(REASON))
        top = min(top, len(NAMES))
        if not len(rows) or top < 1:
            return empty
        # The last column is the expected value, not a feature's.
        shap = self._trees.predict(values[rows], pred_contrib=True, num_threads=self.threads)[:, :-1]
        order = np.argsort(-np.abs(shap), axis=1, kind="stable")[:, :top]
        told = (
            pl.DataFrame(
                {
                    "row": np.repeat(rows, top),
                    "feature": np.array(NAMES, dtype=object)[order].ravel(),
                    "value": np.take_along_axis(values[rows], order, axis=1).ravel().astype(np.float64),
                    "contribution": np.take_along_axis(shap, order, axis=1).ravel().astype(np.float64),
                },
                schema={"row": pl.Int64, "feature": pl.String, "value": pl.Float64, "contribution": pl.Float64},
            )
            .with_columns(pl.col("value").fill_nan(None))
            .group_by("row", maintain_order=True)
            .agg(reasons=pl.struct("feature", "value", "contribution"))
        )
        return (
            pl.DataFrame({"row": np.arange(len(values))})
            .join(told, on="row", how="left", maintain_order="left")["reasons"]
            .cast(pl.List(REASON))
        )
