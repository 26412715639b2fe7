"""Pairs a second of the deciders: trees on pair features over real candidates, and the perceptron on vectors alone.

    python benchmarks/decider.py DATASET [--pairs 200000] [--threads 2] [--mlp models/decider-mlp]

DATASET is anything that `sosie evaluate` reads. Candidates are those of the hourly run, its first --pairs of them.
`trees` is all that a verdict takes: pair features, both steps, surroundings; `trees_and_reasons` also why, for six
features a pair. The perceptron's weights are drawn at random where there is no --mlp, which costs the same, over a
million random pairs. Prints JSON; each `ratio` is to numpy's cosines of the same pairs' two vectors.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sosie.decider.batch import vectors_of
from sosie.decider.mlp import WEIGHTS, Floats, Ints, Perceptron, Sides
from sosie.decider.model import Decider
from sosie.evaluate import datasets
from sosie.evaluate.matching import Clock
from sosie.evaluate.sosie_matcher import decide_all
from sosie.evaluate.vectors import image_vectors, text_vectors, with_hashes
from sosie.settings import load
from sosie.tables import DIM

WIDTHS = ((2 * DIM + 2, 32), (36, 64), (64, 32), (32, 1))
RANDOM_PAIRS, RANDOM_LISTINGS = 1_000_000, 50_000
TRIES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mlp", type=Path)
    options = parser.parse_args()
    print(json.dumps({**trees(options.dataset, options.pairs, options.threads),
                      "perceptron": perceptron(options.mlp, options.threads)}, indent=2))  # fmt: skip


def trees(path: Path, limit: int, threads: int) -> dict[str, object]:
    settings, dataset = load(), datasets.load(path)
    pairs = decide_all(dataset, Clock(), settings).pairs.select("left_id", "right_id").head(limit)
    text, pictures = text_vectors(dataset.listings, settings)[0], image_vectors(dataset, settings)
    listings, image = with_hashes(dataset.listings, pictures), pictures.vectors if pictures else None
    decider = Decider.load(settings.decider_model, threads=threads).in_catalogue(listings.height)
    numbered = listings.select("listing_id").with_row_index("row")
    left, right = (
        pairs.join(numbered, left_on=side, right_on="listing_id", how="left", maintain_order="left")["row"].to_numpy()
        for side in ("left_id", "right_id")
    )
    both = [vectors_of(listings["listing_id"], each, name) for name, each in (("text", text), ("image", image))]
    plain = _best(lambda: _cosines(both, left.astype(np.int64), right.astype(np.int64)))
    found: dict[str, object] = {"dataset": dataset.name, "listings": listings.height, "pairs": pairs.height}
    for name, reasons in (("trees", 0), ("trees_and_reasons", 6)):
        seconds = _best(lambda reasons=reasons: decider.decide(pairs, listings, text, image, reasons=reasons))
        found[name] = _told(pairs.height, seconds, plain)
    return {**found, "threads": threads}


def perceptron(folder: Path | None, threads: int) -> dict[str, object]:
    random = np.random.default_rng(7)
    sides = Sides.of(_units(random, RANDOM_LISTINGS), _units(random, RANDOM_LISTINGS))
    left = np.sort(random.integers(RANDOM_LISTINGS, size=RANDOM_PAIRS))  # as blocking hands pairs over
    right = random.integers(RANDOM_LISTINGS, size=RANDOM_PAIRS)
    model = Perceptron.load(folder / WEIGHTS) if folder else _drawn(random)
    seconds = _best(lambda: model.log_odds(sides, left, right, threads))
    plain = _best(lambda: _cosines([sides.text, sides.image], left, right))
    return {"pairs": RANDOM_PAIRS, **_told(RANDOM_PAIRS, seconds, plain)}


def _told(pairs: int, seconds: float, plain: float) -> dict[str, float]:
    return {"pairs_per_second": round(pairs / seconds), "ratio": round(seconds / plain, 2)}


def _cosines(vectors: list[Floats], left: Ints, right: Ints) -> list[Floats]:
    return [np.einsum("ij,ij->i", each[left], each[right]) for each in vectors]


def _units(random: np.random.Generator, rows: int) -> Floats:
    vectors = random.standard_normal((rows, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _drawn(random: np.random.Generator) -> Perceptron:
    matrices = tuple(random.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for shape in WIDTHS)
    return Perceptron(matrices, tuple(np.zeros(width, np.float32) for _, width in WIDTHS))


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
