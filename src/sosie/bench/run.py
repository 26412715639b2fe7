"""Run benchmarks one after the other, each in a process of its own, and keep what they found."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sosie.bench.figures import Figure, Size
from sosie.errors import SettingsError, TerminalError
from sosie.settings import PROJECT

FOLDER = PROJECT / "benchmarks"
_PROTOCOL = re.compile(r"^def measure\(size: Size\)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """`figures` of a benchmark, and the command that measures them again."""

    name: str
    command: str
    seconds: float
    figures: list[Figure]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "command": self.command,
            "seconds": round(self.seconds, 1),
            "figures": [figure.as_dict() for figure in self.figures],
        }


def names(folder: Path = FOLDER) -> list[str]:
    """Benchmarks that can be run: files with a function `measure(size: Size)`."""
    return sorted(file.stem for file in folder.glob("*.py") if _PROTOCOL.search(file.read_text()))


def run(wanted: Sequence[str], size: Size, folder: Path = FOLDER) -> Iterator[Outcome]:
    """Each benchmark's outcome as soon as it is there; all of them where none is named.

    Memory, threads and caches of one don't touch the next. Raises `SettingsError` for a name that there isn't, and
    `TerminalError` where a benchmark fails; its own words are on stderr then.
    """
    known = names(folder)
    if not known:
        raise SettingsError(f"There are no benchmarks in {folder}. They come with the repository, not with the wheel.")
    if unknown := [name for name in wanted if name not in known]:
        raise SettingsError(f"Received {', '.join(unknown)}. Benchmarks are {', '.join(known)}.")
    return (_run(folder, name, size) for name in wanted or known)


def _run(folder: Path, name: str, size: Size) -> Outcome:
    began = datetime.now(UTC)
    with TemporaryDirectory(prefix="sosie-bench-") as scratch:
        file = Path(scratch) / "figures.json"
        program = [sys.executable, "-m", "sosie.bench", str(folder / f"{name}.py")]
        command = [*program, "--size", size, "--json", str(file)]
        ended = subprocess.run(command, cwd=PROJECT, stdout=subprocess.DEVNULL, check=False)
        if ended.returncode:
            again = f"python -m sosie.bench benchmarks/{name}.py --size {size}"
            raise TerminalError(
                f"Benchmark {name} ended with {ended.returncode}; what it said stands above. Run {again}."
            )
        figures = [Figure.from_dict(each) for each in json.loads(file.read_text())]
    return Outcome(name, f"sosie bench {name} --size {size}", (datetime.now(UTC) - began).total_seconds(), figures)


def record(outcomes: Sequence[Outcome], size: Size) -> dict[str, Any]:
    """What is kept of a run, JSON-able: figures, and on which machine they were measured."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": size,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_of_the_last_minute": round(os.getloadavg()[0], 1),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "benchmarks": [outcome.as_dict() for outcome in outcomes],
    }


def told(outcomes: Sequence[Outcome], size: Size) -> str:
    """The same in a sentence."""
    kept = record(outcomes, size)
    machine, commands = kept["machine"], ", ".join(f"`{each.command}`" for each in outcomes)
    return (
        f"Measured by {commands} at {kept['measured_at']}, on {machine['processor']} with {machine['cores']} cores, "
        f"{machine['load_of_the_last_minute']} processes running or waiting in the minute before."
    )


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE) if told.exists() else None
    return found[1] if found else platform.processor()
