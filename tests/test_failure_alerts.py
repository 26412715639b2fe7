"""What Airflow's callbacks tell of a run that failed, from the bridge to a receiver, by the real outbox."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from receivers import Webhook, webhook

from sosie import settings as config
from sosie.errors import BatchRejected, IndexUnavailable
from sosie.lake import Lake
from sosie.tables import ALERTS

HOUR = "2026-01-05T01"
RUN = {
    "dag_id": "dedup_hourly",
    "dag_run_id": "scheduled__1",
    "run_type": "scheduled",
    "logical_date": datetime(2026, 1, 5, 1, tzinfo=UTC),
}


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
