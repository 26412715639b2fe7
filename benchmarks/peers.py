"""End to end on a labelled catalogue, embedding included: Sosie beside TF-IDF and Splink, time and mean F1 of a row.

    python benchmarks/peers.py [--size small|standard|large] [--json FILE]

The catalogue is data/shopee (titles and perceptual hashes; 27,303 listings, or the first of them for a smaller size),
else a simulated marketplace. Each matcher is a process of its own, from reading the table to scored pairs:

- Sosie: `sosie evaluate`, thresholds of the model as it ships
- TF-IDF ∪ equal hash: scikit-learn, word TF-IDF, the threshold fitted on half of this catalogue's groups
- Splink on DuckDB, in an environment that is made under var/bench/peers; the threshold fitted in the same way

F1 is that of the groups that no model of ours saw in training, found in the whole pool. The peers' thresholds are
fitted on the other groups of this very catalogue, Sosie's are not. A peer that can't be installed is left out.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from sosie.bench import Figure, Size, script
from sosie.evaluate import datasets, knn, metrics, tfidf
from sosie.evaluate.matching import Labelled
from sosie.settings import PROJECT, settings
from sosie.simulate import Marketplace, write

LISTINGS: dict[Size, int] = {"small": 300, "standard": 7_000, "large": 1_000_000}
SPLINK = "splink==5.0.0"
SCRIPT = PROJECT / "benchmarks" / "peers" / "splink_titles.py"


def measure(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-peers-") as scratch:
        folder = Path(scratch)
        path = catalogue(folder, LISTINGS[size])
        ours = evaluated(path, "sosie")
        peers = {"TF-IDF ∪ equal hash (scikit-learn)": evaluated(path, "tfidf")}
        if (python := environment(SPLINK)) is not None:
            peers["Splink ∪ equal hash (DuckDB)"] = by_splink(path, folder, python)
    note = f"{datasets_size(path, size)}; ours {ours[0]:.0f} s and F1 {ours[1]:.3f}"
    found = []
    for name, (seconds, f1) in peers.items():
        found.append(Figure("F1 of unseen groups", ours[1], "F1", name, f1, 1.0, note=note))
        found.append(Figure("seconds, start to end", ours[0], "s", name, seconds, at_most=True, note=note))
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


def evaluated(path: Path, matcher: str) -> tuple[float, float]:
    """Seconds of the whole process and F1 of unseen groups."""
    began = time.perf_counter()
    sosie = Path(sys.executable).with_name("sosie")
    told = subprocess.run(
        [sosie, "evaluate", path, "--matcher", matcher, "--json"], check=True, capture_output=True, text=True
    )
    found = json.loads(told.stdout)["metrics"]
    return time.perf_counter() - began, found.get("unseen", found["all"])["row"]["f1"]


def environment(requirement: str) -> Path | None:
    """Python of an environment with the requirement, made where it is missing; none where it can't be installed."""
    folder = settings().home / "bench" / "peers" / requirement.replace("==", "-")
    python, uv = folder / "bin" / "python", str(Path(sys.executable).with_name("uv"))
    try:
        if not python.exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, requirement], check=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{requirement} is left out: it can't be installed ({error}).", file=sys.stderr)
        return None
    return python


def by_splink(path: Path, folder: Path, python: Path) -> tuple[float, float]:
    labelled = Labelled.of(datasets.load(path))
    listings, groups, train = labelled.dataset.listings, labelled.groups, labelled.train
    source, out = folder / "listings.parquet", folder / "pairs.parquet"
    table = pl.DataFrame({"row": np.arange(len(groups)), "title": tfidf.titles_of(listings)})
    table.with_columns(listings["image_phash"]).write_parquet(source)
    began = time.perf_counter()
    subprocess.run([python, SCRIPT, source, out], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    pairs = pl.read_parquet(out)
    left, right, score = (pairs[name].to_numpy() for name in ("unique_id_l", "unique_id_r", "match_probability"))
    links = knn.Links.of(left.astype(np.int64), right.astype(np.int64), score.astype(np.float32))
    equal = tfidf.equal_hashes(listings)
    threshold = knn.fit_threshold(links, groups, rows=train, free=equal)
    counts = metrics.counts_of_pairs(knn.union(links.above(threshold), equal), groups)
    return seconds, metrics.score(counts.of(~train)).row.f1


if __name__ == "__main__":
    script(measure, __doc__)
