"""What a process of Sosie costs before it does anything: wall time, and whose imports it goes to.

    python benchmarks/startup.py [--tries 3] [--listings 60] [--json FILE]

Four processes, interleaved, medians of --tries: a bare interpreter (the peer of every ratio), `sosie --help`, the parse
of `dags/dedup_hourly.py`, and `sosie run` of an hour that is done, in which nothing changed. Seconds of imports are the
sums of each module's own time as `python -X importtime` tells them, by the package that they belong to, as shares of
the process's wall time under that flag. Prints JSON.
"""

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sosie.settings import PROJECT
from sosie.simulate import Marketplace, write

HOUR = "2026-01-05T00"
SOSIE = str(Path(sys.executable).with_name("sosie"))
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--listings", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write it here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home / "market", Marketplace(listings=options.listings, hours=1, with_pictures=False))
        environment = {
            **os.environ, "SOSIE_HOME": folder, "AIRFLOW_HOME": f"{folder}/airflow", "SOSIE_ALERTS__CONSOLE": "false",
        }  # fmt: skip
        commands = {
            "python": ["-c", "pass"],
            "sosie --help": [SOSIE, "--help"],
            "parse of dags/dedup_hourly.py": [str(PROJECT / "dags" / "dedup_hourly.py")],
            "sosie run, nothing changed": [SOSIE, "run", "--landing", f"{folder}/market/landing", "--hour", HOUR],
        }
        timed(commands["sosie run, nothing changed"], environment)  # the first time something changes
        seconds = collections.defaultdict(list)
        for _ in range(options.tries):
            for name, command in commands.items():
                seconds[name].append(timed(command, environment)[0])
        bare = statistics.median(seconds["python"])
        found = {
            name: {
                "seconds": round(statistics.median(seconds[name]), 2),
                "over_bare_python": round(statistics.median(seconds[name]) / bare, 1),
                **imports(command, environment),
            }
            for name, command in commands.items()
        }
    told = json.dumps(found, indent=2)
    print(told)
    if options.json:
        options.json.write_text(told + "\n")


def timed(command: list[str], environment: dict[str, str], *flags: str) -> tuple[float, str]:
    """Seconds of wall clock of a process, and what it wrote to stderr; stops where it fails."""
    started = time.perf_counter()
    told = subprocess.run(
        [sys.executable, *flags, *command], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if told.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{told.stderr[-2000:]}")
    return seconds, told.stderr


def imports(command: list[str], environment: dict[str, str]) -> dict[str, object]:
    """Share of the wall time that imports take, and the packages that take most of it."""
    seconds, told = timed(command, environment, "-X", "importtime")
    own: collections.Counter[str] = collections.Counter()
    for micros, module in _LINE.findall(told):
        own[module.split(".")[0]] += int(micros)
    shares = {name: round(micros / 1e6 / seconds, 3) for name, micros in own.most_common(8)}
    return {"imports_share": round(own.total() / 1e6 / seconds, 3), "largest_shares": shares}


if __name__ == "__main__":
    main()
