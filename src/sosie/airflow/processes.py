"""Child processes that end with us: each in its own group, with its own log file, stopped on every way out."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from sosie.errors import TerminalError
from sosie.places import write_atomically

TAIL = 4_000  # characters of a log that an error message shows


class ComponentDied(TerminalError):
    """A process that has to run has ended."""


def log_tail(path: Path, characters: int = TAIL) -> str:
    """The end of a log file; empty where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - characters))
            return stream.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _end_with_parent() -> None:
    """Linux only, in the child: get SIGTERM when the process that started us is killed without a chance to stop us."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def remember(path: Path, *pids: int) -> None:
    """Write down processes, for `end_leftovers` after a crash of this one."""
    born = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            born[pid] = psutil.Process(pid).create_time()
    write_atomically(path, json.dumps(born).encode())


def end_leftovers(path: Path) -> int:
    """End what a supervisor that crashed left running, with all below it. Returns how many there were."""
    if not path.exists():
        return 0
    family = []
    for pid, born in json.loads(path.read_text()).items():
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(int(pid))
            if abs(leader.create_time() - born) < 1.0:  # not another process that was given the same number
                family += [leader, *leader.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=5.0)
    path.unlink()
    return len(family)


@dataclass
class Processes:
    """Named processes, a log each under `logs`. A context manager: neither they nor their children outlive it."""

    logs: Path
    environment: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def start(self, name: str, command: Sequence[str]) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle; and the group can be ended as one
                preexec_fn=_end_with_parent,
            )

    def run(self, name: str, command: Sequence[str], *, timeout: float) -> None:
        """Start and wait for the end. Raises `ComponentDied` with the log's tail where it fails or takes too long."""
        self.start(name, command)
        process = self.running[name]
        try:
            code: int | str = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"no end after {timeout:.0f} s"
            process.kill()
            process.wait()
        del self.running[name]
        if code != 0:
            raise ComponentDied(
                f"`{name}` failed ({code}); its log {self.log(name)} ends with:\n{log_tail(self.log(name))}"
            )

    def listens(self, name: str, port: int) -> bool:
        """Whether that very process, or one below it, listens on the port."""
        try:
            leader = psutil.Process(self.running[name].pid)
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for member in (leader, *leader.children(recursive=True))
                for connection in member.net_connections("tcp")
            )
        except psutil.NoSuchProcess:
            return False

    def check(self) -> None:
        """Raises `ComponentDied` where a process has ended."""
        for name, process in self.running.items():
            if (code := process.poll()) is not None:
                raise ComponentDied(
                    f"Airflow's {name} ended ({code}); its log {self.log(name)} ends with:\n{log_tail(self.log(name))}"
                )

    def remember(self, path: Path) -> None:
        """Write down what runs, for `end_leftovers` after a crash of this process."""
        remember(path, *(process.pid for process in self.running.values()))

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM to each process, `grace` seconds for all, then SIGKILL for what is left of their groups and trees."""
        family: dict[int, psutil.Process] = {}
        for process in self.running.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                leader = psutil.Process(process.pid)
                family |= {member.pid: member for member in [leader, *leader.children(recursive=True)]}
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        until = time.monotonic() + grace
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        # Airflow's supervisors put tasks into groups of their own.
        for member in family.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(list(family.values()), timeout=grace)
        for process in self.running.values():
            process.wait()
        self.running.clear()
