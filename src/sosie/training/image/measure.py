"""How well the image encoder finds a re-listed picture again, beside a perceptual hash, on products it never saw."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import roc_auc_score

from sosie.embedding.image import ImageEncoder
from sosie.simulate.pictures import relist

Matrix = npt.NDArray[np.floating[Any]]


def measure(
    encoder: ImageEncoder, files: dict[str, Path], look_alikes: list[tuple[str, Path]], seed: int
) -> dict[str, object]:
    """Scores of the encoder and of the 64-bit perceptual hash on the same pictures.

    `files` are of unseen products, by id: each is re-listed once by the simulator, then asked for among all of these
    originals. `look_alikes` pairs such an id with the picture of *another* product of the same kind:
    `auc_look_alikes` says how often a re-listing is closer to its own original than such a pair is to each other.
    """
    rng = np.random.default_rng(seed)
    ids = sorted(files)
    originals = [files[product].read_bytes() for product in ids]
    copies = []
    for data in originals:
        with Image.open(io.BytesIO(data)) as image:
            spoilt = io.BytesIO()
            relist(image.convert("RGB"), rng).save(spoilt, "JPEG", quality=90)
            copies.append(spoilt.getvalue())
    place = {product: row for row, product in enumerate(ids)}
    asked = np.array([place[product] for product, _ in look_alikes], np.int64)
    others = [path.read_bytes() for _, path in look_alikes]

    def scores(vectors: Callable[[list[bytes]], Matrix]) -> dict[str, float]:
        return _scores(vectors(copies), vectors(originals), vectors(others), asked, np.random.default_rng(seed))

    return {
        "products": len(ids),
        "look_alike_pairs": len(others),
        "encoder": scores(lambda pictures: encoder.encode(pictures, 64)),
        "perceptual_hash": scores(_hashes),
    }


def _scores(
    copies: Matrix, originals: Matrix, others: Matrix, asked: npt.NDArray[np.int64], rng: np.random.Generator
) -> dict[str, float]:
    """Rows are unit vectors, so that products are cosines. A tie with the right one costs half a rank."""
    similarity = copies @ originals.T
    own = np.diag(similarity)
    wrong = similarity[~np.eye(len(own), dtype=bool)].reshape(len(own), -1)
    rank = (wrong > own[:, None] + 1e-6).sum(1) + (np.abs(wrong - own[:, None]) <= 1e-6).sum(1) / 2
    drawn = rng.choice(wrong.ravel(), min(wrong.size, 200_000), replace=False)
    alike = (copies[asked] * others).sum(1)
    limit = np.quantile(drawn, 0.999)
    return {
        "recall_at_1": _rounded((rank < 1).mean()),
        "recall_at_5": _rounded((rank < 5).mean()),
        "recall_at_20": _rounded((rank < 20).mean()),
        "auc_look_alikes": _auc(own, alike),
        "auc_all": _auc(own, drawn),
        "median_own": _rounded(np.median(own)),
        "p05_own": _rounded(np.quantile(own, 0.05)),
        "median_look_alike": _rounded(np.median(alike)) if len(alike) else float("nan"),
        "p999_other": _rounded(limit),
        "share_own_above_p999_other": _rounded((own > limit).mean()),
    }


def _auc(positive: Matrix, negative: Matrix) -> float:
    if not len(negative):
        return float("nan")
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return _rounded(roc_auc_score(labels, np.r_[positive, negative]))


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _hashes(pictures: list[bytes]) -> Matrix:
    """[n, 64] unit rows of ±1/8: their product is 1 - hamming / 32."""
    found = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            found.append(imagehash.phash(image.convert("RGB")).hash.ravel())
    return (np.array(found, np.float32).reshape(-1, 64) * 2 - 1) / 8
