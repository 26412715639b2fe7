"""A simulated week of high churn on the real stores: what grows, and what a query costs, day by day.

    python benchmarks/churn.py                            # 1,000 listings, 168 hours, 10 % of them an hour
    python benchmarks/churn.py --listings 20000 --hours 168

Each hour a share of the catalogue is removed, as many listings are new, and as many change their title; one in ten of
the changed has only a new price. Lake tables, vector index and online store are the real ones, written by the calls
that the hourly steps make; vectors are drawn at random, so that no time goes into models. At the end of each day the
parts of `sosie upkeep` run (`--no-upkeep` leaves them out, to see what they are for).

Printed for each day, before and after its upkeep: rows in the index over live listings, bytes on disk of lake, index
and online store per live listing, data files, memory of the Milvus server per live listing and over that of the first
day, and the median milliseconds of a single search and of a batch of a hundred. JSON with --json.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

from sosie import features
from sosie.artifacts import save
from sosie.index import VectorIndex, open_index
from sosie.index import server as milvus
from sosie.lake import Lake
from sosie.pipeline.run import HOUR, Run
from sosie.settings import Settings, load
from sosie.tables import CHANGES, DECISIONS, DIM, IMAGE_EMBEDDINGS, LISTINGS, RUNS, TEXT_EMBEDDINGS, VECTOR
from sosie.upkeep import begin, compact_tables, finish, forget_history
from sosie.upkeep.consistency import check_stores

START = datetime(2026, 1, 5, tzinfo=UTC)
HOURS_A_DAY = 24


def models(folder: Path) -> Path:
    """Cards of encoders that nobody calls: the benchmark draws its vectors."""
    for name, kind in (("text", "text-encoder"), ("image", "image-encoder"), ("decider", "decider")):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_text(name)
        save(folder / name, kind, ["weights"], usage={}, about={})
    return folder


def vectors(rng: np.random.Generator, rows: int) -> np.ndarray:
    drawn = rng.normal(size=(rows, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class Week:
    """A catalogue that changes from hour to hour, through the same store calls as the hourly steps."""

    def __init__(self, settings: Settings, listings: int, churn: float) -> None:
        self.settings, self.lake, self.churn = settings, Lake(settings.lake_uri), churn
        self.rng, self.next = np.random.default_rng(7), 0
        from sosie.pipeline.embed import version

        self.stamp = version(settings, "text")
        self.live: list[str] = []
        self.size = listings

    def hour(self, number: int, index: VectorIndex) -> None:
        at = START + timedelta(hours=number)
        moved = self.size if number == 0 else round(self.churn * self.size)
        gone = [] if number == 0 else list(self.rng.choice(self.live, moved, replace=False))
        stay = sorted(set(self.live) - set(gone))
        changed = [] if number == 0 else list(self.rng.choice(stay, moved, replace=False))
        new = [f"listing-{self.next + i}" for i in range(moved)]
        self.next += moved
        self.live = [*stay, *new]
        titled = [*new, *changed[: round(0.9 * len(changed))]]
        rows = self._listings([*new, *changed, *gone], set(titled), set(gone), number, at)
        run_id = at.strftime(HOUR)
        asked = rows.select(
            run_id=pl.lit(run_id), listing_id="listing_id",
            kind=pl.when("is_deleted").then(pl.lit("deleted")).otherwise(pl.lit("text")),
            text_hash="text_hash", image_hash="image_hash",
        )  # fmt: skip
        self.lake.upsert(CHANGES, asked, run_id=run_id)
        self.lake.upsert(LISTINGS, rows, run_id=run_id)
        drawn = vectors(self.rng, len(titled))
        embedded = pl.DataFrame({"listing_id": titled, "vector": pl.Series(drawn.tolist(), dtype=VECTOR)}).with_columns(
            content_hash=pl.Series([self._hash(one, number) for one in titled]),
            embedding_version=pl.lit(self.stamp),
            event_timestamp=pl.lit(at),
            created_timestamp=pl.lit(datetime.now(UTC)),
        )
        self.lake.append(TEXT_EMBEDDINGS, embedded, run_id=run_id)
        index.ensure("text", self.stamp)
        index.upsert("text", titled, drawn)
        index.delete("text", gone)
        decided = pl.DataFrame({"listing_id": [*titled, *gone]}).select(
            "listing_id", is_duplicate=pl.lit(False), cluster_id=pl.lit(None, pl.String),
            canonical_id=pl.lit(None, pl.String), score=pl.lit(None, pl.Float64), event_timestamp=pl.lit(at),
            created_timestamp=pl.lit(datetime.now(UTC)), run_id=pl.lit(run_id),
        )  # fmt: skip
        self.lake.append(DECISIONS, decided, run_id=run_id)
        features.publish(self.settings, embedded, IMAGE_EMBEDDINGS.schema.to_frame(), decided)
        done = dict.fromkeys(RUNS.columns) | {
            "run_id": run_id, "state": "succeeded", "files": [], "steps": [], "text_version": self.stamp,
            "finished_at": datetime.now(UTC),
        }  # fmt: skip
        self.lake.upsert(RUNS, pl.DataFrame([done], schema=RUNS.schema), run_id=run_id)

    def _hash(self, listing: str, number: int) -> str:
        return hashlib.sha256(f"{listing} {number}".encode()).hexdigest()

    def _listings(self, ids: list[str], titled: set[str], gone: set[str], number: int, at: datetime) -> pl.DataFrame:
        held = dict(self.lake.lookup(LISTINGS, "listing_id", ids, columns=["listing_id", "text_hash"]).iter_rows())
        rows = [
            dict.fromkeys(LISTINGS.columns)
            | {
                "listing_id": one, "title": f"title {number} of {one}", "updated_at": at, "is_deleted": one in gone,
                "price": float(number), "text_hash": self._hash(one, number) if one in titled else held.get(one),
                "content_hash": self._hash(one, number), "first_seen_run": "r", "last_changed_run": "r",
            }
            for one in ids
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=LISTINGS.schema)

    def measured(self, day: int, index: VectorIndex) -> dict[str, Any]:
        live, home = len(self.live), self.settings.home
        memory = psutil.Process(json.loads((milvus.folder(self.settings) / "server.json").read_text())["pid"])
        queries = vectors(self.rng, 100)
        ids = [f"query {i}" for i in range(100)]
        single = [timed(lambda i=i: index.search("text", ids[i : i + 1], queries[i : i + 1], 10)) for i in range(10)]
        return {
            "day": day,
            "live": live,
            "index_over_live": round(index.count("text") / live, 3),
            "lake_bytes": round(size(home / "lake") / live),
            "index_bytes": round(size(home / "milvus") / live),
            "online_bytes": round(size(home / "feast") / live),
            "lake_files": sum(1 for _ in (home / "lake").rglob("*.parquet")),
            "server_bytes": round(memory.memory_info().rss / live),
            "search_ms": round(statistics.median(single), 1),
            "search_100_ms": round(timed(lambda: index.search("text", ids, queries, 10)), 1),
        }


def timed(call: Any) -> float:
    clock = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - clock)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def tidy(settings: Settings) -> None:
    run: Run = begin(settings)
    for part in (check_stores, forget_history, compact_tables):
        part(run)
    finish(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=1_000)
    parser.add_argument("--hours", type=int, default=168)
    parser.add_argument("--churn", type=float, default=0.10)
    parser.add_argument("--upkeep", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="sosie-churn-") as folder:
        # A day of history, so that a week shows whether old days go.
        keep = {"retention_hours": 0, "history_days": 0.0, "records_days": 0.0, "staging_hours": 0.0}
        settings = load(home=Path(folder), models=models(Path(folder) / "models"), upkeep=keep)
        week, days, clock = Week(settings, options.listings, options.churn), [], time.perf_counter()
        with open_index(settings) as index:
            for number in range(options.hours):
                week.hour(number, index)
                if (number + 1) % HOURS_A_DAY == 0 or number + 1 == options.hours:
                    day = number // HOURS_A_DAY + 1
                    before = week.measured(day, index)
                    if options.upkeep:
                        tidy(settings)
                    days.append({"before": before, "after": week.measured(day, index)})
                    if not options.json:
                        show(days)
        if options.json:
            print(
                json.dumps({"options": vars(options), "seconds": time.perf_counter() - clock, "days": days}, indent=2)
            )
        else:
            print(f"{time.perf_counter() - clock:.0f} s")


def show(days: list[dict[str, Any]]) -> None:
    names = list(days[0]["before"])
    if len(days) == 1:
        print("          " + "  ".join(f"{name:>15}" for name in [*names, "server_ratio"]))
    first = days[0]["after"]["server_bytes"]
    for when in ("before", "after"):
        row = days[-1][when]
        values = [*row.values(), round(row["server_bytes"] / first, 2)]
        print(f"{when:10}" + "  ".join(f"{value:>15,}" for value in values), flush=True)


if __name__ == "__main__":
    main()
