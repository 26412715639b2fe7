"""The real thing: API server, scheduler and DAG processor as child processes, our DAG in them, and faults."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import polars as pl
import psutil
import pytest

from sosie import tables
from sosie.airflow import DAG_ID
from sosie.airflow.client import Outcome, RunFailed, Task
from sosie.airflow.processes import ComponentDied, Processes, end_leftovers
from sosie.airflow.stack import Airflow, _environment, _exported, _inherited, _reserved_port, stack
from sosie.errors import StoreBusy, TerminalError
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings, load

FAULTS = '''
"""Tasks that fail in each of the ways that ours can."""
import time
from datetime import UTC, datetime
from pathlib import Path
from airflow.sdk import dag, task
from sosie.airflow import bridge
from sosie.errors import BatchRejected, IndexUnavailable

TRIES = Path({tries!r})

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args=bridge.TASK_DEFAULTS,
     params=bridge.PARAMS, deadline=bridge.deadline(minutes=0.05), on_failure_callback=bridge.alert_run_failure)
def faults():
    @task
    def terminal():
        raise BatchRejected("The batch is no good. Send it again.")

    @task
    def transient():
        TRIES.write_text(TRIES.read_text() + "x" if TRIES.exists() else "x")
        if len(TRIES.read_text()) < 3:
            raise IndexUnavailable("Milvus is away. Start it.")

    @task
    def unexpected():
        raise ZeroDivisionError("nobody thought of this")

    @task(trigger_rule="all_done", retries=0)  # the last: the run's own callback is told of the last failure
    def killed():
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)

    [terminal(), unexpected(), transient()] >> killed()

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args=bridge.TASK_DEFAULTS,
     params=bridge.PARAMS, on_failure_callback=bridge.alert_run_failure)
def refused():
    @task
    def terminal():
        raise BatchRejected("The batch is no good. Send it again.")

    terminal()

faults()
refused()
'''


def family() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def at_work(process: psutil.Process) -> bool:
    """Not ended, nor ended and waiting for whoever adopted it to take note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Running:
    airflow: Airflow
    settings: Settings

    def run(self, dag_id: str, hour: str, **conf: str) -> Outcome:
        return self.airflow.wait(self.airflow.trigger(dag_id, hour, conf), timeout=400)

    def alerts(self) -> dict[str, str]:
        rows = Lake(self.settings.lake_uri).read(tables.ALERTS)
        return dict(zip(rows["key"], rows["text"], strict=True))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = load(home=tmp_path_factory.mktemp("home"))
    dags = tmp_path_factory.mktemp("dags")
    (dags / f"{DAG_ID}.py").symlink_to(PROJECT / "dags" / f"{DAG_ID}.py")
    (dags / "faults.py").write_text(FAULTS.format(tries=str(dags / "tries")))
    before = family()
    with stack(settings, dags=dags, environment={"SOSIE_RETRY_SECONDS": "0.5"}) as airflow:
        during = family()
        yield Running(airflow, settings)
    assert len(during - before) >= 3
    assert family() - before == set()
    assert not [pid for pid in during - before if psutil.pid_exists(pid)]


pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def faults(running: Running) -> Outcome:
    until = time.monotonic() + 60
    while running.airflow.client.dag("faults") is None:
        assert time.monotonic() < until, running.airflow.client.import_errors()
        time.sleep(0.5)
    for dag_id in ("refused", "faults"):
        running.airflow.client.unpause(dag_id)
    running.run("refused", "2026-01-05T06")
    return running.run("faults", "2026-01-05T07")


def test_it_is_up_and_quiet(running: Running) -> None:
    """Healthy, the DAG unpaused with its one-slot pool, and no run that nobody asked for."""
    client = running.airflow.client
    assert client.health()["scheduler"] == "healthy"
    dag = client.dag(DAG_ID)
    assert dag is not None
    assert not dag["is_paused"]
    assert client.request("GET", "/pools/sosie_index")["slots"] == 1
    assert client.request("GET", f"/dags/{DAG_ID}/dagRuns")["total_entries"] == 0
    assert client.import_errors() == []


def test_it_listens_on_loopback_alone(running: Running) -> None:
    pids = family()
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.pid in pids and connection.status == psutil.CONN_LISTEN
    }
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_secrets_are_long_and_private(running: Running) -> None:
    for name in ("jwt_secret", "api_secret", "metrics_token"):
        secret = running.settings.home / "airflow" / name
        assert len(secret.read_bytes()) >= 64
        assert secret.stat().st_mode & 0o077 == 0


def test_metrics_are_for_who_has_its_token(running: Running) -> None:
    url = f"{running.airflow.url}/sosie/metrics"
    token = (running.settings.home / "airflow" / "metrics_token").read_text()
    assert httpx.get(url, trust_env=False).status_code == 401
    told = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert "sosie_review_queue" in told.text


