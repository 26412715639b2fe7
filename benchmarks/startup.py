"""What a process of Sosie costs before it does anything: wall time, and whose imports it goes to.

    python benchmarks/startup.py [--tries 3] [--listings 60] [--json FILE]

Four processes, interleaved, medians of --tries, in wall time and in CPU time, which other load on the machine does not
stretch: a bare interpreter (the peer of every ratio), `sosie --help`, the parse
of `dags/dedup_hourly.py`, and `sosie run` of an hour that is done, in which nothing changed. Seconds of imports are the
sums of each module's own time as `python -X importtime` tells them, by the package that they belong to, as shares of
the process's wall time under that flag. Prints JSON.
"""

import argparse
import collections
import json
import os
import re
import resource
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
        seconds: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
        for _ in range(options.tries):
            for name, command in commands.items():
                seconds[name].append(timed(command, environment)[:2])
        middle = {
            name: [statistics.median(each) for each in zip(*tries, strict=True)] for name, tries in seconds.items()
        }
        found = {
            name: {
                "seconds": round(middle[name][0], 2),
                "cpu_seconds": round(middle[name][1], 2),
                "cpu_over_bare_python": round(middle[name][1] / middle["python"][1], 1),
                **imports(command, environment),
            }
            for name, command in commands.items()
        }
    told = json.dumps(found, indent=2)
    print(told)
    if options.json:
        options.json.write_text(told + "\n")


def timed(command: list[str], environment: dict[str, str], *flags: str) -> tuple[float, float, str]:
    """Seconds of a process by the wall and by its CPU time, and what it wrote to stderr; stops where it fails."""
    started, before = time.perf_counter(), cpu()
    told = subprocess.run(
        [sys.executable, *flags, *command], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if told.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{told.stderr[-2000:]}")
    return seconds, cpu() - before, told.stderr


def cpu() -> float:
    """CPU seconds of all processes that ended under this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def imports(command: list[str], environment: dict[str, str]) -> dict[str, object]:
    """Share of the wall time that imports take, and the packages that take most of it."""
    seconds, _, told = timed(command, environment, "-X", "importtime")
    own: collections.Counter[str] = collections.Counter()
    for micros, module in _LINE.findall(told):
        own[module.split(".")[0]] += int(micros)
    shares = {name: round(micros / 1e6 / seconds, 3) for name, micros in own.most_common(8)}
    return {"imports_share": round(own.total() / 1e6 / seconds, 3), "largest_shares": shares}


if __name__ == "__main__":
    main()
