"""Airflow's REST API, as far as a run of ours needs it: trigger an hour, follow it, read why it failed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from sosie.errors import TerminalError, TransientError

FINISHED = frozenset({"success", "failed"})
_LOOK_SECONDS = 0.5
"""Between two looks at a run that is followed."""
_LOG_LINES = 20


class RunFailed(TerminalError):
    """A DAG run ended without success. `outcome` holds its tasks."""

    def __init__(self, message: str, outcome: "Outcome") -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True)
class DagRun:
    dag_id: str
    dag_run_id: str
    hour: str
    url: str


@dataclass(frozen=True)
class Task:
    """One task instance. `seconds` is the time of its last try so far, 0 before it starts."""

    task_id: str
    map_index: int
    state: str
    seconds: float
    tries: int

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `failures` maps each failed task's name to the tail of its log."""

    run: DagRun
    state: str
    seconds: float
    tasks: tuple[Task, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def expect_success(self) -> "Outcome":
        """Itself; raises `RunFailed` with the failed tasks' log tails otherwise."""
        if self.state == "success":
            return self
        told = "\n".join(f"{name}: …\n{tail}" for name, tail in self.failures.items()) or "no task says why"
        raise RunFailed(f"Run {self.run.dag_run_id} ended {self.state}; see {self.run.url}\n{told}", self)


class Client:
    """Talks to one API server where everybody is an admin. `url` has no trailing slash."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/api/v2", timeout=30.0, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded answer. Raises `TransientError` where nobody answers, `TerminalError` where the answer is no."""
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise TransientError(f"Airflow doesn't answer at {self.url} ({error}); is it running?") from error
        if answer.status_code >= 500:
            raise TransientError(f"Airflow answers {answer.status_code} to {method} {path}: {answer.text[:500]}")
        if answer.is_error:
            raise TerminalError(f"Airflow refuses {method} {path} ({answer.status_code}): {answer.text[:500]}")
        return answer.json() if answer.content else None

    def health(self) -> dict[str, str]:
        """State by component: metadatabase, scheduler, dag_processor, triggerer (`unknown` where there is none)."""
        answer = self.request("GET", "/monitor/health")
        return {name: (part or {}).get("status") or "unknown" for name, part in answer.items()}

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """The DAG as the server knows it; None before its file was parsed."""
        found = self.request("GET", "/dags", params={"dag_id_pattern": dag_id, "limit": 100})["dags"]
        return next((dag for dag in found if dag["dag_id"] == dag_id), None)

    def import_errors(self) -> list[str]:
        return [
            f"{error['filename']}: {error['stack_trace']}"
            for error in self.request("GET", "/importErrors")["import_errors"]
        ]

    def unpause(self, dag_id: str) -> None:
        self.request("PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": False})

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Make the pool, or give it its slots back."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        held = {pool["name"]: pool for pool in self.request("GET", "/pools")["pools"]}
        if name not in held:
            self.request("POST", "/pools", json=body)
        elif held[name]["slots"] != slots:
            self.request("PATCH", f"/pools/{name}", json=body)

    def trigger(self, dag_id: str, hour: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Ask for a run of one logical hour. An hour can be asked for again; each time is a run of its own."""
        # Without a logical date: Airflow allows one run a date, and an hour may have to run again.
        asked = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        body = {
            "dag_run_id": f"manual__{hour}__{asked}",
            "logical_date": None,
            "conf": {"hour": hour, **(conf or {})},
        }
        run = self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return DagRun(dag_id, run, hour, f"{self.url}/dags/{dag_id}/runs/{quote(run)}")

    def tasks(self, run: DagRun) -> tuple[Task, ...]:
        """Every task instance of the run, in the order in which they started."""
        rows = self.request("GET", f"{_path(run)}/taskInstances", params={"limit": 1000})["task_instances"]
        rows.sort(key=lambda row: (row["start_date"] is None, row["start_date"] or "", row["map_index"]))
        return tuple(
            Task(row["task_id"], row["map_index"], row["state"] or "none", row["duration"] or 0.0, row["try_number"])
            for row in rows
        )

    def log_tail(self, run: DagRun, task: Task) -> str:
        """The last lines of the log of the task's last try."""
        answer = self.request(
            "GET",
            f"{_path(run)}/taskInstances/{task.task_id}/logs/{task.tries}",
            params={"map_index": task.map_index, "full_content": True},
            headers={"Accept": "application/json"},
        )
        own = (entry for entry in answer["content"] if not isinstance(entry, Mapping) or entry.get("timestamp"))
        told = [line for entry in own if "::" not in (line := _line(entry))[:12]]  # group markers
        return "\n".join(told[-_LOG_LINES:])

    def wait(
        self,
        run: DagRun,
        on_progress: Callable[[tuple[Task, ...]], None] | None = None,
        *,
        timeout: float = 3_600.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        """Follow a run to its end. `on_progress` is told the tasks when a state changed; `meanwhile` runs at each look.

        Raises `TerminalError` after `timeout` seconds.
        """
        began = time.monotonic()
        told: tuple[tuple[str, str, int], ...] = ()
        misses = 0
        while True:
            if meanwhile:
                meanwhile()
            try:
                state = self.request("GET", _path(run))["state"]
                tasks = self.tasks(run)
                misses = 0
            except TransientError:
                misses += 1  # a busy server misses a beat; a dead one is noticed by `meanwhile` or after ten
                if misses >= 10:
                    raise
                time.sleep(_LOOK_SECONDS)
                continue
            now = tuple((task.name, task.state, task.tries) for task in tasks)
            if on_progress and now != told:
                told = now
                on_progress(tasks)
            if state in FINISHED:
                failures = {task.name: self.log_tail(run, task) for task in tasks if task.state == "failed"}
                return Outcome(run, state, time.monotonic() - began, tasks, failures)
            if time.monotonic() - began > timeout:
                busy = ", ".join(f"{task.name} {task.state}" for task in tasks if task.state not in ("success", "none"))
                raise TerminalError(
                    f"Run {run.dag_run_id} is still {state} after {timeout:.0f} s "
                    f"({busy or 'no task started'}); see {run.url}"
                )
            time.sleep(_LOOK_SECONDS)


def _path(run: DagRun) -> str:
    return f"/dags/{run.dag_id}/dagRuns/{quote(run.dag_run_id)}"


def _line(entry: Any) -> str:
    """A log line as text: the event, and the error's own words where it carries one."""
    if not isinstance(entry, Mapping):
        return str(entry)
    errors = "; ".join(
        f"{error.get('exc_type')}: {error.get('exc_value')}" for error in entry.get("error_detail") or []
    )
    extra = entry.get("reason") or errors
    level = str(entry.get("level") or "").upper()
    return " ".join(part for part in (level, str(entry.get("event", "")), str(extra or "")) if part)
