"""The product itself, run over a whole dataset: the same encoders, blocking, decider and clusters as an hourly run."""

from typing import Any

import numpy as np
import polars as pl

from sosie import blocking, clusters, lexical
from sosie.decider.model import Decider
from sosie.evaluate import knn
from sosie.evaluate.baselines import FITTED, rows_of
from sosie.evaluate.matching import Clock, Labelled, Matching
from sosie.evaluate.vectors import Pictures, image_vectors, text_vectors
from sosie.settings import Settings
from sosie.tables import JUDGEMENTS

_DECIDED_AT_ONCE = 200_000


def match_sosie(labelled: Labelled, clock: Clock, settings: Settings, *, fit: bool) -> Matching:
    """Thresholds are the model's (or the settings'); with `fit`, the match threshold is fitted on the train half."""
    dataset = labelled.dataset
    with clock("embed text"):
        text, about = text_vectors(dataset.listings, settings)
    with clock("embed pictures"):
        pictures = image_vectors(dataset, settings)
    listings = _with_hashes(dataset.listings, pictures)
    decider = Decider.load(settings.models / "decider", threads=settings.embedding.threads)
    with clock("candidates"):
        found = _candidates(listings, text, pictures, decider, settings)
    with clock("decide"):
        decided = decide(decider, found.pairs, listings, text, pictures, settings)
    rows = rows_of(decided, dataset.listings)
    match_at, review_at = decider.thresholds(settings.decider.match_at, settings.decider.review_at)
    origin = "settings" if settings.decider.match_at is not None else "the decider's model card"
    if fit:
        links = knn.Links(rows, decided["score"].to_numpy().astype(np.float32))
        match_at = knn.fit_threshold(links, labelled.groups, rows=labelled.train)
        review_at, origin = min(review_at, match_at), FITTED
        matched = (links.scores >= match_at).tolist()
        decided = decided.with_columns(
            verdict=pl.Series(["match" if one else "review" for one in matched], dtype=pl.String)
        )
    with clock("cluster"):
        resolved = clusters.resolve(
            decided.select("left_id", "right_id", "score", "verdict"),
            pl.DataFrame(schema=JUDGEMENTS.schema).select("left_id", "right_id", "verdict"),
            min_mean_link=settings.clusters.min_mean_link,
            max_size=settings.clusters.max_size,
            listings=dataset.listings["listing_id"],
        )
    groups = dataset.listings.select("listing_id").join(
        resolved.groups, on="listing_id", how="left", maintain_order="left"
    )
    matches = rows[(decided["verdict"] == "match").to_numpy()]
    return Matching(
        pairs=matches,
        candidates=rows,
        thresholds={"match_at": match_at, "review_at": review_at, "fitted_on": origin},
        clusters=groups["group"].to_numpy().astype(np.int64),
        variants={"pairs": matches},
        about={
            **about,
            **(pictures.about if pictures else {}),
            "decider_version": decider.version,
            **found.counts,
        },
    )


def score_pairs(
    pairs: pl.DataFrame, listings: pl.DataFrame, clock: Clock, settings: Settings
) -> tuple[np.ndarray, float, dict[str, Any]]:
    """The decider's probability of labelled pairs [m], its match threshold, and versions."""
    with clock("embed text"):
        text, about = text_vectors(listings, settings)
    decider = Decider.load(settings.models / "decider", threads=settings.embedding.threads)
    with clock("decide"):
        decided = decide(decider, pairs.select("left_id", "right_id"), listings, text, None, settings)
    match_at, _ = decider.thresholds(settings.decider.match_at, settings.decider.review_at)
    return decided["score"].to_numpy(), match_at, {**about, "decider_version": decider.version}


def decide(
    decider: Decider,
    pairs: pl.DataFrame,
    listings: pl.DataFrame,
    text: pl.DataFrame,
    pictures: Pictures | None,
    settings: Settings,
) -> pl.DataFrame:
    """Every pair's score and verdict, in order, a bounded number of pairs at a time; no reasons, which cost most."""
    return pl.concat(
        [
            decider.decide(
                pairs.slice(start, _DECIDED_AT_ONCE),
                listings,
                text,
                pictures.vectors if pictures else None,
                match_at=settings.decider.match_at,
                review_at=settings.decider.review_at,
                reasons=0,
            )
            for start in range(0, max(pairs.height, 1), _DECIDED_AT_ONCE)
        ]
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
    keys = blocking.exact_keys(ids, listings, rules.exact_key_limit)
    return blocking.candidates(near, keys, rules.candidates_per_listing)


def _with_hashes(listings: pl.DataFrame, pictures: Pictures | None) -> pl.DataFrame:
    """Listings with `image_hash`, and with our own perceptual hash where there is a picture."""
    if pictures is None:
        return listings.with_columns(image_hash=pl.lit(None, pl.String))
    return (
        listings.join(pictures.hashes, on="listing_id", how="left", suffix="_ours", maintain_order="left")
        .with_columns(image_phash=pl.coalesce("image_phash_ours", "image_phash"))
        .drop("image_phash_ours")
    )