def test_a_second_one_on_the_same_home_is_refused(running: Running) -> None:
    with pytest.raises(StoreBusy, match=r"already runs on .* \(process \d+, http://127"), stack(running.settings):
        pass


@pytest.mark.parametrize(
    ("task", "state", "tries"), [("terminal", "failed", 1), ("transient", "success", 3), ("unexpected", "failed", 2)]
)
def test_only_what_can_help_is_tried_again(faults: Outcome, task: str, state: str, tries: int) -> None:
    (found,) = (row for row in faults.tasks if row.task_id == task)
    assert (found.state, found.tries) == (state, tries)


def test_a_failed_run_tells_why(faults: Outcome) -> None:
    assert faults.state == "failed"
    assert faults.failures["terminal"].splitlines()[-1].endswith("The batch is no good. Send it again.")
    with pytest.raises(RunFailed, match="The batch is no good"):
        faults.expect_success()


def test_a_failed_run_alerts_once_for_each_fault(running: Running, faults: Outcome) -> None:
    def told() -> dict[str, list[str]]:
        texts: dict[str, list[str]] = {}
        for key, text in running.alerts().items():
            rule, _, *where, _ = key.split(":")
            texts.setdefault(where[0] if where else rule, []).append(text)
        return texts

    until = time.monotonic() + 60
    wanted = {"deadline_missed", "refused.terminal", "faults.terminal", "faults.unexpected", "faults.killed"}
    while not wanted <= told().keys() and time.monotonic() < until:
        time.sleep(1)
    found = told()
    assert {where: len(texts) for where, texts in found.items()} == dict.fromkeys(wanted, 1)
    assert "The batch is no good. Send it again." in found["faults.terminal"][0]
    assert f"{running.airflow.url}/dags/faults/runs/" in found["faults.terminal"][0]
    assert "ZeroDivisionError: nobody thought of this" in found["faults.unexpected"][0]
    assert "not finished 0.05 minutes after" in found["deadline_missed"][0]
    assert "ended from outside" in found["faults.killed"][0]


def test_reports_are_served_and_nothing_else(running: Running) -> None:
    page = running.settings.reports / "2026-01-05T01" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>One hour</h1>")
    (page.parent / "away").symlink_to(running.settings.home / "airflow")
    url = f"{running.airflow.url}/sosie"
    with httpx.Client(trust_env=False) as browser:
        assert browser.get(f"{url}/").headers["location"] == "/sosie/review"
        assert "2026-01-05T01" in browser.get(f"{url}/reports").text
        found = browser.get(f"{url}/2026-01-05T01/index.html")
        assert found.text == "<h1>One hour</h1>"
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert browser.get(f"{url}/2026-01-05T01").headers["location"] == "/sosie/2026-01-05T01/index.html"
        for path in ("nothing", "2026-01-05T01/away/jwt_secret", "..%2fairflow%2fjwt_secret", "/etc/passwd", "%00"):
            assert browser.get(f"{url}/{path}").status_code == 404, path
    page.unlink()


def test_the_page_asks_for_a_login_where_there_are_accounts(running: Running) -> None:
    """The same app behind Airflow's own auth manager with accounts: 401 without a token."""
    code = """
import httpx, asyncio
from airflow.api_fastapi.app import create_app
app = create_app("core")
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sosie") as browser:
        return [(await browser.get(path)).status_code for path in ("/sosie/", "/sosie/x/index.html", "/sosie/of/d/r")]
print(asyncio.run(ask()))
"""
    home = running.settings.home / "airflow"
    environment = _inherited() | _environment(home, 8080, PROJECT / "dags") | _exported(running.settings)
    environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "False"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert told.stdout.splitlines()[-1:] == ["[401, 401, 401]"], told.stderr[-2000:]


