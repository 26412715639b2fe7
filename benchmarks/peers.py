"""End to end on a labelled catalogue, embedding included: Sosie beside four peers, time and mean F1 of a row.

    python benchmarks/peers.py [--size small|standard|large] [--json FILE]

The catalogue is data/shopee (titles and perceptual hashes; 27,303 listings, or the first of them for a smaller size),
else a simulated marketplace. Each matcher is a process of its own, from reading the table to scored pairs:

- Sosie: `sosie evaluate`, thresholds of the model as it ships: by default, with the models that do without a
  transformer, and with those and few candidates (`IN_HASTE`)
- TF-IDF ∪ equal hash: scikit-learn, word TF-IDF
- Splink on DuckDB, GoldenMatch (once configured by hand, once by itself) and dedupe, each in an environment of its own
  that is made under var/bench/peers; equal hashes are added to what each finds

F1 is that of the groups that no model of ours saw in training, found in the whole pool. The peers' thresholds are
fitted on the other groups of this very catalogue, Sosie's are not. Of those groups are the 750 labelled pairs too that
dedupe learns from, in the time that is measured. It is left out at the small size, which has too few to label; at the
large one it takes many minutes. A peer that can't be installed, fails, or takes more than an hour is left out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from sosie.bench import SIZES, Figure, Size, script
from sosie.evaluate import datasets, knn, metrics, tfidf
from sosie.evaluate.matching import Labelled
from sosie.settings import PROJECT, settings
from sosie.simulate import Marketplace, write

LISTINGS: dict[Size, int] = {"small": 300, "standard": 7_000, "large": 1_000_000}
SCRIPTS = PROJECT / "benchmarks" / "peers"
LISTED, LABELLED, FOUND = "listings.parquet", "labelled.parquet", "pairs.parquet"
LABELS = 250
"""Labelled pairs of each of the three kinds."""
LONGEST = 3_600
DEFAULT = {"SOSIE_MODELS": str(PROJECT / "models")}
LIGHT = {"SOSIE_MODELS": str(PROJECT / "models" / "light")}
IN_HASTE = {
    **LIGHT,
    "SOSIE_BLOCKING__TEXT_NEIGHBOURS": "10",
    "SOSIE_BLOCKING__LEXICAL_NEIGHBOURS": "0",
    "SOSIE_BLOCKING__MIN_TEXT_SIMILARITY": "0.5",
}
WAYS: dict[str, dict[str, str]] = {"": DEFAULT, ", light models": LIGHT, ", light models in haste": IN_HASTE}
"""How Sosie is run, by what a figure's name tells of it; whatever else the shell sets for candidates counts in none."""


@dataclass(frozen=True)
class Peer:
    """A library in an environment of its own. `script` is told the listings, where its pairs belong, and `given`."""

    name: str
    requirements: tuple[str, ...]
    script: str
    given: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = SIZES


GOLDENMATCH = ("goldenmatch[polars]==3.22.0",)
PEERS = (
    Peer("Splink ∪ equal hash (DuckDB)", ("splink==5.0.0",), "splink_titles.py"),
    Peer("GoldenMatch ∪ equal hash (configured)", GOLDENMATCH, "goldenmatch_titles.py"),
    Peer("GoldenMatch ∪ equal hash (zero-config)", GOLDENMATCH, "goldenmatch_titles.py", ("--zero-config",)),
    # dedupe calls what BTrees took away in 6.5.
    Peer(
        "dedupe ∪ equal hash (750 labelled pairs)", ("dedupe==3.0.3", "BTrees<6.5", "pyarrow"), "dedupe_titles.py",
        (LABELLED,), ("standard", "large"),
    ),
)  # fmt: skip


