"""The matchers of the evaluation table: every model of both papers alone and combined, and the product.

A method is run over a task: its thresholds come from one part of the data, its figures from listings of another.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.evaluate import baselines, blending, knn, metrics, tfidf
from sosie.evaluate.dataset import Dataset
from sosie.evaluate.evaluation import best_f1
from sosie.evaluate.matching import Clock
from sosie.evaluate.metrics import Ints, codes
from sosie.evaluate.vectors import image_vectors, text_vectors, with_hashes
from sosie.settings import Settings

Mask = npt.NDArray[np.bool_]
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Method:
    """`text` and `image` name encoders, `decider` a decider, folders below the models; without a decider the links of
    each kind are matched above a threshold and unioned; title vectors are `blended` with their nearest first. `without`
    leaves that modality out of every listing, or out of a labelled pair's surroundings the `pairs` whose label a
    decider may have learned from."""

    name: str
    label: str
    analyzer: tfidf.Analyzer | None = None
    text: str | None = None
    blended: bool = False
    image: str | None = None
    phash: bool = False
    decider: str | None = None
    without: Literal["text", "image", "pairs"] | None = None


METHODS = (
    Method("tfidf", "TF-IDF, words", analyzer="word"),
    Method("tfidf_char", "TF-IDF, characters", analyzer="char"),
    Method("tfidf_phash", "TF-IDF, words ∪ equal picture hash", analyzer="word", phash=True),
    Method("bert", "BERT, kNN", text="text-bert"),
    Method("bert_blended", "BERT, blended with the nearest, kNN", text="text-bert", blended=True),
    Method("character_bert", "CharacterBERT, kNN", text="text-character_bert"),
    Method("mae", "masked auto-encoder, kNN", image="image-mae"),
    Method("efficientnet_b3", "EfficientNet-B3, kNN", image="image-efficientnet_b3"),
    Method("mlp", "BERT + masked auto-encoder, perceptron (first paper)", text="text", image="image",
           decider="decider-mlp"),
    Method("bert+efficientnet_b3", "BERT ∪ EfficientNet-B3 ∪ equal hash, kNN", text="text-bert",
           image="image-efficientnet_b3", phash=True),
    Method("character_bert+efficientnet_b3", "CharacterBERT ∪ EfficientNet-B3 ∪ equal hash, kNN (second paper)",
           text="text-character_bert", image="image-efficientnet_b3", phash=True),
    Method("sosie_text", "Sosie, pictures taken away", text="text", image="image", decider="decider", without="image"),
    Method("sosie_picture", "Sosie, titles taken away", text="text", image="image", decider="decider", without="text"),
    Method("sosie_untold", "Sosie, labelled pairs of training taken away", text="text", image="image",
           decider="decider", without="pairs"),
    Method("sosie_light", "Sosie, without a transformer", text="light/text", image="image", decider="light/decider"),
    Method("sosie", "Sosie", text="text", image="image", decider="decider"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A labelled dataset, its groups as numbers int64 [n], and the rows that count; the others are in the pool only."""

    dataset: Dataset
    groups: Ints
    rows: Mask

    @classmethod
    def of(cls, dataset: Dataset, among: pl.Series | None = None) -> "Part":
        """All rows count, or those whose id is `among` these."""
        ids = dataset.listings["listing_id"]
        truth = ids.to_frame().join(dataset.truth, on="listing_id", how="left", maintain_order="left")
        rows = np.ones(len(ids), dtype=bool) if among is None else ids.is_in(among.implode()).to_numpy()
        return cls(dataset, codes(truth["group"]), rows)


@dataclass(frozen=True)
class Task:
    """Thresholds are fitted on `fit` and figures taken from `test`; no group counts in both."""

    name: str
    fit: Part
    test: Part


@dataclass(frozen=True)
class Outcome:
    """`score` and `label` are a decider's probability and the truth of each candidate pair that touches a row that
    counts; `decided` is what it said of every pair."""

    figures: Figures
    thresholds: Mapping[str, float]
    score: npt.NDArray[np.float64] | None = None
    label: Mask | None = None
    decided: Any = None


