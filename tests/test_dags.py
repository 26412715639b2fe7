"""Every DAG file parses in real Airflow, keeps the house rules, and imports nothing heavy."""

import os
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[1]
DAG_FILES = sorted((PROJECT / "dags").glob("*.py"))
HEAVY = (
    "apprise", "deltalake", "duckdb", "faiss", "feast", "great_expectations", "imagehash", "lightgbm", "numpy",
    "onnxruntime", "pandas", "PIL", "plotly", "polars", "pyarrow", "pymilvus", "rapidfuzz", "scipy", "sklearn", "timm",
    "tokenizers", "torch", "torchvision", "transformers",
)  # fmt: skip


@pytest.fixture(scope="module")
def dags(airflow_home: Path) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(PROJECT / "dags"))
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture(scope="module")
def hourly(dags: dict[str, Any]) -> Any:
    return dags["dedup_hourly"]


def test_every_dag_has_an_owner_a_runbook_and_a_failure_alert(dags: dict[str, Any]) -> None:
    assert len(dags) >= len(DAG_FILES) > 0
    for dag in dags.values():
        assert dag.doc_md, dag.dag_id
        assert dag.has_on_failure_callback, dag.dag_id
        assert not dag.catchup, dag.dag_id
        assert dag.max_active_runs == 1, dag.dag_id
        for task in dag.tasks:
            assert task.owner == "sosie", task.task_id
            assert task.on_failure_callback, task.task_id
            assert task.doc_md, task.task_id