def measure(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-peers-") as scratch:
        folder = Path(scratch)
        path = catalogue(folder, LISTINGS[size])
        ours = {way: evaluated(path, "sosie", more) for way, more in WAYS.items()}
        peers = {"TF-IDF ∪ equal hash (scikit-learn)": evaluated(path, "tfidf")}
        labelled = Labelled.of(datasets.load(path))
        hand_over(labelled, folder)
        for peer in PEERS:
            if size in peer.sizes and (python := environment(peer.requirements)) is not None:
                try:
                    peers[peer.name] = by_peer(peer, python, labelled, folder)
                except subprocess.SubprocessError as error:
                    print(f"{peer.name} is left out: {error}.", file=sys.stderr)
    found = []
    for way, (seconds, f1) in ours.items():
        note = f"{datasets_size(path, size)}; ours {seconds:.0f} s and F1 {f1:.3f}"
        for name, (their_seconds, their_f1) in peers.items():
            found += [
                Figure(f"F1 of unseen groups{way}", f1, "F1", name, their_f1, 1.0, note=note),
                Figure(f"seconds, start to end{way}", seconds, "s", name, their_seconds, 1.0, at_most=True, note=note),
            ]
    return found


def datasets_size(path: Path, size: Size) -> str:
    return f"{path.name}, at most {LISTINGS[size]:,} listings"


def catalogue(folder: Path, most: int) -> Path:
    """The labelled catalogue, cut at whole groups."""
    shopee = PROJECT / "data" / "shopee" / "listings.csv"
    if not shopee.exists():
        write(folder / "market", Marketplace(listings=min(most, 5_000), hours=1, with_pictures=False))
        return folder / "market"
    table = pl.read_csv(shopee)
    groups = table.group_by("label_group").len().sample(fraction=1.0, shuffle=True, seed=7)
    kept = groups.filter(pl.col("len").cum_sum() <= most)["label_group"]
    table.filter(pl.col("label_group").is_in(kept.implode())).write_csv(folder / "shopee.csv")
    return folder / "shopee.csv"


def evaluated(path: Path, matcher: str, more: Mapping[str, str] = MappingProxyType({})) -> tuple[float, float]:
    """Seconds of the whole process, with more in its environment, and F1 of unseen groups."""
    began = time.perf_counter()
    sosie = Path(sys.executable).with_name("sosie")
    others = {name: value for name, value in os.environ.items() if not name.startswith("SOSIE_BLOCKING__")}
    told = subprocess.run(
        [sosie, "evaluate", path, "--matcher", matcher, "--json"],
        check=True,
        capture_output=True,
        text=True,
        env={**others, **more},
    )
    found = json.loads(told.stdout)["metrics"]
    return time.perf_counter() - began, found.get("unseen", found["all"])["row"]["f1"]


@cache
def environment(requirements: tuple[str, ...]) -> Path | None:
    """Python of an environment with the requirements, made where it is missing; none where they can't be installed."""
    folder = settings().home / "bench" / "peers" / requirements[0].replace("==", "-")
    python, uv = folder / "bin" / "python", str(Path(sys.executable).with_name("uv"))
    try:
        if not python.exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{requirements[0]} is left out: it can't be installed ({error}).", file=sys.stderr)
        return None
    return python


def hand_over(labelled: Labelled, folder: Path) -> None:
    """Write what peers read: all listings, and labelled pairs."""
    listings = labelled.dataset.listings
    table = pl.DataFrame({"row": np.arange(len(labelled.groups)), "title": tfidf.titles_of(listings)})
    table.with_columns(listings["image_phash"]).write_parquet(folder / LISTED)
    labels(labelled).write_parquet(folder / LABELLED)


def labels(labelled: Labelled) -> pl.DataFrame:
    """Labelled pairs of the train half: of one product, of two with similar titles, and of any two, a third each."""
    groups, train, draw = labelled.groups, labelled.train, np.random.default_rng(7)
    rows = pl.DataFrame({"row": np.flatnonzero(train), "group": groups[train]})
    both = rows.join(rows, on="group", maintain_order="left_right").filter(pl.col("row") < pl.col("row_right"))
    alike = tfidf.nearest(tfidf.weights(tfidf.titles_of(labelled.dataset.listings))).within(train).pairs
    drawn = draw.choice(np.flatnonzero(train), (2 * LABELS, 2))
    others = (pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]] for pairs in (alike, drawn))
    kinds = (both.select("row", "row_right").to_numpy(), *others)
    left, right = np.concatenate([draw.permutation(kind)[:LABELS] for kind in kinds]).T
    return pl.DataFrame({"left": left, "right": right, "same": groups[left] == groups[right]})


def by_peer(peer: Peer, python: Path, labelled: Labelled, folder: Path) -> tuple[float, float]:
    """Seconds of the script, which writes two rows and a score, and F1 of unseen groups with equal hashes matched."""
    groups, train = labelled.groups, labelled.train
    began = time.perf_counter()
    command = [python, SCRIPTS / peer.script, LISTED, FOUND, *peer.given]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=LONGEST)
    seconds = time.perf_counter() - began
    left, right, score = (column.to_numpy() for column in pl.read_parquet(folder / FOUND))
    links = knn.Links.of(left.astype(np.int64), right.astype(np.int64), score.astype(np.float32))
    equal = tfidf.equal_hashes(labelled.dataset.listings)
    threshold = knn.fit_threshold(links, groups, rows=train, free=equal)
    counts = metrics.counts_of_pairs(knn.union(links.above(threshold), equal), groups)
    return seconds, metrics.score(counts.of(~train)).row.f1


if __name__ == "__main__":
    script(measure, __doc__)
