"""Pairs a second of the deciders: trees on pair features over real candidates, and the perceptron on vectors alone.

    python benchmarks/decider.py [--size small|standard|large] [--json FILE]
    SOSIE_BENCH_DATASET=FOLDER SOSIE_BENCH_MLP=models/decider-mlp python benchmarks/decider.py

The dataset is anything that `sosie evaluate` reads: data/shopee, or where that is absent a simulated marketplace.
Candidates are those of the hourly run, the first of them. `trees` is all that a verdict takes: pair features, both
steps, surroundings; `trees and reasons` also why, for six features a pair. The perceptron's weights are drawn at random
where none are named, which costs the same. The peer is what any decider has to do at least: numpy's cosines of the same
pairs' two vectors. The first step's trees by themselves stand beside LightGBM, which grew them, and reasons by
themselves beside its TreeSHAP, in time and in what they name.
"""

import os
import tempfile
from pathlib import Path

import lightgbm
import numpy as np

from sosie.bench import Figure, Size, against, interleaved, script, within
from sosie.decider.batch import vectors_of
from sosie.decider.features import pair_features
from sosie.decider.mlp import WEIGHTS, Floats, Ints, Perceptron, Sides
from sosie.decider.model import Decider, First
from sosie.decider.neighbourhood import FLOOR
from sosie.decider.trees import Trees
from sosie.evaluate import datasets
from sosie.evaluate.matching import Clock
from sosie.evaluate.sosie_matcher import decide_all
from sosie.evaluate.vectors import image_vectors, text_vectors, with_hashes
from sosie.settings import PROJECT, load
from sosie.tables import DIM

PAIRS: dict[Size, int] = {"small": 2_000, "standard": 100_000, "large": 1_000_000}
LISTINGS: dict[Size, int] = {"small": 300, "standard": 5_000, "large": 1_000_000}
RANDOM_PAIRS: dict[Size, int] = {"small": 10_000, "standard": 1_000_000, "large": 4_000_000}
RANDOM_LISTINGS = 50_000
TRIES: dict[Size, int] = {"small": 1, "standard": 3, "large": 5}
TREES_GOAL, PERCEPTRON_GOAL = 20_000, 500_000
WIDTHS = ((2 * DIM + 2, 32), (36, 64), (64, 32), (32, 1))
COSINES = "numpy, cosines alone"
LIGHTGBM, SHAP = "LightGBM", "LightGBM's TreeSHAP"
EXPLAINED = 2_000


