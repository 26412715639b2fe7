"""Stage `fit_reduction`: from each encoder's full width to 128 numbers, by the way that loses least.

Principal components (without centring, which keeps cosines) are fitted to pooled features of the encoders' part at 512,
256 and 128; the learned head comes out of metric learning. What each way loses is measured against the full width on
the decider's part, whose groups the encoders never saw, and the better of the two at 128 is what is exported.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from sosie.evaluate import datasets
from sosie.tables import DIM
from sosie.training.checkpoints import write_metrics
from sosie.training.image import vectors as image
from sosie.training.profile import Profile, stage
from sosie.training.text import encoders as text
from sosie.training.text import measure
from sosie.training.text.titles import Titles

log = structlog.get_logger()

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
WIDTHS = (512, 256, 128)
_TITLES, _PICTURES = 8_000, 2_500
"""So many of the encoders' part, drawn at random, are enough to find the components."""


class Features(NamedTuple):
    """Pooled features float32 [n, width] of unit length to fit components to, and of unseen groups to measure on."""

    fit: Array
    unseen: Array
    groups: Ints


def main(profile: Profile) -> None:
    out = profile.work / "reduction"
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in text.NAMES:
        found[f"text-{name}"] = _reduce(out / f"text-{name}.npz", _titles(profile, name), text.head(profile, name))
    for name in image.NAMES:
        head = image.learned_head(profile, name)
        found[f"image-{name}"] = _reduce(out / f"image-{name}.npz", _pictures(profile, name), head)
    write_metrics(out, found)


def _titles(profile: Profile, name: str) -> Features:
    """Of the largest real corpus of titles where there is one, else of the generated marketplace."""
    model, tokens = text.load(profile, name), text.tokeniser(profile, name)
    corpus = profile.prepare.real[0] if profile.prepare.real else "generated"
    seen, unseen = Titles.read(profile.data("encoder")), Titles.read(profile.data("decider")).of(corpus)
    drawn = np.random.default_rng(profile.seed).permutation(len(seen))[:_TITLES]
    fit, _ = text.vectors(model, tokens([seen.texts[place] for place in drawn]))
    measured, _ = text.vectors(model, tokens(unseen.texts))
    return Features(fit, measured, unseen.groups)


def _pictures(profile: Profile, name: str) -> Features:
    """Of the marketplace of real products where there is one, else of the generated one."""
    corpus = "fashion" if profile.prepare.fashion else "generated"
    seen, _ = _read_pictures(profile.data("encoder") / corpus, _PICTURES)
    unseen, groups = _read_pictures(profile.data("decider") / corpus, _PICTURES)
    return Features(image.full_width(profile, name, seen), image.full_width(profile, name, unseen), groups)


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


def _reduce(out: Path, features: Features, head: Array) -> dict[str, object]:
    """Measure every way, write the best at 128 numbers, and say what each is worth."""
    full = features.fit.shape[1]
    ways = {f"pca_{width}": components(features.fit, width) for width in WIDTHS if width < full}
    ways[f"head_{DIM}"] = head
    figures = {f"full_{full}": measure.of_pool(features.unseen, features.groups)}
    for way, matrix in ways.items():
        figures[way] = measure.of_pool(_unit(features.unseen @ matrix.T), features.groups)
        log.info("reduction", encoder=out.stem, way=way, **figures[way])
    best = max((f"pca_{DIM}", f"head_{DIM}"), key=lambda way: figures[way]["row_f1"])
    np.savez(out, head=ways[best])
    lost = figures[f"full_{full}"]["row_f1"] - figures[best]["row_f1"]
    return {**figures, "chosen": best, "row_f1_lost": round(lost, 4)}


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    stage(main, __doc__)
