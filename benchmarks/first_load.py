"""Wall time and peak memory of a first load: `sosie run` over a labelled dataset, in a process of its own.

    python benchmarks/first_load.py ../shared/data/shopee
    python benchmarks/first_load.py var/market      # a folder that `sosie simulate` wrote

Prints a table, or JSON with --json. The hour is then run again, which must change no table, and then the hour after it:
the marketplace's own second hour, or the same rows once more where there is none.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sosie.evaluate import datasets
from sosie.lake import Lake
from sosie.listings import KINDS
from sosie.tables import ALL, CLUSTERS, RUNS

HOUR, NEXT = "2026-01-05T00", "2026-01-05T01"


def landed(dataset: Path, home: Path) -> Path:
    """A landing folder for the dataset: its own where it is a simulated marketplace, else its rows as one file."""
    if (dataset / "landing").is_dir():
        return dataset / "landing"
    folder = home / "landing" / HOUR
    folder.mkdir(parents=True)
    datasets.load(dataset).listings.write_parquet(folder / "listings.parquet")
    return folder.parent


def run(landing: Path, home: Path, hour: str) -> tuple[float, float]:
    """Seconds of wall clock and MiB of peak memory of one `sosie run`; stops where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    clock = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).with_name("sosie"), "run", "--landing", landing, "--hour", hour],
        env={**os.environ, "SOSIE_HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return seconds, max(before, peak) / 1024


def counts(manifest: dict[str, Any], step: str, name: str) -> int:
    """A count of a step, 0 where the step had nothing to do."""
    return sum(
        count["value"]
        for one in manifest["steps"]
        if one["name"] == step
        for count in one["counts"]
        if count["name"] == name
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--home", type=Path, help="keep the stores here (default: a folder that is removed)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    home = (options.home or Path(tempfile.mkdtemp(prefix="sosie-first-load-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        landing = landed(options.dataset, home)
        seconds, peak = run(landing, home, HOUR)
        lake = Lake(str(home / "lake"))
        versions = {table.name: lake.version(table) for table in ALL}
        again, _ = run(landing, home, HOUR)
        moved = sorted(table.name for table in ALL if lake.version(table) != versions[table.name])
        if not (landing / NEXT).is_dir():
            shutil.copytree(landing / HOUR, landing / NEXT)
        after, _ = run(landing, home, NEXT)
        manifest, later = lake.read(RUNS).sort("run_id").iter_rows(named=True)
        steps = {step["name"]: round(step["seconds"], 1) for step in manifest["steps"]}
        found = {
            "dataset": options.dataset.name,
            "rows": sum(file["rows"] for file in manifest["files"]),
            "seconds": round(seconds, 1),
            "peak_mib": round(peak),
            "clustered": lake.read(CLUSTERS, columns=["listing_id"]).height,
            "seconds_again": round(again, 1),
            "again_over_first": round(again / seconds, 3),
            "tables_changed_by_running_again": moved,
            "steps": steps,
            "next_hour": {
                "rows": sum(file["rows"] for file in later["files"]),
                "changed": sum(counts(later, "detect_changes", kind) for kind in KINDS),
                "vectors_computed": sum(counts(later, "embed", f"{name}_computed") for name in ("text", "image")),
                "seconds": round(after, 1),
                "over_first": round(after / seconds, 3),
            },
        }
    finally:
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