def measure(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-decider-") as folder:
        found = trees(dataset_of(Path(folder), LISTINGS[size]), PAIRS[size], TRIES[size])
    named = os.environ.get("SOSIE_BENCH_MLP")
    return [*found, *perceptron(Path(named) if named else None, RANDOM_PAIRS[size], TRIES[size])]


def dataset_of(folder: Path, most: int) -> Path:
    """The dataset to take pairs of, cut to `most` listings where it is a single table."""
    import polars as pl

    from sosie.simulate import Marketplace, write

    if named := os.environ.get("SOSIE_BENCH_DATASET"):
        return Path(named)
    shopee = PROJECT / "data" / "shopee" / "listings.csv"
    if not shopee.exists():
        write(folder, Marketplace(listings=min(most, 20_000), hours=1, with_pictures=False))
        return folder
    pl.read_csv(shopee).head(most).write_csv(folder / "shopee.csv")
    return folder / "shopee.csv"


def trees(path: Path, limit: int, tries: int) -> list[Figure]:
    settings, dataset = load(), datasets.load(path)
    pairs = decide_all(dataset, Clock(), settings).pairs.select("left_id", "right_id").head(limit)
    text, pictures = text_vectors(dataset.listings, settings)[0], image_vectors(dataset, settings)
    listings, image = with_hashes(dataset.listings, pictures), pictures.vectors if pictures else None
    decider = Decider.load(settings.decider_model, threads=settings.embedding.threads).in_catalogue(listings.height)
    numbered = listings.select("listing_id").with_row_index("row")
    left, right = (
        pairs.join(numbered, left_on=side, right_on="listing_id", how="left", maintain_order="left")["row"].to_numpy()
        for side in ("left_id", "right_id")
    )
    both = [vectors_of(listings["listing_id"], each, name) for name, each in (("text", text), ("image", image))]
    taken = interleaved(tries, {
        "plain": lambda: _cosines(both, left.astype(np.int64), right.astype(np.int64)),
        "trees": lambda: decider.decide(pairs, listings, text, image, reasons=0),
        "trees and reasons": lambda: decider.decide(pairs, listings, text, image),
    })  # fmt: skip
    note = f"{pairs.height:,} candidate pairs of {listings.height:,} listings"
    rate = pairs.height / taken["trees"]
    first = decider.first(pairs, listings, text, image)
    return [
        within("trees", rate, "pairs/s", TREES_GOAL, at_most=False, note=note),
        *(
            against(name, pairs.height, "pairs", taken[name], COSINES, taken["plain"], note=note)
            for name in ("trees", "trees and reasons")
        ),
        *whole_trees(decider, pair_features(pairs, listings, text, image, decider.vocabulary), first, tries, note),
        *reasons(decider.first_trees, first.features[:: max(1, len(first.features) // EXPLAINED)], tries),
    ]


def whole_trees(decider: Decider, values: Floats, first: First, tries: int, note: str) -> list[Figure]:
    """All trees of the first step asked of all pairs, and what it loses to ask most of them only of pairs that the
    first ones leave hope."""
    ours, told = decider.first_trees, {}
    booster = lightgbm.Booster(model_str=ours.text)

    def ask() -> None:
        told["ours"] = ours.log_odds(values)

    def ask_lightgbm() -> None:
        told["lightgbm"] = booster.predict(values, raw_score=True, num_threads=ours.threads)

    taken = interleaved(tries, {"ours": ask, "lightgbm": ask_lightgbm})
    off = float(np.abs(told["ours"] - told["lightgbm"]).max())
    whole = decider.first_calibration.apply(1 / (1 + np.exp(-told["ours"] - decider.prior)))
    near, lost = whole >= FLOOR, (whole >= FLOOR) & (first.score < FLOOR)
    share = float(lost.sum() / max(near.sum(), 1))
    return [
        against("log-odds of all trees", len(values), "pairs", taken["ours"], LIGHTGBM, taken["lightgbm"], note=note),
        within("the same, furthest off", off, "of log-odds", 1e-5, at_most=True, note=f"{LIGHTGBM}; {note}"),
        within("worth a second look, lost by the cascade", share, "of pairs", 0.001, at_most=True, note=note),
    ]


def reasons(trees: Trees, values: Floats, tries: int) -> list[Figure]:
    """Contributions of the decision path beside TreeSHAP's, of pairs that the first step doesn't rule out."""
    told: dict[str, Floats] = {}
    booster = lightgbm.Booster(model_str=trees.text)

    def shap() -> None:
        told["shap"] = booster.predict(values, pred_contrib=True, num_threads=trees.threads)[:, :-1]

    def path() -> None:
        told["path"] = trees.contributions(values)

    taken = interleaved(tries, {"path": path, "shap": shap})
    order = {name: np.argsort(-np.abs(each), axis=1) for name, each in told.items()}
    named = (order["path"][:, :1] == order["shap"][:, :3]).any(axis=1).mean()
    alike = np.corrcoef(told["path"].ravel(), told["shap"].ravel())[0, 1]
    note = f"{len(values):,} pairs that are not ruled out at once"
    return [
        against("reasons alone", len(values), "pairs", taken["path"], SHAP, taken["shap"], note=note),
        Figure("strongest reason is among its first three", float(named), "of pairs", SHAP, 1.0, note=note),
        Figure("correlation of contributions", float(alike), "", SHAP, 1.0, note=note),
    ]


def perceptron(folder: Path | None, count: int, tries: int) -> list[Figure]:
    random = np.random.default_rng(7)
    sides = Sides.of(_units(random, RANDOM_LISTINGS), _units(random, RANDOM_LISTINGS))
    left = np.sort(random.integers(RANDOM_LISTINGS, size=count))  # as blocking hands pairs over
    right = random.integers(RANDOM_LISTINGS, size=count)
    model = Perceptron.load(folder / WEIGHTS) if folder else _drawn(random)
    taken = interleaved(tries, {
        "ours": lambda: model.log_odds(sides, left, right, load().embedding.threads),
        "plain": lambda: _cosines([sides.text, sides.image], left, right),
    })  # fmt: skip
    note = f"{count:,} random pairs of {RANDOM_LISTINGS:,} listings"
    return [
        within("perceptron", count / taken["ours"], "pairs/s", PERCEPTRON_GOAL, at_most=False, note=note),
        against("perceptron", count, "pairs", taken["ours"], COSINES, taken["plain"], note=note),
    ]


def _cosines(vectors: list[Floats], left: Ints, right: Ints) -> list[Floats]:
    return [np.einsum("ij,ij->i", each[left], each[right]) for each in vectors]


def _units(random: np.random.Generator, rows: int) -> Floats:
    vectors = random.standard_normal((rows, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _drawn(random: np.random.Generator) -> Perceptron:
    matrices = tuple(random.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for shape in WIDTHS)
    return Perceptron(matrices, tuple(np.zeros(width, np.float32) for _, width in WIDTHS))


if __name__ == "__main__":
    script(measure, __doc__)