def test_the_runbook_tells_of_every_task(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for task in dag.tasks:
            assert f"| `{task.task_id}` |" in dag.doc_md, task.task_id


def test_the_hourly_flow(hourly: Any) -> None:
    order = [
        "validate", "detect_changes", "embed", "upsert_vectors", "match", "cluster", "publish_features", "follow",
        "report", "alert",
    ]  # fmt: skip
    assert [task.task_id for task in hourly.topological_sort()] == order
    for before, after in pairwise(order):
        assert after in hourly.get_task(before).downstream_task_ids


def test_index_writes_take_the_one_slot(hourly: Any) -> None:
    pools = {task.task_id: task.pool for task in hourly.tasks if task.pool != "default_pool"}
    assert pools == {"upsert_vectors": "sosie_index", "match": "sosie_index", "follow": "sosie_index"}


def test_an_hour_without_anything_to_embed_goes_on(hourly: Any) -> None:
    rules = {task.task_id: task.trigger_rule.value for task in hourly.tasks}
    assert rules.pop("upsert_vectors") == "none_failed"
    assert set(rules.values()) == {"all_success"}


def test_retries_and_deadline(hourly: Any) -> None:
    from sosie.airflow.bridge import RetryTransient

    for task in hourly.tasks:
        assert task.retries == 3
        assert isinstance(task.retry_policy, RetryTransient)
        assert task.retry_exponential_backoff == 2.0
        assert task.execution_timeout
    (alert,) = hourly.deadline if isinstance(hourly.deadline, list) else [hourly.deadline]
    assert alert.interval == timedelta(minutes=50)
    assert alert.callback.path == "sosie.airflow.bridge.alert_missed_deadline"


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor", "KubernetesExecutor"])
def test_only_executors_that_run_callbacks_are_given_a_deadline(
    airflow_home: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    """Airflow's scheduler dies of a callback that its default executor can't run."""
    from airflow.executors.executor_loader import ExecutorLoader

    from sosie.airflow import bridge

    runs_callbacks = pkgutil.resolve_name(ExecutorLoader.executors[executor]).supports_callbacks
    for default in (executor, f"{executor},KubernetesExecutor", ExecutorLoader.executors[executor]):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", default)
        assert (bridge.deadline() is not None) == runs_callbacks


def test_assets_follow_the_tables(hourly: Any) -> None:
    outlets = {task.task_id: [asset.uri.rstrip("/") for asset in task.outlets] for task in hourly.tasks if task.outlets}
    assert outlets == {
        "detect_changes": ["sosie://listings"],
        "upsert_vectors": ["sosie://embeddings"],
        "match": ["sosie://pairs"],
        "cluster": ["sosie://clusters"],
        "publish_features": ["sosie://decisions"],
    }


def test_the_schedule_can_be_switched_off(airflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sosie.airflow import bridge

    assert bridge.schedule() is not None
    monkeypatch.setenv("SOSIE_SCHEDULE", "none")
    assert bridge.schedule() is None


@pytest.mark.parametrize(
    ("name", "told", "sentence"),
    [
        ("SOSIE_SCHEDULE", "hourly", "SOSIE_SCHEDULE is 'hourly', which is no cron expression"),
        ("SOSIE_SCHEDULE", "", "SOSIE_SCHEDULE is '', which is no cron expression"),
        ("SOSIE_UPKEEP_SCHEDULE", "61 3 * * *", "SOSIE_UPKEEP_SCHEDULE is '61 3 * * *', which is no cron expression"),
        ("SOSIE_TRAIN_SCHEDULE", "weekly", "SOSIE_TRAIN_SCHEDULE is 'weekly', which is no cron expression"),
        ("SOSIE_DEADLINE_MINUTES", "an hour", "SOSIE_DEADLINE_MINUTES is 'an hour', which is no number from 0"),
        ("SOSIE_DEADLINE_MINUTES", "inf", "SOSIE_DEADLINE_MINUTES is 'inf', which is no number from 0"),
    ],
)
def test_a_variable_that_can_not_be_used_is_told_in_a_sentence(
    airflow_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str, sentence: str
) -> None:
    from sosie.airflow import bridge, training, upkeeping
    from sosie.errors import SettingsError

    uses = {"SOSIE_DEADLINE_MINUTES": bridge.deadline, "SOSIE_SCHEDULE": bridge.schedule}
    uses |= {"SOSIE_TRAIN_SCHEDULE": training.schedule, "SOSIE_UPKEEP_SCHEDULE": upkeeping.schedule}
    for good in ("@daily", "30 3 * * *") if "SCHEDULE" in name else ("7.5", "0"):
        monkeypatch.setenv(name, good)
        assert uses[name]() is not None
    monkeypatch.setenv(name, told)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        uses[name]()


def test_an_import_error_ends_with_the_sentence(airflow_home: Path) -> None:
    code = "from sosie.airflow import bridge"
    variables = os.environ | {"SOSIE_RETRY_SECONDS": "soon"}
    told = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    sentence = "SOSIE_RETRY_SECONDS is 'soon', which is no number from 0 to 1,000,000,000: write one such as 30."
    assert told.stderr.splitlines()[-1] == f"sosie.errors.SettingsError: {sentence}"


@pytest.mark.parametrize(
    ("error", "try_number", "max_tries", "action"),
    [
        ("BatchRejected", 1, 3, "fail"),
        ("ModelError", 1, 3, "fail"),
        ("IndexUnavailable", 1, 3, "default"),
        ("StoreBusy", 3, 3, "default"),
        ("ZeroDivisionError", 1, 3, "retry"),
        ("ZeroDivisionError", 2, 3, "fail"),
        ("ZeroDivisionError", 3, 5, "retry"),  # cleared after two tries: Airflow then allows 2 + 3
        ("ZeroDivisionError", 4, 5, "fail"),
    ],
)
def test_who_is_tried_again(airflow_home: Path, error: str, try_number: int, max_tries: int, action: str) -> None:
    import builtins

    from sosie import errors
    from sosie.airflow.bridge import RetryTransient

    kind = getattr(errors, error, None) or getattr(builtins, error)
    decision = RetryTransient().evaluate(kind("The index\nis away."), try_number, max_tries)
    assert decision.action.value == action
    assert "The index is away." in str(decision.reason)


def test_a_store_that_polars_tells_of_is_tried_again(airflow_home: Path) -> None:
    """Outside of a step, which makes it one of our errors."""
    from sosie.airflow.bridge import RetryTransient

    away = OSError(
        "object-store error: Generic S3 error: Error performing GET http://x in 3 s: 503 Service Unavailable"
    )
    decision = RetryTransient().evaluate(away, 2, 3)
    assert decision.action.value == "default"
    assert "503 Service Unavailable" in str(decision.reason)


def interval(day: int, hour: int, until_day: int, until: int) -> dict[str, datetime]:
    start, end = (datetime(2026, 11, *each, tzinfo=UTC) for each in ((day, hour), (until_day, until)))
    return {"data_interval_start": start, "data_interval_end": end}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"conf": {"hour": "2026-11-20T09"}, "data_interval_start": datetime(2026, 1, 1, tzinfo=UTC)}, "2026-11-20T09"),
        ({"data_interval_start": datetime(2026, 11, 20, 9, tzinfo=UTC)}, "2026-11-20T09"),
        (interval(20, 9, 20, 10), "2026-11-20T09"),
        (interval(20, 0, 21, 0), "2026-11-20T23"),
        (interval(20, 9, 20, 9), "2026-11-20T09"),
        ({"logical_date": "2026-11-20T09:17:00Z"}, "2026-11-20T09"),
        ({"run_after": datetime(2026, 11, 20, 0, 25, tzinfo=UTC)}, "2026-11-19T23"),
    ],
)
def test_a_run_is_named_by_its_hour(airflow_home: Path, run: dict[str, Any], expected: str) -> None:
    from sosie.airflow.bridge import run_id

    assert run_id({"dag_run": run}) == expected  # plain values, as the executor hands them to a deadline's callback
    attributes = dict.fromkeys(("conf", "data_interval_start", "data_interval_end", "logical_date", "run_after")) | run
    assert run_id({"dag_run": SimpleNamespace(**attributes)}) == expected