def test_hours_through_the_real_scheduler(running: Running, tmp_path: Path) -> None:
    """Two simulated hours, the second one again (which changes no table), and an hour in which nothing landed."""
    from sosie.simulate import Marketplace, write

    write(tmp_path, Marketplace(listings=60, hours=2, seed=5))
    landing = tmp_path / "landing"
    lake, progress = Lake(running.settings.lake_uri), list[tuple[Task, ...]]()

    def run(hour: str) -> Outcome:
        started = running.airflow.trigger(DAG_ID, hour, {"landing": str(landing)})
        return running.airflow.wait(started, progress.append, timeout=600).expect_success()

    hours = sorted(folder.name for folder in landing.glob("*T*"))
    for hour in hours:
        outcome = run(hour)
        assert {task.task_id for task in outcome.tasks} >= {"validate", "embed", "alert"}
        assert (running.settings.reports / hour / "index.html").is_file()
    assert len(progress) > 5
    assert lake.read(tables.LISTINGS, ~pl.col("is_deleted")).height > 30

    def versions() -> dict[str, int]:
        return {table.name: lake.version(table) for table in tables.ALL}

    before = versions()
    run(hours[-1])
    assert versions() == before

    outcome = run("2026-01-09T00")
    assert {task.task_id: task.state for task in outcome.tasks} == {
        **dict.fromkeys(("validate", "detect_changes", "upsert_vectors", "match", "cluster"), "success"),
        **dict.fromkeys(("publish_features", "follow", "report", "alert"), "success"),
        "embed": "skipped",
    }
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        page = browser.get(f"{running.airflow.url}/sosie/of/{DAG_ID}/{outcome.run.dag_run_id}")
        assert "2026-01-09T00" in page.text


# --- without Airflow ------------------------------------------------------------------------------------------------


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"


def sleeper(seconds: int = 300, *, ignoring: bool = False) -> list[str]:
    """A process, `ignoring` SIGTERM or not, with a child that does, in a session of its own."""
    code = f"""
import signal, subprocess, sys, time
if {ignoring}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True)
print("ready", flush=True)
time.sleep({seconds})
print("slept", flush=True)
"""
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("ignoring", [False, True])
def test_processes_end_with_all_below_them(tmp_path: Path, ignoring: bool) -> None:
    with Processes(tmp_path, _inherited()) as processes:
        processes.start("sleeper", sleeper(ignoring=ignoring))
        while b"ready" not in processes.log("sleeper").read_bytes():
            time.sleep(0.05)
        # Its own tree alone: the Airflow of the tests above is at work and has new children at any moment.
        leader = psutil.Process(processes.running["sleeper"].pid)
        members = [leader, *leader.children(recursive=True)]
        assert len(members) == 2
        processes.stop(grace=0.5)
        assert b"slept" not in processes.log("sleeper").read_bytes()  # it was ended, not waited for
    _, left = psutil.wait_procs(members, timeout=10)
    assert not any(at_work(member) for member in left)


def test_a_dead_component_is_named_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path, _inherited()) as processes:
        processes.start("scheduler", [sys.executable, "-c", "print('no disk left'); raise SystemExit(3)"])
        processes.running["scheduler"].wait(20)
        with pytest.raises(ComponentDied, match=r"(?s)scheduler ended \(3\).*no disk left"):
            processes.check()
        with pytest.raises(ComponentDied, match=r"(?s)`db` failed \(4\)"):
            processes.run("db", [sys.executable, "-c", "raise SystemExit(4)"], timeout=20)
        with pytest.raises(ComponentDied, match="no end after"):
            processes.run("db", sleeper(), timeout=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="relies on prctl")
def test_a_supervisor_killed_outright_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from sosie.airflow.processes import Processes
processes = Processes(Path({str(tmp_path)!r}), dict(os.environ))
processes.start("sleeper", {[sys.executable, "-c", "import time; time.sleep(300)"]!r})
processes.start("stubborn", {[sys.executable, "-c", STUBBORN]!r})
processes.remember(Path({str(tmp_path / "processes.json")!r}))
time.sleep(1)
print(*(process.pid for process in processes.running.values()), flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        sleeping, stubborn = map(int, supervisor.stdout.readline().split())
        supervisor.send_signal(signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in (sleeping,) if psutil.pid_exists(pid)], timeout=10)
    assert not psutil.pid_exists(sleeping) or psutil.Process(sleeping).status() == psutil.STATUS_ZOMBIE
    assert end_leftovers(tmp_path / "processes.json") >= 1
    assert not psutil.pid_exists(stubborn) or psutil.Process(stubborn).status() == psutil.STATUS_ZOMBIE
    assert end_leftovers(tmp_path / "processes.json") == 0


def test_a_taken_port_is_refused_by_name(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(TerminalError, match=f"Port {port} can't be had"), stack(load(home=tmp_path), port=port):
            pass


def test_two_that_start_at_once_take_different_ports() -> None:
    with _reserved_port(None) as first, _reserved_port(None) as second:
        assert first != second
        with socket.create_server(("127.0.0.1", first)):  # as the API server does: with SO_REUSEADDR
            pass


def test_children_see_the_settings_that_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_MILVUS_URI", "http://a-real-one:19530")
    monkeypatch.setenv("SOSIE_ALERTS__URLS", '["json://localhost"]')
    given = load(home=tmp_path, milvus_uri=None)
    code = "from sosie.settings import settings; print(settings().model_dump_json())"
    told = subprocess.run(
        [sys.executable, "-c", code], env=_inherited() | _exported(given), capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == given.model_dump_json()
