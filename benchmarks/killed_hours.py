"""Hours through Airflow's scheduler while processes are killed at random, held against the same hours in peace.

    python benchmarks/killed_hours.py                     # eight hours over 500 listings: six minutes on two cores
    python benchmarks/killed_hours.py --hours 48 --every 3 --seed 2

Somebody kills (SIGKILL, nothing is cleaned up) while a run is at work, `--every` seconds on average: four times in five
a task, the one that holds the most memory, as the kernel does where memory is out; else the embedded Milvus. Every
`--outage` hours the power fails amid the run: Airflow, its tasks and Milvus go at once, and Airflow is started anew. A
run that fails for all of its tries is left, as nobody sits there at night: the next hour takes its files. The last hour
runs in peace. Then listings, neighbour lists, pairs, clusters and index are compared with those of a home whose hours
ran one after the other in one process and were never touched; both have the default models, real pictures and no
judgements.

Prints JSON; `differences` counts rows that only one of the two homes has, or has otherwise.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import structlog
from catalogue_state import differences

from sosie import pipeline
from sosie.airflow.processes import ComponentDied
from sosie.airflow.stack import DAG_ID, Airflow, stack
from sosie.errors import TransientError
from sosie.index import server
from sosie.settings import Settings, load
from sosie.simulate import Marketplace, write

IMPATIENT = {
    "SOSIE_RETRY_SECONDS": "1",
    # How soon Airflow notices that a task's supervisor, or the scheduler before it, is gone: minutes by default.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
}
TASKS_SHARE = 0.8


class Killer(threading.Thread):
    """Kills while it is let loose; counts what."""

    def __init__(self, airflow: Airflow, settings: Settings, every: float, draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.airflow, self.settings, self.every, self.draw = airflow, settings, every, draw
        self.killed: Counter[str] = Counter()
        self.loose, self.over = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(self.draw.expovariate(1 / self.every)):
            if self.loose.is_set():
                kind = "task" if self.draw.random() < TASKS_SHARE else "milvus"
                victim = self._task() if kind == "task" else server.process(self.settings)
                if victim is not None and dies(victim):
                    self.killed[kind] += 1

    def _task(self) -> psutil.Process | None:
        """The process of a task that holds the most memory."""
        scheduler = psutil.Process(self.airflow.processes.running["scheduler"].pid)
        milvus = server.process(self.settings)
        held: list[tuple[int, psutil.Process]] = []
        for process in scheduler.children(recursive=True):
            try:
                # Children of the scheduler are its workers, whose children are tasks.
                if process.ppid() != scheduler.pid and process != milvus:
                    held.append((process.memory_info().rss, process))
            except psutil.NoSuchProcess:
                continue
        return max(held, key=lambda pair: pair[0])[1] if held else None


def dies(victim: psutil.Process) -> bool:
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def power_fails(airflow: Airflow, settings: Settings) -> None:
    """Nothing of Airflow, its tasks and Milvus lives on."""
    family = [psutil.Process(process.pid) for process in airflow.processes.running.values()]
    for leader in tuple(family):
        family += leader.children(recursive=True)
    milvus = server.process(settings)
    for process in [*family, *([milvus] if milvus else [])]:
        dies(process)


@contextmanager
def preyed_upon(settings: Settings, options: argparse.Namespace, draw: random.Random, killed: Counter[str]) -> Iterator[
    tuple[Airflow, Killer]
]:  # fmt: skip
    with stack(settings, environment=IMPATIENT) as airflow:
        killer = Killer(airflow, settings, options.every, draw)
        killer.start()
        try:
            yield airflow, killer
        finally:
            killer.over.set()
            killer.join()
            killed.update(killer.killed)


def live_through(settings: Settings, hours: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run the hours; how often what was killed, and how the runs ended."""
    draw, killed, ended = random.Random(options.seed), Counter[str](), {}
    waiting = list(hours)
    outages = set(hours[options.outage - 1 : -1 : options.outage]) if options.outage else set()
    while waiting:
        with preyed_upon(settings, options, draw, killed) as (airflow, killer):
            while waiting:
                hour, began = waiting[0], time.monotonic()
                run = airflow.trigger(DAG_ID, hour)
                if hour != hours[-1]:
                    killer.loose.set()
                if hour in outages:
                    outages.remove(hour)
                    time.sleep(draw.uniform(2, 15))
                    power_fails(airflow, settings)
                    killed["power"] += 1
                try:
                    outcome = airflow.wait(run, timeout=1_200)
                except (ComponentDied, TransientError):
                    break  # the power: this hour is triggered anew
                finally:
                    killer.loose.clear()
                ended[hour] = outcome.state
                told(f"{hour} {outcome.state} after {time.monotonic() - began:.0f} s; killed {dict(killer.killed)}")
                for task, tail in outcome.failures.items():
                    told(f"{task}: {tail}")
                waiting.pop(0)
    return {"killed": dict(killed), "ended": dict(Counter(ended.values())), "last": ended[hours[-1]]}


def told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    market = folder / "market"
    write(market, Marketplace(listings=options.listings, hours=options.hours, seed=options.seed))
    hours = sorted(path.name for path in (market / "landing").glob("*T*"))
    calm, hunted = (
        load(home=folder / name, landing=market / "landing", alerts={"console": False}) for name in ("calm", "hunted")
    )
    with server.serve(calm):
        for hour in hours:
            pipeline.run_all(pipeline.Run.of(hour, settings=calm))
    found = live_through(hunted, hours, options)
    asked = {name: value for name, value in vars(options).items() if name != "work"}
    return {"options": asked, **found, "differences": differences(hunted, calm)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=500, help="of the first hour")
    parser.add_argument("--hours", type=int, default=8)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two kills, on average")
    parser.add_argument("--outage", type=int, default=4, help="hours between two failures of the power; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for the stores, kept afterwards")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="sosie-killed-") as passing:
        print(json.dumps(measure(options.work or Path(passing), options), indent=2))


if __name__ == "__main__":
    main()