@pytest.mark.parametrize("file", [*DAG_FILES, PROJECT / "plugins" / "sosie_plugin.py"], ids=lambda file: file.stem)
def test_a_parse_imports_nothing_heavy(airflow_home: Path, file: Path) -> None:
    """What the file brings in beyond Airflow itself: our bridge, and no library that costs seconds."""
    code = f"""
import sys, importlib.util
import airflow.sdk, airflow.plugins_manager
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("parsed", {str(file)!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(*sorted(set(sys.modules) - before))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    brought = set(told.stdout.splitlines()[-1].split())
    assert {name for name in brought if name.partition(".")[0] in HEAVY} == set()
    ours = {name for name in brought if name.partition(".")[0] == "sosie"}
    helpers = {f"sosie.airflow.{name}" for name in ("bridge", "environment", "rebuilding", "training", "upkeeping")}
    assert ours <= {"sosie", "sosie.airflow", "sosie.errors", "sosie.hours"} | helpers


# --- training -------------------------------------------------------------------------------------------------------


PIPELINE = """
vars:
  - profiles: {small: {}}
stages:
  evaluate:
    foreach: ${profiles}
    do:
      cmd: python trained.py
      deps: [trained.py]
      outs: ["var/training/${key}/models", "var/training/${key}/data/test"]
      metrics: ["var/training/${key}/evaluation/metrics.json"]
"""
TRAINED = """
import json, shutil
from pathlib import Path
from sosie.artifacts import save
from sosie.settings import PROJECT
from sosie.simulate import Marketplace, write

