"""A simulated week, hour by hour on the real stores, held against one full run over the catalogue where it ends.

    python benchmarks/week.py                              # a day over 1,500 listings: some minutes on one core
    python benchmarks/week.py --listings 20000 --hours 168 # the whole week

Half of the listings are there in the first hour. Each hour after brings new ones, titles, prices and pictures that
change, deletes, rows that come late, rows that break a rule and come again mended or by `sosie replay`; now and then a
file is delivered twice or an hour runs twice. People judge pairs, one in ten wrongly, and take some of it back. Once a
day `sosie upkeep` runs; what it had to mend in the index is told. The catalogue grows past an order of magnitude where
every score moves. At each checkpoint, and at the end, a full run starts from empty stores with the live rows and the
same judgements, and listings, neighbour lists, pairs, clusters and index are compared: rows that differ are printed.

Vectors are drawn at random with planted duplicates (`simulated_market.py`); precision and recall are those of pairs in
one cluster against the planted truth, so they tell of over-merging, not of the encoders. JSON to --out.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog
from catalogue_state import differences, quality
from simulated_market import A_KIND, START, Market, Sent, hour_id

from sosie import judgements, pipeline, tables
from sosie.errors import TerminalError
from sosie.index import server
from sosie.lake import Lake
from sosie.replay import replay
from sosie.settings import Settings, load
from sosie.upkeep import upkeep

LENIENT = {"max_bad_share": 1.0, "min_rows_of_median": 0.0, "max_rows_of_median": 1e9}
"""A first load beside small hours is no mistake here."""


class Week:
    """What people and feeds do to a market, an hour at a time."""

    def __init__(self, market: Market, listings: int, hours: int) -> None:
        self.market, self.rng, self.lake = market, market.rng, Lake(market.settings.lake_uri)
        self.new_an_hour = max(1, round(listings / 2 / max(hours - 1, 1)))
        self.first = listings - self.new_an_hour * (hours - 1)
        self.before: list[Sent] = []
        self.broken: list[Sent] = []
        self.done = dict.fromkeys(
            ("new", "title", "price", "picture", "deleted", "late", "broken", "mended", "replayed", "files_repeated",
             "hours_repeated", "judged", "taken_back"), 0)  # fmt: skip

    def hour(self, number: int) -> None:
        market, rng, at = self.market, self.rng, START + timedelta(hours=number, minutes=5)
        rows = [market.new(at) for _ in range(self.first if number == 0 else self.new_an_hour)]
        self.done["new"] += len(rows)
        if number:
            rows += self._changed(number)
        # A row that breaks a rule is put aside; its listing stays as it was until the row comes again.
        bad = [row for row in rows if not row["is_deleted"] and rng.random() < 0.01] if number else []
        good = [row for row in rows if row["listing_id"] not in {one["listing_id"] for one in bad}]
        again = [row for row in self.broken if row["listing_id"] not in {one["listing_id"] for one in rows}]
        market.land(number, [*good, *again, *({**row, "price": -1.0} for row in bad)])
        self.done["broken"] += len(bad)
        self.done["mended"] += len(again)
        taken = [*good, *again]
        if self.before and rng.random() < 0.2:
            market.land(number, self.before, "again")
            taken += self.before
            self.done["files_repeated"] += 1
        if number % 12 == 7 and self._replay(number):
            self.done["replayed"] += 1
        market.take(taken)
        self.before, self.broken = good, bad
        run(market.settings, number)
        if number and rng.random() < 0.1:
            run(market.settings, number)
            self.done["hours_repeated"] += 1
        self._judge()

    def _changed(self, number: int) -> list[Sent]:
        market, rng = self.market, self.rng
        moved = max(7, round(0.004 * len(market.live)))
        chosen = list(rng.choice(market.live, min(3 * moved, len(market.live)), replace=False))
        rows = []
        for place, listing in enumerate(chosen):
            kind = ("title", "price", "picture", "deleted", "title", "price", "late")[place % 7]
            product = market.sells[listing]
            at = START + timedelta(hours=number - (500 if kind == "late" else 0), minutes=10)
            row = {**market.truth[listing], "updated_at": at.isoformat()}
            if kind in ("title", "late"):
                row["title"] = market.title(product)
            elif kind == "price":
                row["price"] = market.price(product)
            elif kind == "picture":
                row["image_uri"] = market.picture(product)
            else:
                row["is_deleted"] = True
            self.done[kind] += 1
            rows.append(row)
        return rows

    def _replay(self, number: int) -> bool:
        """The rows of an earlier hour as they came: they break the rule again and change nothing."""
        for hour in range(number - 1, 0, -1):
            rows = self.lake.read(tables.QUARANTINE, pl.col("run_id") == hour_id(hour))
            if rows.height:
                try:
                    replay(self.market.settings, hour_id(hour), rows["rule"][0])
                except TerminalError:
                    continue
                return True
        return False

    def _judge(self) -> None:
        rng, market = self.rng, self.market
        pairs = self.lake.read(tables.PAIRS, columns=["left_id", "right_id"])
        for place in rng.integers(0, max(pairs.height, 1), min(4, pairs.height)):
            left, right = pairs.row(int(place))
            same = market.sells[left] == market.sells[right]
            wrong = rng.random() < 0.1
            judgements.judge(self.lake, left, right, "same" if same != wrong else "different", "reviewer")
            self.done["judged"] += 1
        if rng.random() < 0.5:
            said = judgements.standing(self.lake)
            if said.height:
                row = said.row(int(rng.integers(said.height)), named=True)
                judgements.retract_act(self.lake, row["who"], row["when"])
                self.done["taken_back"] += 1


def run(settings: Settings, number: int) -> None:
    pipeline.run_all(pipeline.Run.of(hour_id(number), settings=settings))


def full_run(market: Market, folder: Path, number: int) -> Settings:
    """One run over what is live now, in stores of its own, with what people said."""
    home = folder / f"full-{number}"
    settings = load(
        home=home, landing=home / "landing", pictures_root=market.settings.pictures_root,
        validation=LENIENT, alerts={"console": False}, embedding={"threads": 1},
    )  # fmt: skip
    rows = [row for row in market.truth.values() if not row["is_deleted"]]
    Market(settings, market.kinds, market.rng).land(0, rows)
    said = Lake(market.settings.lake_uri).read(tables.JUDGEMENTS)
    Lake(settings.lake_uri).append(tables.JUDGEMENTS, said)
    run(settings, 0)
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=1_500, help="that ever are in the catalogue")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--checkpoints", type=int, default=2, help="comparisons before the last one")
    parser.add_argument("--seed", type=int, default=20260105)
    parser.add_argument("--out", type=Path, help="file for the JSON; it is rewritten at each checkpoint")
    parser.add_argument("--work", type=Path, help="folder for the stores, kept afterwards")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="sosie-week-") as passing:
        folder = options.work or Path(passing)
        told = measure(folder, options)
    print(json.dumps(told, indent=2))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = load(
        home=folder / "hourly", validation=LENIENT, alerts={"console": False}, embedding={"threads": 1}
    )  # fmt: skip
    rng = np.random.default_rng(options.seed)
    kinds = max(1, options.listings // A_KIND)
    asked = [round(options.hours * (place + 1) / (options.checkpoints + 1)) for place in range(options.checkpoints)]
    told: dict[str, Any] = {
        "options": {"listings": options.listings, "hours": options.hours, "seed": options.seed},
        "checkpoints": [],
    }
    seconds: list[float] = []
    with Market(settings, kinds, rng) as market, server.serve(settings):
        week = Week(market, options.listings, options.hours)
        for number in range(options.hours + 1):
            clock = time.perf_counter()
            if number < options.hours:
                week.hour(number)
            else:
                run(settings, number)  # the last judgements are for the next run to heed
            seconds.append(time.perf_counter() - clock)
            print(f"hour {number:3} {seconds[-1]:6.1f} s  live {len(market.live):,}", flush=True)
            mended = None
            if number % 24 == 23:
                parts = upkeep(settings)["check_stores"]
                mended = sum(
                    value for name, value in parts.items() if name.endswith(("astray", "orphaned", "embedded"))
                )
                told["upkeep_had_to_mend"] = told.get("upkeep_had_to_mend", 0) + mended
            if number in asked:
                run(settings, number)  # so that the judgements of this hour are heeded
            if number in (*asked, options.hours):
                clock = time.perf_counter()
                full = full_run(market, folder, number)
                found = differences(settings, full)
                told["checkpoints"].append(
                    {
                        "hour": number,
                        "differences": found,
                        "crowded_listings": _crowded(settings),
                        "full_run_seconds": round(time.perf_counter() - clock, 1),
                        "hourly": quality(Lake(settings.lake_uri), market.sells),
                        "full": quality(Lake(full.lake_uri), market.sells),
                    }
                )
                told |= {
                    "done": week.done,
                    "first_hour_seconds": round(seconds[0], 1),
                    "median_hour_seconds": round(statistics.median(seconds[1:]), 2),
                    "slowest_hour_seconds": round(max(seconds[1:]), 1),
                    "steps": _steps(settings),
                }
                print(json.dumps(told["checkpoints"][-1]), flush=True)
                if options.out:
                    options.out.write_text(json.dumps(told, indent=2) + "\n")
    return told


def _steps(settings: Settings) -> dict[str, float]:
    """Median seconds of each step of the hours after the first."""
    runs = Lake(settings.lake_uri).read(tables.RUNS, pl.col("run_id") > hour_id(0), pl.col("state") == "succeeded")
    steps = runs.select(pl.col("steps").explode().struct.unnest())
    return dict(steps.group_by("name").agg(pl.col("seconds").median().round(2)).sort("name").iter_rows())


def _crowded(settings: Settings) -> int:
    """How often a moved listing had more look-alikes than are asked whether it is on their lists."""
    runs = Lake(settings.lake_uri).read(tables.RUNS, pl.col("state") == "succeeded")
    counts = runs.select(pl.col("steps").explode().struct.field("counts").explode().struct.unnest())
    return int(counts.filter(pl.col("name") == "crowded_listings")["value"].sum())


if __name__ == "__main__":
    main()
