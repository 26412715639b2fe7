"""The learned decider: gradient-boosted trees in two steps, calibrated, with the reasons for each verdict.

The first step looks at the two listings alone. Pairs that it doesn't rule out are looked at again among the other pairs
of both listings: the second step's trees add to the first one's log-odds, so that a verdict's reasons still add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from sosie.artifacts import Artifact
from sosie.decider import neighbourhood, parsed
from sosie.decider.features import NAMES, pair_features
from sosie.decider.neighbourhood import FLOOR
from sosie.decider.text_features import Vocabulary
from sosie.decider.trees import Trees
from sosie.errors import ModelError, SettingsError

KIND = "decider"
TREES, SECOND_TREES, VOCABULARY = "trees.txt.gz", "second_trees.txt.gz", "vocabulary.npz"
FIRST_CALIBRATION, CALIBRATION = "first_calibration.npz", "calibration.npz"
FILES = [TREES, SECOND_TREES, VOCABULARY, FIRST_CALIBRATION, CALIBRATION]
INPUTS = (*NAMES, *neighbourhood.NAMES)
"""Columns of the second step: the pair's own features, then its surroundings."""

_AT_ONCE = 200_000
"""Pairs whose features are in memory together: about 50 MB."""

HOPELESS = -6.0
"""Log-odds after the first trees, before any prior, from which hardly a pair comes back to be worth a second look
(`FLOOR`): benchmarks/decider.py tells how many do. Before any prior, as what trees may still say does not follow it."""

REASON = pl.Struct({"feature": pl.String, "value": pl.Float64, "contribution": pl.Float64})
LEAST_PRIOR, MOST_PRIOR = -3.0, 1.0
"""Bounds of what a catalogue's size may add: about those of the catalogues in training, and of one 20 times as large as
what the first step is meant for."""

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "left_id": pl.String,
    "right_id": pl.String,
    "score": pl.Float64,
    "first_score": pl.Float64,
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
class First:
    """What the first step says of pairs: `score` float64 [pairs], a probability, and of the pairs that reach `FLOOR`
    (`rows` int64 [k]) their features float32 [k, features] and log-odds float64 [k], for the second step."""

    score: np.ndarray
    rows: np.ndarray
    features: np.ndarray
    log_odds: np.ndarray

    @property
    def near(self) -> "First":
        """The same of the pairs in `rows` alone."""
        return First(self.score[self.rows], np.arange(len(self.rows)), self.features, self.log_odds)

    @classmethod
    def joined(cls, parts: Sequence["First"]) -> "First":
        """The same of several parts' pairs, one part after the other."""
        starts = np.cumsum([0, *(len(part.score) for part in parts[:-1])])
        return cls(
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.log_odds for part in parts]),
        )


