"""Judged pairs as a pool for the decider, and as a dataset to measure one on."""

from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score

from sosie.decider import mlp
from sosie.decider.text_features import Vocabulary
from sosie.evaluate import metrics
from sosie.evaluate.dataset import PAIRS as LABELLED
from sosie.evaluate.dataset import TRUTH
from sosie.listings import clean_titles
from sosie.pictures import Thumbnails
from sosie.settings import Blocking
from sosie.training.decider.pools import Catalogue, Pool, image_vectors, pool_of, text_vectors
from sosie.training.judged.data import PICTURES, Judged
from sosie.vectors import frame

NAME = "judgements"
_DRAWS = 200


def catalogue_of(folder: Path, text_model: Path, image_model: Path, cache: Path) -> Catalogue:
    """The judged pairs of a part and their listings, with vectors of these models."""
    judged, held = Judged.read(folder), Thumbnails(str(folder / PICTURES))
    listings = judged.listings.with_columns(title=clean_titles(pl.col("title")))
    hashes = listings["image_hash"].drop_nulls().unique().sort()
    hashes = hashes.filter(pl.Series([held.has(image_hash) for image_hash in hashes], dtype=pl.Boolean))
    by_hash = image_vectors(hashes, held, image_model, cache)
    image = listings.select("listing_id", "image_hash").join(by_hash, on="image_hash", maintain_order="left")
    return Catalogue(
        NAME,
        listings,
        TRUTH.to_frame(),
        judged.pairs.select("left_id", "right_id", "label", part=pl.lit("train")).cast(LABELLED),
        frame(listings["listing_id"], text_vectors(listings["title"], text_model, cache)),
        image.select("listing_id", "vector"),
        judged.around,
        taken_from=judged.about["catalogue"],
    )


def pools(folder: Path, text_model: Path, image_model: Path, cache: Path, vocabulary: Vocabulary) -> list[Pool]:
    """One pool of the judgements to learn from; none where there is no judgement."""
    if Judged.read(folder).pairs.is_empty():
        return []
    return [pool_of(catalogue_of(folder, text_model, image_model, cache), Blocking(), vocabulary)]


def measure(folder: Path, models: Path, cache: Path, decider: str = "decider") -> dict[str, float | None]:
    """F1, macro-F1 and average precision of a decider on held-back judgements, as it would decide them in the lake.

    F1 is at the threshold that came with it; `f1_standard_error` is a bootstrap over groups, as pairs of one product
    are judged alike. Empty where no judgement is held back.
    """
    judged = Judged.read(folder)
    if judged.pairs.is_empty():
        return {}
    known = catalogue_of(folder, models / "text", models / "image", cache)
    model = mlp.load(models / decider).in_catalogue(judged.about["catalogue"])
    decided = model.decide(
        judged.pairs.select("left_id", "right_id"), known.listings, known.text, known.image,
        around=judged.around, reasons=0,
    )  # fmt: skip
    label = judged.pairs["label"].to_numpy()
    found = (decided["verdict"] == "match").to_numpy()
    both = bool(label.any() and not label.all())
    scores = metrics.binary(found, label)
    return {
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "f1_standard_error": _standard_error(found, label, metrics.codes(judged.pairs["group"])),
        "macro_f1": metrics.macro_f1(found, label),
        "average_precision": float(average_precision_score(label, decided["score"].to_numpy())) if both else None,
        "pairs": len(label),
    }


def _standard_error(found: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    random, count = np.random.default_rng(0), int(group.max()) + 1
    counts = np.stack([np.bincount(group, weights=each, minlength=count) for each in (found & label, found, label)])
    drawn = (counts[:, random.integers(count, size=count)].sum(axis=1) for _ in range(_DRAWS))
    return float(np.std([2 * shared / (said + true) if said + true else 1.0 for shared, said, true in drawn]))
