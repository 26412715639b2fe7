"""Stage `fit_reduction`: from each encoder's full width to 128 numbers, by the way that loses least.

Principal components (without centring, which keeps cosines) are fitted to pooled features of the encoders' part at 512,
256 and 128; the learned head comes out of metric learning. What each way loses is measured against the full width on
the decider's part, whose groups the encoders never saw, and the better of the two at 128 is what is exported.

Beside them stands what needs no training: letters of titles, thumbnails of pictures. An encoder that does worse than
they has learned nothing, or forgot it: one that is to be used stops the stage, another is told of.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from sosie.embedding.image import squeezed
from sosie.errors import ModelError
from sosie.evaluate import datasets
from sosie.tables import DIM
from sosie.training.checkpoints import METRICS, write_metrics
from sosie.training.image import vectors as image
from sosie.training.profile import Profile, stage
from sosie.training.text import encoders as text
from sosie.training.text import measure
from sosie.training.text.titles import Titles

log = structlog.get_logger()

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
WIDTHS = (512, 256, 128)
UNTRAINED = "untrained"
_TITLES, _PICTURES = 8_000, 2_500
"""So many of the encoders' part, drawn at random, are enough to find the components."""


class Features(NamedTuple):
    """Pooled features float32 [n, width] of unit length to fit components to, and of unseen groups to measure on.

    `untrained` float32 [n, any width] of unit length are features of the unseen ones that needed no training.
    """

    fit: Array
    unseen: Array
    groups: Ints
    untrained: Array


def main(profile: Profile) -> None:
    out = profile.work / "reduction"
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in text.NAMES:
        found[f"text-{name}"] = reduce_to_128(
            out / f"text-{name}.npz", _titles(profile, name), text.head(profile, name)
        )
    for name in image.NAMES:
        head = image.learned_head(profile, name)
        found[f"image-{name}"] = reduce_to_128(out / f"image-{name}.npz", _pictures(profile, name), head)
    write_metrics(out, found)
    for name in (name for name, told in found.items() if not told["learned"]):
        log.warning("encoder has learned nothing", encoder=name)
        if name in (f"text-{profile.text.encoder}", f"image-{profile.image.encoder}"):
            raise ModelError(
                f"{name} of profile {profile.name} does worse than {UNTRAINED} features "
                f"({out / METRICS}): its training went wrong. Look at its loss, change its knobs in params.yaml and "
                "run the stage again."
            )


def _titles(profile: Profile, name: str) -> Features:
    """Of the largest real corpus of titles where there is one, else of the generated marketplace."""
    model, tokens = text.load(profile, name), text.tokeniser(profile, name)
    corpus = profile.prepare.real[0] if profile.prepare.real else "generated"
    seen, unseen = Titles.read(profile.data("encoder")), Titles.read(profile.data("decider")).of(corpus)
    drawn = np.random.default_rng(profile.seed).permutation(len(seen))[:_TITLES]
    fit, _ = text.vectors(model, tokens([seen.texts[place] for place in drawn]))
    measured, _ = text.vectors(model, tokens(unseen.texts))
    return Features(fit, measured, unseen.groups, _letters(unseen.texts))


def _pictures(profile: Profile, name: str) -> Features:
    """Of the marketplace of real products where there is one, else of the generated one."""
    corpus = "fashion" if profile.prepare.fashion else "generated"
    seen, _ = _read_pictures(profile.data("encoder") / corpus, _PICTURES)
    unseen, groups = _read_pictures(profile.data("decider") / corpus, _PICTURES)
    fit, measured = (image.full_width(profile, name, pictures) for pictures in (seen, unseen))
    return Features(fit, measured, groups, _thumbnails(unseen))


def _letters(titles: list[str]) -> Array:
    """Hashed runs of three letters, float32 [n, 2048] of unit length."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=2048, dtype=np.float32)
    return np.asarray(hashing.transform(titles).toarray())


def _thumbnails(pictures: list[bytes]) -> Array:
    """8 × 8 pixels around their mean, float32 [n, 192] of unit length."""
    small = np.stack([squeezed(data, 8) for data in pictures]).reshape(len(pictures), -1).astype(np.float32)
    return _unit(small - small.mean(1, keepdims=True) + 1e-3)


def _read_pictures(folder: Path, most: int) -> tuple[list[bytes], Ints]:
    """Picture files of a marketplace's listings that can be decoded, and numbers of their groups; `most` at most."""
    from sosie.pictures import PictureFault, decode

    dataset = datasets.load(folder)
    listed = dataset.listings.drop_nulls("image_uri").join(dataset.truth, on="listing_id", maintain_order="left")
    found, kept = [], []
    for row in listed.select("image_uri", "group").iter_rows(named=True):
        try:
            data = (dataset.root / row["image_uri"]).read_bytes()
            decode(data, side=32)
        except (PictureFault, FileNotFoundError):  # broken or missing on purpose, as in some feeds
            continue
        found.append(data)
        kept.append(row["group"])
        if len(found) == most:
            break
    return found, pl.Series(kept).rank("dense").to_numpy().astype(np.int64)


def chosen(profile: Profile, name: str) -> Array:
    """The reduction of an encoder ("text-bert", "image-mae", …), float32 [128, width]."""
    with np.load(profile.work / "reduction" / f"{name}.npz") as held:
        return np.asarray(held["head"], dtype=np.float32)


def components(features: Array, width: int) -> Array:
    """float32 [width, full]: leading eigenvectors of the second-moment matrix."""
    _, vectors = np.linalg.eigh(features.T.astype(np.float64) @ features)
    return np.ascontiguousarray(vectors[:, ::-1][:, :width].T, dtype=np.float32)


def reduce_to_128(out: Path, features: Features, head: Array) -> dict[str, Any]:
    """Measure every way, write the best at 128 numbers to `out`, and say what each is worth.

    `learned` says whether it parts duplicates from others better than untrained features do, by mean row F1.
    """
    full = features.fit.shape[1]
    ways = {f"pca_{width}": components(features.fit, width) for width in WIDTHS if width < full}
    ways[f"head_{DIM}"] = head
    figures = {
        f"full_{full}": measure.of_pool(features.unseen, features.groups),
        UNTRAINED: measure.of_pool(features.untrained, features.groups),
    }
    for way, matrix in ways.items():
        figures[way] = measure.of_pool(_unit(features.unseen @ matrix.T), features.groups)
        log.info("reduction", encoder=out.stem, way=way, **figures[way])
    best = max((f"pca_{DIM}", f"head_{DIM}"), key=lambda way: figures[way]["row_f1"])
    np.savez(out, head=ways[best])
    lost = figures[f"full_{full}"]["row_f1"] - figures[best]["row_f1"]
    learned = figures[best]["row_f1"] > figures[UNTRAINED]["row_f1"]
    return {**figures, "chosen": best, "row_f1_lost": round(lost, 4), "learned": learned}


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    stage(main, __doc__)
