"""What an hour costs where the same number of listings changed in catalogues of different sizes.

    python benchmarks/hour_cost.py                                  # 10,000, 30,000 and 100,000 listings
    python benchmarks/hour_cost.py --keep DIR                       # keeps and reuses the catalogues that it made

The smallest catalogue is loaded by the pipeline. The larger ones are made of copies of it (`multiplied_lake.py`), of
which an hour without a file works out all lists, pairs and clusters; all are compacted as upkeep does. In each, hours
with `--changed` listings (three in ten new, one in ten deleted, the others with a new title, price or picture, drawn
from the whole catalogue) run in a process of their own, sizes taking turns: the first warms up, of the others the
median counts. For each step, and for that part of `match` that says why pairs match: seconds of CPU time of the process
and of the index's server (others on the machine don't count in it), wall seconds, and peak memory of the process; then
ratios to the smallest.
Vectors are simulated (`simulated_market.py`), so the encoders' constant share is left out. JSON to --out.
"""

import argparse
import json
import logging
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog
from multiplied_lake import alphabet, multiply, spell
from simulated_market import A_KIND, SENT, START, Market, Sent, hour_id

from sosie import pipeline
from sosie.decider import Decider
from sosie.index import server
from sosie.lake import Lake
from sosie.pipeline.run import Run
from sosie.settings import Settings, load
from sosie.tables import ALL, LISTINGS
from sosie.upkeep.delta import compact

REASONS = "match: reasons"
"""A part of `match`, told beside it."""

_say_why = Decider._reasons

_MADE = 1
"""The hour in which a copied catalogue is worked out; those that are measured come after it."""

LENIENT = {"max_bad_share": 1.0, "min_rows_of_median": 0.0, "max_rows_of_median": 1e9}


def settings_of(home: Path) -> Settings:
    return load(
        home=home, landing=home / "landing", validation=LENIENT, alerts={"console": False}, embedding={"threads": 1}
    )


