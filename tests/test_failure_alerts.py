"""What Airflow's callbacks tell of a run that failed, from the bridge to a receiver, by the real outbox."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from homes import full_disk
from receivers import Webhook, webhook
from typer.testing import CliRunner

from sosie import settings as config
from sosie.alerts import Alert, deliver, tell
from sosie.alerts.channels import UnusableChannel
from sosie.cli import EXIT_TERMINAL, EXIT_TRANSIENT, app
from sosie.errors import BatchRejected, IndexUnavailable, StoreBusy, TerminalError
from sosie.lake import Lake
from sosie.tables import ALERTS

HOUR = "2026-01-05T01"
RUN = {
    "dag_id": "dedup_hourly",
    "dag_run_id": "scheduled__1",
    "run_type": "scheduled",
    "logical_date": datetime(2026, 1, 5, 1, tzinfo=UTC),
}
OTHER = Alert(f"run_failed:{HOUR}:x", "critical", "The run failed", "Milvus is away.")


def task_of(name: str, try_number: int = 1) -> SimpleNamespace:
    url = f"http://localhost/dags/dedup_hourly/runs/scheduled__1/tasks/{name}?try_number={try_number}"
    return SimpleNamespace(dag_id="dedup_hourly", task_id=name, map_index=-1, log_url=url)


@pytest.fixture
def bridge(airflow_home: Path) -> Any:
    from sosie.airflow import bridge

    return bridge


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """The one channel of an empty home."""
    with webhook() as hook:
        monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
        monkeypatch.setenv("SOSIE_ALERTS__CONSOLE", "false")
        monkeypatch.setenv("SOSIE_ALERTS__URLS", f'["{hook.url}"]')
        monkeypatch.setenv("SOSIE_ALERTS__PAUSE_SECONDS", "0")
        config.settings.cache_clear()
        yield hook
    config.settings.cache_clear()


def fails(bridge: Any, task: SimpleNamespace, error: Exception | None) -> None:
    """Both callbacks, as Airflow calls them; without an error the task's process was killed."""
    said = {} if error is None else {"exception": error}
    bridge.alert_task_failure({"dag_run": RUN, "ti": task, **said})
    bridge.alert_run_failure({"dag_run": RUN, "ti": task, "reason": "task_failure"})


def rules(tmp_path: Path) -> list[str]:
    return sorted(key.partition(":")[0] for key in Lake(str(tmp_path / "lake")).read(ALERTS)["key"])


@pytest.mark.parametrize(
    ("error", "rule", "says"),
    [
        (BatchRejected("feed.csv is empty. Send it again."), "batch_rejected", "feed.csv is empty"),
        (IndexUnavailable("Milvus is away. Start it."), "run_failed", "Milvus is away"),
        (None, "run_failed", "ended from outside"),
    ],
)
def test_a_failure_is_told_once_and_by_its_own_cause(
    error: Exception | None, rule: str, says: str, bridge: Any, hook: Webhook, tmp_path: Path
) -> None:
    fails(bridge, task_of("validate"), error)
    assert rules(tmp_path) == [rule]
    (told,) = hook.received
    assert says in told["message"]
    fails(bridge, task_of("validate", try_number=2), error)
    assert rules(tmp_path) == [rule, rule], "an hour that was cleared and failed again is told again"
    assert len(hook.received) == 2


def test_a_task_that_died_without_a_word_is_told_by_its_run(bridge: Any, hook: Webhook, tmp_path: Path) -> None:
    fails(bridge, task_of("validate"), BatchRejected("feed.csv is empty. Send it again."))
    bridge.alert_run_failure({"dag_run": RUN, "ti": task_of("match"), "reason": "task_failure"})
    assert rules(tmp_path) == ["batch_rejected", "run_failed"]
    assert "ended from outside" in hook.received[1]["message"]


def test_the_runs_callback_sends_what_the_tasks_could_not(bridge: Any, hook: Webhook, tmp_path: Path) -> None:
    hook.answers += [500] * 3
    fails(bridge, task_of("validate"), BatchRejected("feed.csv is empty. Send it again."))
    assert rules(tmp_path) == ["batch_rejected"]
    assert [body["title"] for body in hook.received] == [f"Batch refused · hour {HOUR}"]


