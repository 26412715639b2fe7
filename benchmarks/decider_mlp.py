"""Pairs a second of the perceptron decider on vectors alone, beside a plain product of the same vectors.

    python benchmarks/decider_mlp.py [--model models/decider-mlp] [--listings 50000] [--pairs 1000000] [--threads 2]

Vectors and pairs are drawn at random, 40 partners a listing; without --model the weights are too, which costs the same.
Prints JSON; `ratio` is the perceptron's seconds over those of the cosines of the same pairs by numpy.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sosie.decider.mlp import WEIGHTS, Floats, Perceptron, Sides
from sosie.tables import DIM

WIDTHS = ((2 * DIM + 2, 32), (36, 64), (64, 32), (32, 1))
TRIES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--listings", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    random = np.random.default_rng(7)
    text, image = (_units(random, options.listings) for _ in range(2))
    sides = Sides.of(text, image)
    left = np.sort(random.integers(options.listings, size=options.pairs))  # as blocking hands pairs over
    right = random.integers(options.listings, size=options.pairs)
    model = Perceptron.load(options.model / WEIGHTS) if options.model else _drawn(random)

    ours = _best(lambda: model.log_odds(sides, left, right, options.threads))
    plain = _best(
        lambda: [np.einsum("ij,ij->i", vectors[left], vectors[right]) for vectors in (sides.text, sides.image)]
    )
    found = {
        "pairs": options.pairs,
        "threads": options.threads,
        "pairs_per_second": round(options.pairs / ours),
        "cosines_per_second": round(options.pairs / plain),
        "ratio": round(ours / plain, 2),
    }
    print(json.dumps(found, indent=2))


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