work = Path("var/training/small")
shutil.copytree(PROJECT / "models", work / "models")
card = json.loads((work / "models/decider/model.json").read_text())
save(work / "models/decider", card["kind"], list(card["files"]), card["usage"] | {"match_at": 0.5}, card["about"])
write(work / "data/test/market", Marketplace(listings=40, hours=1, seed=3, with_pictures=False))
(work / "evaluation").mkdir()
scores = {"market": {"row_f1": 1.01, "row_f1_standard_error": 0.01}}  # above whatever the live models reach
(work / "evaluation/metrics.json").write_text(json.dumps({"sosie": scores}))
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository of its own with a pipeline of one stage, and a home of its own."""
    from sosie.settings import settings

    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "trained.py").write_text(TRAINED)
    (folder / ".gitignore").write_text("var/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    monkeypatch.setenv("SOSIE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SOSIE_REPOSITORY", str(folder))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def tasks(dags: dict[str, Any]) -> dict[str, Any]:
    """What each task of `dedup_train` calls."""
    return {task.task_id: task.python_callable for task in dags["dedup_train"].tasks}


def test_the_training_flow(dags: dict[str, Any]) -> None:
    dag = dags["dedup_train"]
    order = ["judgements", "reproduce", "register", "gate", "promote"]
    assert [task.task_id for task in dag.topological_sort()] == order
    for before, after in pairwise(order):
        assert after in dag.get_task(before).downstream_task_ids
    assert dag.get_task("reproduce").execution_timeout >= timedelta(hours=24)


def test_training_never_starts_by_itself_and_changes_nothing_unasked(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sosie.airflow import training

    assert {name: param.value for name, param in training.PARAMS.items()} == {
        "profile": "full",
        "judgements": "pinned",
        "promote": "never",
        "dry_run": True,
    }
    assert training.schedule() is None
    assert dags["dedup_train"].schedule is None
    monkeypatch.setenv("SOSIE_TRAIN_SCHEDULE", "0 3 * * 0")
    assert training.schedule() == "0 3 * * 0"


def test_a_training_from_dry_run_to_promotion(tasks: dict[str, Any], repository: Path) -> None:
    """The tasks' own functions, over real DVC, a real registry and real models."""
    from airflow.sdk.exceptions import AirflowSkipException

    from sosie import registry
    from sosie.settings import PROJECT as SOSIE
    from sosie.settings import load, settings

    asked = {"profile": "small", "promote": "never", "dry_run": True}
    with pytest.raises(AirflowSkipException, match="nothing was trained"):
        tasks["reproduce"](params=asked)
    assert not (repository / "var").exists()

    asked |= {"dry_run": False}
    tasks["reproduce"](params=asked)
    candidate = tasks["register"](params=asked, run_id="manual__1")
    found = registry.find(settings(), candidate)
    assert found.who == "manual__1"
    assert 0 < found.live_scores["market"]["row_f1"] <= 1
    passed = tasks["gate"](candidate)
    assert passed is True

    with pytest.raises(AirflowSkipException, match=f"sosie promote {candidate}"):
        tasks["promote"](candidate, passed, params=asked, run_id="manual__1")
    asked |= {"promote": "if_gate_passes"}
    with pytest.raises(AirflowSkipException, match="did not pass the gate"):
        tasks["promote"](candidate, False, params=asked, run_id="manual__1")
    assert load().models == SOSIE / "models"
    tasks["promote"](candidate, passed, params=asked, run_id="manual__1")
    assert load().models == registry.folder(settings(), candidate)


def test_a_stage_that_fails_and_another_dvc_at_work_are_told_apart(tasks: dict[str, Any], repository: Path) -> None:
    from dvc.repo import Repo

    from sosie.errors import StoreBusy, TerminalError

    asked = {"profile": "small", "promote": "never", "dry_run": False}
    with Repo(repository) as repo, repo.lock, pytest.raises(StoreBusy, match="another DVC at work"):
        tasks["reproduce"](params=asked)
    (repository / "trained.py").write_text("raise SystemExit('no disk left')")
    with pytest.raises(TerminalError, match=r"`dvc repro evaluate@small` in .* ended with \d+; the log above"):
        tasks["reproduce"](params=asked)


def test_a_training_ends_with_its_task(repository: Path) -> None:
    """Airflow ends a task by SIGTERM; the stage two processes below must not go on, nor hold DVC's lock."""
    (repository / "trained.py").write_text("import time; open('begun', 'w').close(); time.sleep(600)")
    code = "from sosie.airflow import training; training.reproduce('small', dry_run=False)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as task:
        until = time.monotonic() + 120
        while not (repository / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.2)
        below = psutil.Process(task.pid).children(recursive=True)
        assert len(below) >= 2
        task.terminate()
        _, alive = psutil.wait_procs(below, timeout=20)
        assert alive == []
        assert task.stderr is not None
        assert "ended with -15" in task.stderr.read()
    (repository / "trained.py").write_text(TRAINED)
    subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=repository, check=True)