def applies(method: Method, dataset: Dataset) -> bool:
    """Whether a dataset has what a method looks at, and a method what a dataset asks for."""
    pictures = dataset.listings["image_uri"].count() > 0
    if not dataset.has_groups:
        if method.phash or method.blended:
            return False
        return bool(method.decider or not method.image) and method.without in (None, "pairs")
    if method.without == "pairs":
        return False
    if method.without or (method.image and not method.text):
        return pictures
    if method.phash and not method.image:
        return pictures or dataset.listings["image_phash"].count() > 0
    return True


def run(method: Method, task: Task, settings: Settings, cache: Path | None = None) -> Outcome:
    """Fit, match and score. The settings' `models` is where encoders and deciders are."""
    settings = with_models(method, settings)
    if method.decider:
        return _decided(method, task, settings, cache)
    if method.blended:
        return _blended(task, settings, cache)
    links, equal = _links(method, task.test.dataset, settings, cache)
    same = task.fit.dataset is task.test.dataset
    seen, free = (links, equal) if same else _links(method, task.fit.dataset, settings, cache)
    thresholds = knn.fit_union(seen, task.fit.groups, rows=task.fit.rows, free=free)
    candidates = knn.union(*(each.pairs for each in links.values()), equal)
    return Outcome(figures(knn.above(links, thresholds, equal), candidates, task.test), thresholds)


def run_pairs(method: Method, fit: Dataset, test: Dataset, settings: Settings, cache: Path | None = None) -> Outcome:
    """Labelled pairs: the score of each decides. Thresholds that no model brings are fitted on the pairs of `fit`."""
    settings = with_models(method, settings)
    asked = test.pairs.filter(part="test")
    label = asked["label"].to_numpy()
    if method.decider:
        from sosie.evaluate.sosie_matcher import score_pairs

        told = test.pairs.filter(pl.col("part") != "test") if method.without else None
        score, match_at, _ = score_pairs(asked, test.listings, Clock(), settings, cache, apart=told)
    else:
        score = _pair_scores(method, asked, test.listings, settings, cache)
        known = _pair_scores(method, fit.pairs, fit.listings, settings, cache)
        match_at = best_f1(known, fit.pairs["label"].to_numpy())
    found = score >= match_at
    numbers: Figures = {
        **asdict(metrics.binary(found, label)),
        "macro_f1": metrics.macro_f1(found, label),
        "f1_standard_error": _standard_error_of_f1(found, label),
        "pairs": len(label),
    }
    return Outcome(numbers, {"score": match_at}, score.astype(np.float64), label)


def figures(found: Ints, candidates: Ints, part: Part) -> Figures:
    """Figures of pairs (int64 [m, 2]) or clusters (int64 [n]) over the rows that count, and of the candidates."""
    counts = (metrics.counts_of_pairs if found.ndim == 2 else metrics.counts_of_clusters)(found, part.groups)
    mine = counts.of(part.rows)
    scores = metrics.score(mine)
    recall = metrics.score(metrics.counts_of_pairs(candidates, part.groups).of(part.rows)).pairwise.recall
    return {
        "row_f1": scores.row.f1,
        "row_f1_standard_error": metrics.standard_error(mine.row_f1, part.groups[part.rows]),
        "row_precision": scores.row.precision,
        "row_recall": scores.row.recall,
        "pairwise_f1": scores.pairwise.f1,
        "bcubed_f1": scores.bcubed.f1,
        "candidate_recall": recall,
        "pool": len(part.groups),
        "rows": int(part.rows.sum()),
        "groups": len(np.unique(part.groups[part.rows])),
    }


def with_models(method: Method, settings: Settings) -> Settings:
    """The settings with the method's encoders and decider in use."""
    encoders = {name: folder for name in ("text", "image") if (folder := getattr(method, name))}
    embedding = settings.embedding.model_copy(update=encoders)
    decider = settings.decider.model_copy(update={"model": method.decider} if method.decider else {})
    return settings.model_copy(update={"embedding": embedding, "decider": decider})


