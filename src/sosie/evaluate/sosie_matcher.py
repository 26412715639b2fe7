"""The product itself, run over a whole dataset: the same encoders, blocking, decider and clusters as an hourly run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sosie import blocking, clusters, lexical, phashes
from sosie.decider import mlp, parsed
from sosie.decider.model import Decider
from sosie.evaluate import knn
from sosie.evaluate.baselines import FITTED, rows_of
from sosie.evaluate.dataset import Dataset
from sosie.evaluate.matching import Clock, Labelled, Matching
from sosie.evaluate.metrics import Ints
from sosie.evaluate.vectors import Pictures, image_vectors, text_vectors, with_hashes
from sosie.settings import Settings
from sosie.tables import JUDGEMENTS


@dataclass(frozen=True)
class Decided:
    """Every candidate pair of a dataset with its score and verdict, before clustering.

    `pairs` has what `Decider.decide` gives, `rows` int64 [m, 2] the row numbers of both sides.
    """

    pairs: pl.DataFrame
    rows: Ints
    match_at: float
    review_at: float
    about: dict[str, Any]


def decide_all(dataset: Dataset, clock: Clock, settings: Settings, cache: Path | None = None) -> Decided:
    """Embed, find candidates and decide them; thresholds are the settings', else the model's."""
    with clock("embed text"):
        text, about = text_vectors(dataset.listings, settings, cache)
    with clock("embed pictures"):
        pictures = image_vectors(dataset, settings, cache)
    listings = with_hashes(dataset.listings, pictures)
    decider = mlp.load(settings.decider_model, threads=settings.embedding.threads)
    decider = decider.in_catalogue(dataset.listings.height)
    with clock("candidates"):
        listings = parsed.beside(listings)
        found = _candidates(listings, text, pictures, decider, settings)
    with clock("decide"):
        decided = _decide(decider, found.pairs, listings, text, pictures, settings)
    match_at, review_at = decider.thresholds(settings.decider.match_at, settings.decider.review_at)
    about = {**about, **(pictures.about if pictures else {}), "decider_version": decider.version, **found.counts}
    return Decided(decided, rows_of(decided, dataset.listings), match_at, review_at, about)


def cluster(decided: pl.DataFrame, ids: pl.Series, settings: Settings) -> Ints:
    """Group number of each of `ids`, as the hourly run would cluster the verdicts."""
    resolved = clusters.resolve(
        decided.filter(pl.col("verdict") != "no_match").select("left_id", "right_id", "score", "verdict"),
        pl.DataFrame(schema=JUDGEMENTS.schema).select("left_id", "right_id", "verdict"),
        min_mean_link=settings.clusters.min_mean_link,
        max_size=settings.clusters.max_size,
        listings=ids,
    )
    groups = pl.DataFrame({"listing_id": ids}).join(resolved.groups, on="listing_id", how="left", maintain_order="left")
    return groups["group"].to_numpy().astype(np.int64)


def ruled(decided: pl.DataFrame, match_at: float, review_at: float) -> pl.DataFrame:
    """The same pairs with the verdicts of other thresholds."""
    return decided.with_columns(
        verdict=pl.when(pl.col("score") >= match_at)
        .then(pl.lit("match"))
        .when(pl.col("score") >= review_at)
        .then(pl.lit("review"))
        .otherwise(pl.lit("no_match"))
    )


def match_sosie(labelled: Labelled, clock: Clock, settings: Settings, *, fit: bool) -> Matching:
    """Thresholds are the model's (or the settings'); with `fit`, the match threshold is fitted on the train half."""
    found = decide_all(labelled.dataset, clock, settings)
    decided, match_at, review_at = found.pairs, found.match_at, found.review_at
    origin = "settings" if settings.decider.match_at is not None else "the decider's model card"
    if fit:
        links = knn.Links(found.rows, decided["score"].to_numpy().astype(np.float32))
        match_at = knn.fit_threshold(links, labelled.groups, rows=labelled.train)
        review_at, origin = min(review_at, match_at), FITTED
        decided = ruled(decided, match_at, review_at)
    with clock("cluster"):
        groups = cluster(decided, labelled.dataset.listings["listing_id"], settings)
    matches = found.rows[(decided["verdict"] == "match").to_numpy()]
    return Matching(
        pairs=matches,
        candidates=found.rows,
        thresholds={"match_at": match_at, "review_at": review_at, "fitted_on": origin},
        clusters=groups,
        variants={"pairs": matches},
        about=found.about,
    )


def score_pairs(
    pairs: pl.DataFrame,
    listings: pl.DataFrame,
    clock: Clock,
    settings: Settings,
    cache: Path | None = None,
    *,
    apart: pl.DataFrame | None = None,
) -> tuple[np.ndarray, float, dict[str, Any]]:
    """The decider's probability of labelled pairs [m], its match threshold, and versions.

    They are decided as the hourly run would: among all candidates of `listings`, whose labels nobody looks at. Of those
    candidates that are pairs of `apart` are left out.
    """
    sides = ["left_id", "right_id"]
    with clock("embed text"):
        text, about = text_vectors(listings, settings, cache)
    decider = mlp.load(settings.decider_model, threads=settings.embedding.threads)
    with clock("candidates"):
        listings = parsed.beside(listings)
        found = _candidates(listings, text, None, decider, settings)
        others = found.pairs if apart is None else found.pairs.join(apart, on=sides, how="anti", maintain_order="left")
    with clock("decide"):
        together = blocking.beside(pairs.select(sides).unique(maintain_order=True), others)
        decided = _decide(decider, together, listings, text, None, settings)
    match_at, _ = decider.thresholds(settings.decider.match_at, settings.decider.review_at)
    score = pairs.select(sides).join(decided.select(*sides, "score"), on=sides, how="left", maintain_order="left")
    return score["score"].to_numpy(), match_at, {**about, "decider_version": decider.version, **found.counts}


def _decide(
    decider: Decider,
    pairs: pl.DataFrame,
    listings: pl.DataFrame,
    text: pl.DataFrame,
    pictures: Pictures | None,
    settings: Settings,
) -> pl.DataFrame:
    """Every pair's score and verdict, in order; no reasons, which cost most."""
    return decider.decide(
        pairs,
        listings,
        text,
        pictures.vectors if pictures else None,
        match_at=settings.decider.match_at,
        review_at=settings.decider.review_at,
        reasons=0,
    )


def _candidates(
    listings: pl.DataFrame, text: pl.DataFrame, pictures: Pictures | None, decider: Decider, settings: Settings
) -> blocking.Candidates:
    rules, ids = settings.blocking, listings["listing_id"]
    near = {"text": blocking.join_frame(ids, text, rules.text_neighbours, rules.min_text_similarity)}
    if pictures:
        k, floor = rules.image_neighbours, rules.min_image_similarity
        near["image"] = blocking.join_frame(ids, pictures.vectors, k, floor)
    near |= lexical.neighbours(ids, listings, decider.vocabulary, rules, threads=settings.embedding.threads)
    near |= phashes.neighbours(ids, listings, rules)
    keys = blocking.exact_keys(ids, blocking.keyed(listings), rules.exact_key_limit)
    return blocking.candidates(near, keys, rules.candidates_per_listing)