def test_a_training_whose_task_was_killed_is_ended_by_the_next_try(tasks: dict[str, Any], repository: Path) -> None:
    (repository / "trained.py").write_text("import time; open('begun', 'w').close(); time.sleep(600)")
    code = "from sosie.airflow import training; training.reproduce('small', dry_run=False)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as task:
        until = time.monotonic() + 120
        while not (repository / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.2)
        below = psutil.Process(task.pid).children(recursive=True)
        task.kill()
    assert all(process.is_running() for process in below)
    (repository / "trained.py").write_text(TRAINED)
    tasks["reproduce"](params={"profile": "small", "promote": "never", "dry_run": False})
    _, alive = psutil.wait_procs(below, timeout=5)
    assert alive == []


# --- rebuild and upkeep ----------------------------------------------------------------------------------------------


def test_the_flow_of_a_rebuild_and_of_upkeep(dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from sosie.airflow import upkeeping

    orders = {
        "dedup_rebuild": ["build", "compare", "promote"],
        "dedup_upkeep": [
            "begin", "check_stores", "drop_versions", "clear_staging", "forget_history", "forget_pictures",
            "compact_tables", "record",
        ],
    }  # fmt: skip
    for name, order in orders.items():
        assert [task.task_id for task in dags[name].topological_sort()] == order
        for before, after in pairwise(order):
            assert after in dags[name].get_task(before).downstream_task_ids
    assert dags["dedup_rebuild"].schedule is None
    assert upkeeping.schedule() == "30 3 * * *"
    monkeypatch.setenv("SOSIE_UPKEEP_SCHEDULE", "none")
    assert upkeeping.schedule() is None


def test_a_rebuild_and_an_upkeep_by_their_tasks(
    dags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks' own functions over an empty catalogue: what they ask for, skip, and leave behind."""
    import json
    import shutil

    from airflow.sdk.exceptions import AirflowSkipException

    from sosie import registry, tables
    from sosie.artifacts import save
    from sosie.errors import SettingsError
    from sosie.lake import Lake
    from sosie.settings import PROJECT as SOSIE
    from sosie.settings import load, settings

    monkeypatch.setenv("SOSIE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    shutil.copytree(SOSIE / "models", tmp_path / "models")
    card = json.loads((tmp_path / "models/text/model.json").read_text())
    save(tmp_path / "models/text", card["kind"], list(card["files"]), card["usage"] | {"max_tokens": 9}, card["about"])
    scores = {"a": {"row_f1": 0.8, "row_f1_standard_error": 0.01}}
    source = registry.Source("small", "0123456789ab", None)
    id_ = registry.register(settings(), tmp_path / "models", source, scores, {"a": {"row_f1": 0.7}}, "ann").id

    tasks = {task.task_id: task.python_callable for task in dags["dedup_rebuild"].tasks}
    with pytest.raises(SettingsError, match="Trigger with `models`"):
        tasks["build"](params={"models": None})
    asked = {"models": id_, "promote": "never"}
    assert tasks["build"](params=asked) == {"text_computed": 0, "text_mended": 0, "text_held": 0}
    with pytest.raises(AirflowSkipException, match=f"sosie promote {id_}"):
        tasks["promote"]([], params=asked, run_id="manual__1")
    asked["promote"] = "without_concerns"
    with pytest.raises(AirflowSkipException, match="1 concerns: Scores moved"):
        tasks["promote"](["Scores moved."], params=asked, run_id="manual__1")
    tasks["promote"]([], params=asked, run_id="manual__1")
    assert load(home=tmp_path / "home").models == registry.folder(settings(), id_)
    settings.cache_clear()

    tasks = {task.task_id: task.python_callable for task in dags["dedup_upkeep"].tasks}
    run_id = tasks["begin"]()
    for part in (
        "check_stores", "drop_versions", "clear_staging", "forget_history", "forget_pictures", "compact_tables",
    ):  # fmt: skip
        assert isinstance(tasks[part](run_id), dict)
    tasks["record"](run_id)
    told = Lake(settings().lake_uri).read(tables.RUNS, pl.col("state") != "promote")
    assert told.select("run_id", "state").rows() == [(run_id, "upkeep")]
    settings.cache_clear()
