"""How well the image encoder finds a re-listed picture again, beside a perceptual hash, on products it never saw."""

import io
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image
from sklearn.metrics import roc_auc_score

from sosie.embedding.image import ImageEncoder
from sosie.simulate.pictures import relist

Matrix = npt.NDArray[np.float32]


def measure(encoder: ImageEncoder, files: dict[str, Path], titles: dict[str, str], seed: int) -> dict[str, object]:
    """Scores of the encoder and of the 64-bit perceptual hash on the same pictures.

    `files` and `titles` are of unseen products, by id. Each picture is re-listed once by the simulator, then asked for
    among all originals. `auc_look_alikes`: the similarity of a product's own re-listing against that of originals of
    *other* products with the same title. `second_pictures_*` would need other photographs, which the data lacks.
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
    cosine = encoder.encode(copies, 64) @ encoder.encode(originals, 64).T
    agreement = 1 - _hamming(_hashes(copies), _hashes(originals)) / 64
    look_alike = _look_alikes([titles[product] for product in ids])
    return {
        "products": len(ids),
        "look_alike_pairs": int(look_alike.sum()),
        "encoder": _scores(cosine, look_alike, rng),
        "perceptual_hash": _scores(agreement, look_alike, rng),
    }


def _scores(similarity: Matrix, look_alike: npt.NDArray[np.bool_], rng: np.random.Generator) -> dict[str, float]:
    """Ties rank as bad luck would have it: half of those that tie with the right one come before it."""
    own = np.diag(similarity)
    others = similarity[~np.eye(len(own), dtype=bool)].reshape(len(own), -1)
    rank = (others > own[:, None]).sum(1) + (others == own[:, None]).sum(1) / 2
    drawn = rng.choice(others.ravel(), 50 * len(own), replace=False)
    alike = similarity[look_alike]
    return {
        "recall_at_1": _rounded((rank < 1).mean()),
        "recall_at_5": _rounded((rank < 5).mean()),
        "recall_at_20": _rounded((rank < 20).mean()),
        "auc_look_alikes": _auc(own, alike),
        "auc_all": _auc(own, drawn),
        "median_own": _rounded(np.median(own)),
        "median_look_alike": _rounded(np.median(alike)) if len(alike) else float("nan"),
        "p999_other": _rounded(np.quantile(drawn, 0.999)),
        "share_own_above_p999_other": _rounded((own > np.quantile(drawn, 0.999)).mean()),
    }


def _auc(positive: Matrix, negative: Matrix) -> float:
    if not len(negative):
        return float("nan")
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return _rounded(roc_auc_score(labels, np.r_[positive, negative]))


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _look_alikes(titles: list[str]) -> npt.NDArray[np.bool_]:
    codes = pl.Series(titles).rank("dense").to_numpy()
    same: npt.NDArray[np.bool_] = codes[:, None] == codes[None, :]
    np.fill_diagonal(same, False)
    return same


def _hashes(pictures: list[bytes]) -> npt.NDArray[np.bool_]:
    found = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            found.append(imagehash.phash(image.convert("RGB")).hash.ravel())
    return np.stack(found)


def _hamming(left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> Matrix:
    """[n, m] differing bits."""
    a, b = left.astype(np.float32), right.astype(np.float32)
    return np.asarray(a @ (1 - b).T + (1 - a) @ b.T, np.float32)