def make(home: Path, listings: int) -> None:
    """The smallest catalogue, loaded by one hour."""
    settings = settings_of(home)
    with Market(settings, max(1, listings // A_KIND), np.random.default_rng(5), pictures=0.2) as market:
        rows = [market.new(START + timedelta(minutes=5)) for _ in range(listings)]
        market.land(0, rows)
        market.take(rows)
        pipeline.run_all(Run.of(hour_id(0), settings=settings))
    compacted(settings)
    state = (market.truth, market.sells, market._about, market._unsold, market._products, market.kinds)
    (home / "market.pickle").write_bytes(pickle.dumps(state))


def enlarge(base: Path, home: Path, copies: int) -> None:
    """Another home with so many copies of what `base` holds, of which the pipeline made lists, pairs and clusters."""
    shutil.copytree(base, home, ignore=shutil.ignore_patterns("users", "server.json"))
    settings = settings_of(home)
    with server.serve(settings):
        multiply(settings, copies)
        pipeline.run_all(Run.of(hour_id(_MADE), settings=settings))
    compacted(settings)


def compacted(settings: Settings) -> None:
    for table in ALL:
        compact(Lake(settings.lake_uri), table, 0)


def recall(home: Path, seed: int) -> Market:
    market = Market(settings_of(home), 1, np.random.default_rng(seed), pictures=0.2)
    state = pickle.loads((home / "market.pickle").read_bytes())
    market.truth, market.sells, market._about, market._unsold, market._products, market.kinds = state
    return market


def changed(market: Market, live: list[dict[str, Any]], number: int, hour: int) -> list[Sent]:
    """So many rows: new ones, deletes, and new titles, prices and pictures of listings drawn from all copies."""
    rng, at = market.rng, (START + timedelta(hours=hour, minutes=5)).isoformat()
    rows = [market.new(START + timedelta(hours=hour, minutes=5)) for _ in range(round(0.3 * number))]
    for row in rows:
        row["listing_id"] = f"N{hour}-{row['listing_id']}"  # what an hour before brought is not told to this process
    for place, row in enumerate(rng.choice(live, number - len(rows), replace=False)):
        row = {**row, "updated_at": at}
        if place % 7 == 0:
            row["is_deleted"] = True
        elif row["image_uri"] is not None:
            row["image_uri"] = market.picture(int(rng.integers(market._products)))
        elif place % 7 in (1, 2, 3, 4):
            words = row["title"].split()
            rng.shuffle(words)
            row["title"] = " ".join([*words, str(rng.choice(market._fillers)).translate(alphabet(copy_of(row)))])
            spell(market, row["listing_id"], row["title"])
        else:
            row["price"] = round(row["price"] * 1.05, 2)
        rows.append(row)
    return rows


def copy_of(row: Sent) -> int:
    return int(row["listing_id"][1:4]) if row["listing_id"].startswith("c") else 0


def hour(home: Path, number: int, hour_number: int) -> dict[str, dict[str, float]]:
    """Run one hour in this process; what each step cost."""
    market = recall(home, seed=hour_number)
    settings = market.settings
    columns = [name for name in SENT if name != "updated_at"]

    live = Lake(settings.lake_uri).read(LISTINGS, ~pl.col("is_deleted"), ~pl.col("listing_id").str.starts_with("N"),
                                        columns=columns)  # fmt: skip
    market.land(hour_number, changed(market, live.sort("listing_id").to_dicts(), number, hour_number))
    told: dict[str, dict[str, float]] = {}
    with market, server.serve(settings), pipeline.run.run_alone(settings):
        keeper = server.process(settings)
        assert keeper is not None
        run = Run.of(hour_id(hour_number), settings=settings)

        def cost(name: str, call: Any) -> Any:
            if name != REASONS:  # which is a part of a step
                Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
            before, wall = time.process_time() + sum(keeper.cpu_times()[:2]), time.perf_counter()
            made = call()
            own = told.setdefault(name, {"cpu": 0.0, "wall": 0.0, "peak_mb": 0.0})
            own["cpu"] += time.process_time() + sum(keeper.cpu_times()[:2]) - before
            own["wall"] += time.perf_counter() - wall
            own["peak_mb"] = max(own["peak_mb"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return made

        cost("validate", lambda: pipeline.validate(run))
        cost("detect_changes", lambda: pipeline.detect_changes(run))
        for part in pipeline.shards(run):
            cost("embed", lambda part=part: pipeline.embed(run, **part))
        Decider._reasons = lambda *given: cost(REASONS, lambda: _say_why(*given))  # type: ignore[method-assign]
        for step in ("upsert_vectors", "match", "cluster", "publish_features", "follow", "report", "alert"):
            counts = cost(step, lambda step=step: getattr(pipeline, step)(run))
            if step == "match":
                told[step]["counts"] = counts
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,30000,100000", help="the smallest first; the others are multiples")
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--hours", type=int, default=3, help="the first warms up, where there are more")
    parser.add_argument("--keep", type=Path, help="folder for the catalogues")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.one:
        home, number = options.one
        print(json.dumps(hour(Path(home), options.changed, int(number))))
        return
    with tempfile.TemporaryDirectory(prefix="sosie-hour-") as passing:
        told = measure(options.keep or Path(passing), options)
    text = json.dumps(told, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    smallest, *larger = sizes = [int(size) for size in options.sizes.split(",")]
    base = folder / f"base-{smallest}"
    if not (base / "market.pickle").exists():
        make(base, smallest)
    for size in larger:
        if not (folder / f"base-{size}").exists():
            enlarge(base, folder / f"base-{size}", size // smallest)
    hours: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    homes = {size: folder / f"hours-{size}" for size in sizes}
    for size, home in homes.items():
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(folder / f"base-{size}", home, ignore=shutil.ignore_patterns("users", "server.json"))
    for number in range(_MADE + 1, _MADE + 1 + options.hours):
        for size, home in homes.items():
            command = [sys.executable, __file__, "--changed", str(options.changed), "--one", str(home), str(number)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-4000:])
            hours[size].append(json.loads(done.stdout.splitlines()[-1]))
            print(
                size, number, {k: round(v["cpu"], 1) for k, v in hours[size][-1].items()}, file=sys.stderr, flush=True
            )
    for home in homes.values():
        shutil.rmtree(home, ignore_errors=True)
    counted = {size: own[1:] or own for size, own in hours.items()}
    told = {size: summary(own, counted[smallest]) for size, own in counted.items()}
    return {"changed": options.changed, "sizes": told}


def summary(own: list[dict[str, Any]], least: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of each step and of the whole hour, and their ratios to the smallest catalogue's."""
    steps: dict[str, Any] = {}
    for name in [*own[0], "hour"]:
        mine, theirs = (
            {what: _median(some, name, what) for what in ("cpu", "wall", "peak_mb")} for some in (own, least)
        )
        steps[name] = {what: round(value, 2) for what, value in mine.items()}
        steps[name]["ratio"] = round(mine["cpu"] / max(theirs["cpu"], 1e-3), 2)
        steps[name]["memory_ratio"] = round(mine["peak_mb"] / max(theirs["peak_mb"], 1e-3), 2)
    return {"steps": steps, "match_counts": own[-1]["match"]["counts"]}


def _median(hours: list[dict[str, Any]], name: str, what: str) -> float:
    if name != "hour":
        return statistics.median(hour[name][what] for hour in hours)
    whole = max if what == "peak_mb" else sum
    return statistics.median(whole(step[what] for own, step in hour.items() if own != REASONS) for hour in hours)


if __name__ == "__main__":
    main()
