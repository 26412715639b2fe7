"""Airflow on the embedded defaults, as child processes of this one: SQLite, LocalExecutor, loopback, no accounts.

    with stack(settings) as airflow:
        outcome = airflow.wait(airflow.trigger("dedup_hourly", "2026-11-20T09"))

Every process it starts ends with it. `python -m sosie.airflow.stack` serves until Ctrl-C. For one machine and one
person: a service runs Airflow's own deployment, with PostgreSQL and accounts, over the same `dags/` and `plugins/`.
"""

import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from sosie.airflow import DAG_ID as DAG_ID
from sosie.airflow import INDEX_POOL
from sosie.airflow.client import Client, DagRun, Outcome, Task
from sosie.airflow.processes import ComponentDied, Processes, end_leftovers, log_tail
from sosie.errors import StoreBusy, TerminalError, TransientError
from sosie.index import server as milvus_server
from sosie.places import write_atomically
from sosie.settings import PROJECT, Settings, settings

PORT = 8080


@dataclass(frozen=True)
class Airflow:
    """A running stack."""

    url: str
    client: Client
    processes: Processes
    seconds_to_start: float

    def trigger(self, dag_id: str, hour: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Start a run of one hour (UTC, `YYYY-MM-DDTHH`). `conf` may hold the DAG's params, such as `landing`."""
        return self.client.trigger(dag_id, hour, conf)

    def wait(
        self, run: DagRun, on_progress: Callable[[tuple[Task, ...]], None] | None = None, *, timeout: float = 3_600.0
    ) -> Outcome:
        """Follow a run to its end, told by `on_progress`. Raises `ComponentDied` where Airflow itself breaks."""
        return self.client.wait(run, on_progress, timeout=timeout, meanwhile=self.processes.check)


@contextmanager
def stack(
    settings: Settings,
    *,
    port: int | None = None,
    schedule: str = "none",
    dags: Path = PROJECT / "dags",
    environment: Mapping[str, str] | None = None,
    start_timeout: float = 240.0,
) -> Iterator[Airflow]:
    """Airflow under `settings.home/airflow`, up and healthy, with the DAG of hours parsed and unpaused.

    `schedule` is `none` (runs are triggered by hand) or a cron expression. `port`: None takes 8080, or a free one where
    that is taken. Raises `StoreBusy` where one already runs on this home, `ComponentDied` with a log's tail where a
    part fails.
    """
    began = time.monotonic()
    home = settings.home / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home) as note, _reserved_port(port) as listening:
        url = f"http://127.0.0.1:{listening}"
        end_leftovers(home / "processes.json")
        write_atomically(note, json.dumps({"pid": os.getpid(), "url": url}).encode())
        token = settings.metrics.token or _secret(_token_file(settings))
        served = settings.model_copy(update={"metrics": settings.metrics.model_copy(update={"token": token})})
        variables = _environment(home, listening, dags) | _exported(served) | {"SOSIE_SCHEDULE": schedule}
        # Who has hours run by themselves has the stores tidied at night too.
        variables["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = str(schedule == "none")
        with Processes(home / "component-logs", {**_inherited(), **variables, **(environment or {})}) as processes:
            _migrate(home, processes)
            for name, arguments in COMPONENTS.items():
                processes.start(name, [sys.executable, "-m", "airflow", *arguments])
            processes.remember(home / "processes.json")
            # Held for all tasks, so that none has to start it; it comes up while Airflow does.
            with milvus_server.serve(settings), closing(Client(url)) as client:
                _await_health(client, processes, until=began + start_timeout)
                client.ensure_pool(INDEX_POOL, 1, "One writer at a time for the nearest-neighbour index")
                client.unpause(DAG_ID)
                yield Airflow(url, client, processes, time.monotonic() - began)


@contextmanager
def _alone(home: Path) -> Iterator[Path]:
    """Keep others from this home meanwhile. Yields the note that tells them who has it. Raises `StoreBusy`."""
    note, lock = home / "stack.json", FileLock(home / "stack.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        held = json.loads(note.read_text()) if note.exists() else {}
        raise StoreBusy(
            f"An Airflow already runs on {home} (process {held.get('pid', '?')}, {held.get('url', 'still starting')}). "
            "Stop that one, or give this one another folder with SOSIE_HOME."
        ) from None
    try:
        yield note
    finally:
        note.unlink(missing_ok=True)
        lock.release()


COMPONENTS = {
    "api-server": ("api-server",),
    # Logs are on this disk; the server for them would listen on every interface.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
"""No triggerer: no task defers, and the deadline's callback runs in the executor."""


def _environment(home: Path, port: int, dags: Path) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    loopback = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    options = {
        "CORE__DAGS_FOLDER": dags,
        "CORE__PLUGINS_FOLDER": PROJECT / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 2,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__DAGBAG_IMPORT_TIMEOUT": 120,
        "CORE__MP_START_METHOD": "fork",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "DATABASE__CHECK_MIGRATIONS": False,  # done once, before the components start
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": _secret(home / "api_secret"),
        "API_AUTH__JWT_SECRET": _secret(home / "jwt_secret"),
        "LOGGING__BASE_LOG_FOLDER": home / "logs",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": 120,
        "DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": 120,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 120,  # parsing again takes a core from the run
        "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 180,
        "WORKERS__EXECUTION_API_TIMEOUT": 60,
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,  # also how long a finished task may keep its worker
    }
    return {
        "AIRFLOW_HOME": str(home),
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "PYTHONUNBUFFERED": "1",
        **{f"AIRFLOW__{name}": str(value) for name, value in options.items()},
    }


def _inherited() -> dict[str, str]:
    """Our environment without the settings in it: the stack runs on the settings it was given."""
    ours = tuple(f"SOSIE_{name.upper()}" for name in Settings.model_fields)
    return {key: value for key, value in os.environ.items() if key.partition("__")[0].upper() not in ours}


def _exported(settings: Settings) -> dict[str, str]:
    """The settings as the variables that another process reads them from. `null` hides what `params.yaml` says.

    Models that nobody pinned are left to each process, so that a promotion reaches the tasks that start after it.
    """
    derived = {"models_pinned"} if settings.models_pinned else {"models_pinned", "models"}
    return {
        f"SOSIE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json", exclude=derived).items()
    }


def _token_file(settings: Settings) -> Path:
    """What `/sosie/metrics` asks for where no `metrics.token` is set."""
    return settings.home / "airflow" / "metrics_token"


def _secret(path: Path) -> str:
    """96 random characters, made once and readable by this user alone."""
    if not path.exists():
        write_atomically(path, secrets.token_urlsafe(72).encode(), mode=0o600)
    return path.read_text()


@contextmanager
def _reserved_port(wanted: int | None) -> Iterator[int]:
    """A free port of 127.0.0.1, kept from other programs until the API server listens on it; 8080 by preference."""
    with socket.socket() as held:
        try:
            held.bind(("127.0.0.1", PORT if wanted is None else wanted))
        except OSError as error:
            if wanted is not None:
                raise TerminalError(
                    f"Port {wanted} can't be had on 127.0.0.1 ({error.strerror}); give another, or none at all."
                ) from None
            held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        if sys.platform == "linux":
            # Linux lets a listener that asks for SO_REUSEADDR, as the API server does, share with us; nobody else may.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            held.close()
        yield port


def _migrate(home: Path, processes: Processes) -> None:
    """Bring the metadata database to this Airflow's schema; skipped where that was done by this very version."""
    stamp, wanted = home / "migrated", version("apache-airflow-core")
    if (home / "airflow.db").exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    processes.run("db-migrate", [sys.executable, "-m", "airflow", "db", "migrate"], timeout=300)
    stamp.write_text(wanted)


def _await_health(client: Client, processes: Processes, *, until: float) -> None:
    waiting = "the API server"
    while time.monotonic() < until:
        processes.check()
        time.sleep(0.25)
        # Asked first: another program's Airflow may have taken the port, and would answer.
        if not processes.listens("api-server", urlsplit(client.url).port or 0):
            continue
        try:
            health = client.health()
            sick = [name for name in ("metadatabase", "scheduler", "dag_processor") if health.get(name) != "healthy"]
            if sick:
                waiting = " and ".join(sick)
                continue
            if client.dag(DAG_ID):
                return
            if errors := client.import_errors():
                raise ComponentDied("A DAG file can't be imported:\n" + "\n".join(errors))
            waiting = f"the DAG {DAG_ID} to be parsed"
        except TransientError:
            continue
    tails = "\n".join(f"--- {name}\n{log_tail(processes.log(name), 1_500)}" for name in processes.running)
    raise ComponentDied(f"Airflow did not get healthy in time: still waiting for {waiting}. Logs end with:\n{tails}")


def main() -> None:
    """Serve until Ctrl-C or SIGTERM. `SOSIE_SCHEDULE` decides whether hours run by themselves (default: by hand)."""

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell that starts us in the background has SIGINT ignored
        signal.signal(number, leave)
    say = sys.stdout.write
    say("Airflow is starting (about a minute the first time) …\n")
    try:
        with stack(settings(), schedule=os.environ.get("SOSIE_SCHEDULE", "none")) as airflow:
            say(f"Airflow is up after {airflow.seconds_to_start:.0f} s: {airflow.url}  (Ctrl-C stops it)\n")
            if settings().metrics.token is None:
                bearer = f"Authorization: Bearer $(cat {_token_file(settings())})"
                say(f'Metrics: curl -H "{bearer}" {airflow.url}/sosie/metrics\n')
            sys.stdout.flush()
            while True:
                airflow.processes.check()
                time.sleep(1.0)
    except KeyboardInterrupt:
        say("Airflow has stopped.\n")


if __name__ == "__main__":
    try:
        main()
    except (TerminalError, TransientError) as error:
        sys.exit(str(error))