@dataclass(frozen=True)
class Decider:
    """Gives a pair the probability that both listings sell the same product.

    Scores depend on the two listings, on the pairs around them, on this model and on the order of magnitude of the
    catalogue only, so the same pair among the same pairs has the same score in every run.
    `prior` is what the catalogue's size adds to the log-odds (see `in_catalogue`).
    """

    artifact: Artifact
    vocabulary: Vocabulary
    first_calibration: Calibration
    calibration: Calibration
    threads: int = 0
    prior: float = 0.0

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> "Decider":
        """Read a model folder. `threads` 0 takes every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        if tuple(artifact.usage["features"]) != INPUTS:
            raise ModelError(
                f"{folder} was trained on other pair features than this code works out; "
                "train it again with `make train`, or check out the code that it came with."
            )
        return cls(
            artifact,
            Vocabulary.load(artifact.file(VOCABULARY)),
            Calibration.load(artifact.file(FIRST_CALIBRATION)),
            Calibration.load(artifact.file(CALIBRATION)),
            threads,
        )

    @property
    def version(self) -> str:
        return self.artifact.version

    @cached_property
    def first_trees(self) -> Trees:
        return self._trees(TREES)

    @cached_property
    def second_trees(self) -> Trees:
        """They add to the log-odds of the first ones."""
        return self._trees(SECOND_TREES)

    def _trees(self, name: str) -> Trees:
        """Deciders that were trained before trees were kept in gzip have them as they were."""
        file = self.artifact.file(name)
        return Trees.load(file if file.exists() else file.with_suffix(""), self.threads)

    def in_catalogue(self, listings: int) -> Self:
        """The same for a catalogue of so many listings: see `prior_of`."""
        return replace(self, prior=prior_of(listings, self.artifact.usage["catalogue"]))

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

    def first(
        self,
        pairs: pl.DataFrame,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
    ) -> First:
        """Pairs by themselves, a bounded number at a time; features are kept only of those worth a second look."""
        listings = parsed.beside(listings)
        parts = [First(np.empty(0), np.empty(0, np.int64), np.empty((0, len(NAMES)), np.float32), np.empty(0))]
        for start in range(0, pairs.height, _AT_ONCE):
            part = pairs.slice(start, _AT_ONCE)
            values = pair_features(part, listings, text_vectors, image_vectors, self.vocabulary, threads=self.threads)
            raw = self.first_trees.log_odds(values, HOPELESS) + self.prior
            score = self.first_calibration.apply(_sigmoid(raw))
            near = np.flatnonzero(score >= FLOOR)
            parts.append(First(score, near, values[near], raw[near]))
        return First.joined(parts)

    def decide(
        self,
        pairs: pl.DataFrame,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
        *,
        around: pl.DataFrame | None = None,
        match_at: float | None = None,
        review_at: float | None = None,
        reasons: int = 6,
    ) -> pl.DataFrame:
        """Score every pair and say why.

        `pairs` has left_id < right_id, each pair once, and perhaps blocked_by. `listings` holds both sides of every
        pair (listing_id, title and any column of the feed, image_hash); vectors have listing_id and vector, no row
        where there is none. `around` (left_id, right_id, first_score) are other pairs of the same listings and of their
        partners, that were scored before.
        Returns a row a pair, in the order of `pairs`: left_id, right_id, score, first_score, verdict (match, review or
        no_match), reasons, blocked_by, decider_version. Reasons are the `reasons` features that add or take most
        log-odds (`trees.Trees.contributions`), both steps together, of matches and reviews only; a missing value is
        null. Raises `UnknownListing`, `SettingsError`.
        """
        first = self.first(pairs, listings, text_vectors, image_vectors)
        return self.second(pairs, first, around=around, match_at=match_at, review_at=review_at, reasons=reasons)

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
        """`decide` for who asked `first` of these pairs already."""
        match, review = self.thresholds(match_at, review_at)
        values = np.hstack([first.features, self._surroundings(pairs, first, around)])
        score = first.score.copy()
        if len(values):
            log_odds = first.log_odds + self.second_trees.log_odds(values)
            score[first.rows] = self.calibration.apply(_sigmoid(log_odds))
        verdict = verdicts(score, match, review)
        verdict[first.score < FLOOR] = "no_match"
        told = self._reasons(values, first.rows, pairs.height, verdict != "no_match", reasons)
        return self._decided(pairs, score, first.score, verdict, told)

    def _decided(
        self,
        pairs: pl.DataFrame,
        score: np.ndarray,
        first_score: np.ndarray,
        verdict: np.ndarray,
        reasons: pl.Series | None = None,
    ) -> pl.DataFrame:
        """The rows that `decide` returns; without `reasons` no pair has any."""
        blocked = pairs["blocked_by"] if "blocked_by" in pairs.columns else pl.Series([None] * pairs.height)
        return pl.DataFrame(
            {
                "left_id": pairs["left_id"],
                "right_id": pairs["right_id"],
                "score": score,
                "first_score": first_score,
                "verdict": verdict.astype(object) if pairs.height else [],
                "reasons": [None] * pairs.height if reasons is None else reasons,
                "blocked_by": blocked.cast(pl.List(pl.String)),
                "decider_version": pl.Series([self.version] * pairs.height, dtype=pl.String),
            },
            schema=DECIDED,
        )

    def _surroundings(self, pairs: pl.DataFrame, first: First, around: pl.DataFrame | None) -> np.ndarray:
        """Surroundings of the pairs that had a second look, float32 [k, neighbourhood.NAMES]."""
        near = pairs.select("left_id", "right_id")[first.rows].with_columns(
            first_score=pl.Series(first.score[first.rows])
        )
        if around is not None:
            others = around.select(near.columns).join(pairs, on=["left_id", "right_id"], how="anti")
            near = pl.concat([near, others])
        ids = pl.concat([near["left_id"], near["right_id"].alias("left_id")])
        codes = ids.rank("dense").to_numpy().astype(np.int64) - 1 if len(ids) else np.empty(0, np.int64)
        sides = codes.reshape(2, -1).T
        found = neighbourhood.surroundings(sides, near["first_score"].to_numpy(), int(codes.max(initial=-1)) + 1)
        return found[: len(first.rows)]

    def _reasons(self, values: np.ndarray, rows: np.ndarray, pairs: int, wanted: np.ndarray, top: int) -> pl.Series:
        """List of (feature, value, contribution) per pair, strongest first; null where not wanted."""
        asked = wanted[rows]
        empty = pl.Series([None] * pairs, dtype=pl.List(REASON))
        top = min(top, len(INPUTS))
        if not asked.any() or top < 1:
            return empty
        values, rows = values[asked], rows[asked]
        added = self.second_trees.contributions(values)
        added[:, : len(NAMES)] += self.first_trees.contributions(values[:, : len(NAMES)])
        order = np.argsort(-np.abs(added), axis=1, kind="stable")[:, :top]
        told = (
            pl.DataFrame(
                {
                    "row": np.repeat(rows, top),
                    "feature": np.array(INPUTS, dtype=object)[order].ravel(),
                    "value": np.take_along_axis(values, order, axis=1).ravel().astype(np.float64),
                    "contribution": np.take_along_axis(added, order, axis=1).ravel().astype(np.float64),
                },
                schema={"row": pl.Int64, "feature": pl.String, "value": pl.Float64, "contribution": pl.Float64},
            )
            .with_columns(pl.col("value").fill_nan(None))
            .group_by("row", maintain_order=True)
            .agg(reasons=pl.struct("feature", "value", "contribution"))
        )
        return (
            pl.DataFrame({"row": np.arange(pairs)})
            .join(told, on="row", how="left", maintain_order="left")["reasons"]
            .cast(pl.List(REASON))
        )


def prior_of(listings: int, meant: int) -> float:
    """What is added to log-odds that are meant for a catalogue of `meant` listings, in one of so many.

    In a catalogue twice as large a listing has twice as many look-alikes and no more duplicates, so the odds of each
    candidate halve (prior shift, Saerens et al. 2002). Sizes count by powers of the root of two, so that scores stay as
    they are while a catalogue grows by a few listings an hour.
    """
    size = 2 ** (round(2 * math.log2(max(listings, 1))) / 2)
    return min(max(math.log(meant / size), LEAST_PRIOR), MOST_PRIOR)


def verdicts(score: np.ndarray, match_at: float, review_at: float) -> np.ndarray:
    """match, review or no_match for each score."""
    return np.where(score >= match_at, "match", np.where(score >= review_at, "review", "no_match"))


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
