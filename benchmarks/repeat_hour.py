"""An hour in which nothing changed: no model call, and next to no time.

    python benchmarks/repeat_hour.py [--size small|standard|large] [--json FILE]

A simulated marketplace is loaded in one hour, and the next hour brings the very same rows. Both run in this process
after an hour of another, tiny marketplace, and the index's server is up, so that start-up (imports, the server) is in
neither. The peer is the first hour of the same run. Model calls are counted by the hours themselves, in `embed`'s
counts.
"""

import logging
import shutil
import tempfile
import time
from pathlib import Path

import structlog

from sosie import pipeline
from sosie.bench import Figure, Size, script
from sosie.index import server
from sosie.settings import load
from sosie.simulate import Marketplace, write

LISTINGS: dict[Size, int] = {"small": 60, "standard": 2_000, "large": 20_000}
HOURS = ("2026-01-05T00", "2026-01-05T01")
GOAL = 0.10


def measure(size: Size) -> list[Figure]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="sosie-repeat-") as folder:
        hours(Path(folder) / "tiny", 40)
        seconds, computed = hours(Path(folder) / "own", LISTINGS[size])
    note = f"{LISTINGS[size]:,} listings with pictures, the same rows again"
    first, repeat = seconds
    return [
        Figure("unchanged hour", repeat, "s", "the first hour", first, GOAL, at_most=True, note=note),
        Figure("model calls", computed[1], "contents", "the first hour", computed[0], 0.0, at_most=True, note=note),
    ]


def hours(folder: Path, listings: int) -> tuple[list[float], list[int]]:
    """Seconds of both hours, and how many contents each computed a vector for."""
    write(folder / "market", Marketplace(listings=listings, hours=1, seed=7))
    landing = folder / "market" / "landing"
    first = next(each for each in sorted(landing.iterdir()) if each.is_dir() and each.name.startswith("20"))
    settings = load(
        home=folder / "home", landing=folder / "landing", pictures_root=str(landing), milvus_timeout_seconds=300.0
    )
    seconds, computed = [], []
    with server.serve(settings):
        for hour in HOURS:
            shutil.copytree(first, folder / "landing" / hour)
            run = pipeline.Run.of(hour, settings=settings)
            began = time.perf_counter()
            pipeline.run_all(run)
            seconds.append(time.perf_counter() - began)
            counted = [each["counts"] for each in run.staging.records() if each["step"] == "embed"]
            computed.append(sum(each.get(f"{name}_computed", 0) for each in counted for name in ("text", "image")))
    return seconds, computed


if __name__ == "__main__":
    script(measure, __doc__)