def without(dataset: Dataset, modality: str | None) -> Dataset:
    """The dataset with every title empty, or with no trace of a picture."""
    gone = {
        None: [],
        "text": [pl.lit("").alias("title"), pl.lit(None, pl.String).alias("description")],
        "image": [pl.lit(None, pl.String).alias(name) for name in ("image_uri", "image_phash")],
    }[modality]
    return replace(dataset, listings=dataset.listings.with_columns(gone))


def _decided(method: Method, task: Task, settings: Settings, cache: Path | None) -> Outcome:
    """Through the functions of the hourly run, at the thresholds that came with the decider."""
    from sosie.evaluate.sosie_matcher import cluster, decide_all

    part = task.test
    decided = decide_all(without(part.dataset, method.without), Clock(), settings, cache)
    clusters = cluster(decided.pairs, part.dataset.listings["listing_id"], settings)
    touching = part.rows[decided.rows].any(axis=1)
    score = decided.pairs["score"].to_numpy()[touching]
    label = (part.groups[decided.rows[:, 0]] == part.groups[decided.rows[:, 1]])[touching]
    macro = metrics.macro_f1(score >= decided.match_at, label)
    return Outcome(
        {**figures(clusters, decided.rows, part), "macro_f1": macro, "candidates": len(score)},
        {"match_at": decided.match_at, "review_at": decided.review_at},
        score,
        label,
        decided,
    )


def _blended(task: Task, settings: Settings, cache: Path | None) -> Outcome:
    """Titles alone, each blended with its nearest, by as much as helps where the threshold is fitted too."""
    k = settings.blocking.text_neighbours

    def links_of(part: Part) -> Callable[[int], knn.Links]:
        vectors, _ = text_vectors(part.dataset.listings, settings, cache)
        return lambda power: baselines.links_of(part.dataset.listings, vectors, k, power=power)

    power, threshold, _ = blending.fit(links_of(task.fit), task.fit.groups, rows=task.fit.rows)
    links = links_of(task.test)(power)
    return Outcome(figures(links.above(threshold), links.pairs, task.test), {"text": threshold, "power": power})


def _links(
    method: Method, dataset: Dataset, settings: Settings, cache: Path | None
) -> tuple[dict[str, knn.Links], Ints]:
    """Scored links of each kind, and the pairs of equal perceptual hash where the method takes them."""
    rules = settings.blocking
    pictures = image_vectors(dataset, settings, cache) if method.image or method.phash else None
    listings = with_hashes(dataset.listings, pictures)
    links = {}
    if method.analyzer:
        links["tfidf"] = tfidf.nearest(tfidf.weights(tfidf.titles_of(listings), method.analyzer))
    if method.text:
        text, _ = text_vectors(listings, settings, cache)
        links["text"] = baselines.links_of(listings, text, rules.text_neighbours)
    if method.image and pictures:
        links["image"] = baselines.links_of(listings, pictures.vectors, rules.image_neighbours)
    return links, tfidf.equal_hashes(listings) if method.phash else np.empty((0, 2), np.int64)


def _pair_scores(
    method: Method, pairs: pl.DataFrame, listings: pl.DataFrame, settings: Settings, cache: Path | None
) -> npt.NDArray[np.float32]:
    if method.analyzer:
        return np.asarray(baselines.score_pairs_tfidf(pairs, listings, method.analyzer))
    from sosie.decider.batch import vectors_of

    text, _ = text_vectors(listings, settings, cache)
    vectors = vectors_of(listings["listing_id"], text, "text")
    left, right = baselines.rows_of(pairs, listings).T
    return np.asarray(np.nan_to_num(np.einsum("ij,ij->i", vectors[left], vectors[right])))


def _standard_error_of_f1(found: Mask, label: Mask, draws: int = 200) -> float:
    """Bootstrap over the pairs."""
    random = np.random.default_rng(0)
    drawn = (random.integers(len(label), size=len(label)) for _ in range(draws))
    return float(np.std([metrics.binary(found[rows], label[rows]).f1 for rows in drawn]))
