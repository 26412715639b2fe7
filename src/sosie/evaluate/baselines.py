"""Matchers to be measured against: TF-IDF, and plain thresholds on the embeddings' cosines."""

import numpy as np
import polars as pl

from sosie.evaluate import blending, knn, metrics, tfidf
from sosie.evaluate.matching import Clock, Labelled, Matching
from sosie.evaluate.vectors import image_vectors, text_vectors, with_hashes
from sosie.settings import Settings
from sosie.vectors import matrix

FITTED = "the groups of this dataset that training may see, in its whole pool"


def match_tfidf(labelled: Labelled, clock: Clock, analyzer: tfidf.Analyzer) -> Matching:
    """TF-IDF cosine above the threshold that fits the train half, and equal perceptual hashes where there are any."""
    listings, groups, train = labelled.dataset.listings, labelled.groups, labelled.train
    with clock("tfidf"):
        links = tfidf.nearest(tfidf.weights(tfidf.titles_of(listings), analyzer))
    with clock("fit"):
        alone = knn.fit_threshold(links, groups, rows=train)
    text = links.above(alone)
    equal = tfidf.equal_hashes(listings)
    if not len(equal):
        return Matching(text, links.pairs, {"cosine": alone, "fitted_on": FITTED})
    with clock("fit"):
        beside = knn.fit_threshold(links, groups, rows=train, free=equal)
    return Matching(
        pairs=knn.union(links.above(beside), equal),
        candidates=knn.union(links.pairs, equal),
        thresholds={"cosine": beside, "cosine_without_phash": alone, "fitted_on": FITTED},
        variants={"without_phash": text, "phash_alone": equal},
    )


def match_knn(labelled: Labelled, clock: Clock, settings: Settings) -> Matching:
    """The second paper's: neighbours above a threshold on each modality's cosine, unioned, and equal perceptual hashes.

    The encoders are those that `embedding.text` and `embedding.image` name; no decider, no clusters. Beside it each
    modality alone, and titles blended with their nearest.
    """
    groups, train, rules = labelled.groups, labelled.train, settings.blocking
    with clock("embed text"):
        text, about = text_vectors(labelled.dataset.listings, settings)
    with clock("embed pictures"):
        pictures = image_vectors(labelled.dataset, settings)
    listings = with_hashes(labelled.dataset.listings, pictures)
    with clock("neighbours"):
        links = {"text": links_of(listings, text, rules.text_neighbours)}
        if pictures:
            links["image"] = links_of(listings, pictures.vectors, rules.image_neighbours)
    equal = tfidf.equal_hashes(listings)
    with clock("fit"):
        thresholds = knn.fit_union(links, groups, rows=train, free=equal)
        alone = {name: knn.fit_threshold(each, groups, rows=train) for name, each in links.items()}
        fits = {f"{name}_alone": at for name, at in alone.items()}
        variants = {f"{name}_alone": each.above(alone[name]) for name, each in links.items()}
    with clock("blend"):
        k = rules.text_neighbours
        power, fits["text_blended"], blended = blending.fit(
            lambda power: links_of(listings, text, k, power=power), groups, rows=train
        )
        variants["text_blended"] = blended.above(fits["text_blended"])
    return Matching(
        pairs=knn.above(links, thresholds, equal),
        candidates=knn.union(*(each.pairs for each in links.values()), equal),
        thresholds={**thresholds, **fits, "blend_power": power, "fitted_on": FITTED},
        variants=variants,
        about={**about, **(pictures.about if pictures else {})},
    )


def links_of(listings: pl.DataFrame, vectors: pl.DataFrame, k: int, *, power: int | None = None) -> knn.Links:
    """Nearest among the listings that have a vector, by row number of `listings`; blended first by a `power`."""
    numbered = listings.select("listing_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = vectors.select("listing_id").join(numbered, on="listing_id", maintain_order="left")["row"].to_numpy()
    held = matrix(vectors)
    found = knn.nearest(held if power is None else blending.blended(held, power), k)
    ends = rows[found.pairs]
    return knn.Links.of(ends[:, 0], ends[:, 1], found.scores)


def score_pairs_tfidf(labelled_pairs: pl.DataFrame, listings: pl.DataFrame, analyzer: tfidf.Analyzer) -> np.ndarray:
    """TF-IDF cosine of labelled pairs [m]; the vocabulary is that of all listings, which needs no label."""
    places = rows_of(labelled_pairs, listings)
    return tfidf.cosines(tfidf.weights(tfidf.titles_of(listings), analyzer), places)


def rows_of(pairs: pl.DataFrame, listings: pl.DataFrame) -> metrics.Ints:
    """Row numbers of both sides, int64 [m, 2]."""
    numbered = listings.select("listing_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
    sides = [
        pairs.select(listing_id=side).join(numbered, on="listing_id", maintain_order="left")["row"].to_numpy()
        for side in ("left_id", "right_id")
    ]
    return np.stack(sides, axis=1).astype(np.int64)