@pytest.mark.parametrize(("run_type", "told"), [("scheduled", 1), ("manual", 1), ("backfill", 0)])
def test_a_late_run_is_told_unless_it_is_one_of_a_backfill(
    run_type: str, told: int, bridge: Any, hook: Webhook
) -> None:
    """The run as Airflow's scheduler hands it over."""
    from airflow.api_fastapi.core_api.datamodels.dag_run import DAGRunResponse
    from airflow.models import DagModel, DagRun

    run = DagRun(
        dag_id="dedup_hourly",
        run_id=f"{run_type}__1",
        run_type=run_type,
        logical_date=RUN["logical_date"],
        run_after=RUN["logical_date"],
        state="running",
    )
    run.dag_model = DagModel(dag_id="dedup_hourly")
    handed = DAGRunResponse.model_validate(run).model_dump(mode="json")
    bridge.alert_missed_deadline({"dag_run": handed}, minutes=50)
    assert len(hook.received) == told


def a_file_in_its_place(lake: Path) -> None:
    lake.write_text("no folder")


def a_table_that_is_damaged(lake: Path) -> None:
    deliver(Lake(str(lake)), [OTHER], settings=config.Alerts(), run_id=HOUR)
    for log in (lake / ALERTS.name / "_delta_log").glob("*.json"):
        log.write_text("{ no JSON")


def a_file_of_a_table_that_is_damaged(lake: Path) -> None:
    deliver(Lake(str(lake)), [OTHER], settings=config.Alerts(), run_id=HOUR)
    for file in (lake / ALERTS.name).glob("*.parquet"):
        file.write_bytes(b"x" * file.stat().st_size)


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (a_file_in_its_place, "can't be held"),
        (a_table_that_is_damaged, "Json error"),
        (a_file_of_a_table_that_is_damaged, "Corrupt footer"),
    ],
)
def test_a_failure_is_told_where_the_lake_is_the_fault(
    breaks: Callable[[Path], None], reason: str, bridge: Any, hook: Webhook, tmp_path: Path
) -> None:
    breaks(tmp_path / "lake")
    task, late = task_of("validate"), RUN | {"logical_date": "2026-01-05T01:00:00Z"}
    with pytest.raises(Exception, match=reason):
        bridge.alert_task_failure(
            {"dag_run": RUN, "ti": task, "exception": StoreBusy("No room in the lake. Make room.")}
        )
    with pytest.raises(Exception, match=reason):
        bridge.alert_run_failure({"dag_run": RUN, "ti": task, "reason": "task_failure"})
    with pytest.raises(Exception, match=reason):
        bridge.alert_missed_deadline({"dag_run": late}, minutes=50)
    by_task, by_run, by_clock = (body["message"] for body in hook.received)
    assert "No room in the lake" in by_task
    assert "Where this failure was told of before, the cause told there holds." in by_run
    assert "not finished 50 minutes after" in by_clock
    for said in (by_task, by_run, by_clock):
        assert "could not be recorded, so it may come twice" in said


def test_a_failure_is_told_where_the_disk_is_full(bridge: Any, hook: Webhook, tmp_path: Path) -> None:
    error = StoreBusy("Table listings can't be written. Make room.")
    with full_disk(500), pytest.raises(StoreBusy, match="Table alerts can't be written"):
        bridge.alert_task_failure({"dag_run": RUN, "ti": task_of("detect_changes"), "exception": error})
    (told,) = hook.received
    assert error.args[0] in told["message"]
    assert "it may come twice. StoreBusy: Table alerts can't be written" in told["message"]


def test_what_goes_straight_is_tried_a_few_times_and_a_bad_channel_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    with webhook(500, 500) as pager:
        to = config.Alerts(urls=("nosuch://t0ken/x",), pager_urls=(pager.url,), console=False, pause_seconds=0)
        with pytest.raises(TerminalError, match="can't be held"):
            tell(Lake(str(tmp_path / "lake")), OTHER, settings=to, run_id=HOUR)
    assert [body["title"] for body in pager.received] == [OTHER.title]


def test_an_unknown_url_sends_nothing_twice(tmp_path: Path) -> None:
    with webhook() as hook:
        to = config.Alerts(urls=("nosuch://t0ken/x", hook.url), console=False, tries_at_once=1)
        with pytest.raises(UnusableChannel, match=r"alerts\.urls"):
            tell(Lake(str(tmp_path / "lake")), OTHER, settings=to, run_id=HOUR)
    assert len(hook.received) == 1


def test_a_run_in_the_shell_tells_that_it_failed_where_the_lake_is_the_fault(hook: Webhook, tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    told = CliRunner().invoke(app, ["run", "--landing", str(tmp_path), "--hour", HOUR])
    assert told.exit_code in (EXIT_TERMINAL, EXIT_TRANSIENT), told.output
    (body,) = hook.received
    assert body["title"] == f"The run failed · hour {HOUR}"
    assert "could not be recorded, so it may come twice" in body["message"]
