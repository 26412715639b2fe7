"""The pictures of a marketplace, written by at most two processes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from sosie.simulate import pictures
from sosie.simulate.products import Photo, Shot

FOLDER = "pictures"
_ENOUGH_FOR_TWO = 400  # starting a second process costs about a second


@dataclass(frozen=True)
class Take:
    """One picture to write: view `view` of a product, as the seller whose noise is `key` shows it.

    `key` None is the maker's own picture, the same bytes wherever it is used. `cut`: broken off half way, as a failed
    upload leaves it.
    """

    uri: str
    view: int
    key: int | None
    cut: bool = False


def uri_of(*parts: object) -> str:
    """A path relative to the landing folder that tells nothing about product or picture."""
    name = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24]
    return f"{FOLDER}/{name[:2]}/{name}.jpg"


def write(landing: Path, seed: int, shelves: Iterable[tuple[tuple[Shot, ...], list[Take]]]) -> int:
    """Write each take of each shelf (a product's views and the takes of them) below `landing`; how many there are."""
    work = [(landing, seed, views, takes) for views, takes in shelves if takes]
    count = sum(len(takes) for *_, takes in work)
    for folder in sorted({Path(take.uri).parent for *_, takes in work for take in takes}):
        (landing / folder).mkdir(parents=True, exist_ok=True)
    if count < _ENOUGH_FOR_TWO or _cores() < 2:
        for shelf in work:
            _fill(shelf)
        return count
    # Spawned, not forked: the caller may run threads, and a forked child would inherit their locks.
    with get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(_fill, work, chunksize=16):
            pass
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill(shelf: tuple[Path, int, tuple[Shot, ...], list[Take]]) -> None:
    """Write a product's pictures; each view is rendered once, each different picture encoded once."""
    landing, seed, views, takes = shelf
    wanted: dict[tuple[int, int | None], list[Take]] = defaultdict(list)
    for take in takes:
        wanted[take.view, take.key].append(take)
    rendered = {view: views[view].render() for view in sorted({view for view, _ in wanted})}
    for (view, key), uses in wanted.items():
        shot = views[view]
        if key is not None:
            rng = np.random.default_rng([seed, 40, key])
            content = pictures.encode(pictures.relist(rendered[view], rng), int(rng.integers(72, 96)))
        elif isinstance(shot, Photo) and shot == Photo(shot.path) and shot.path.suffix.lower() in (".jpg", ".jpeg"):
            content = shot.path.read_bytes()
        else:
            content = pictures.encode(rendered[view], 90)
        for take in uses:
            (landing / take.uri).write_bytes(content[: len(content) // 2] if take.cut else content)
