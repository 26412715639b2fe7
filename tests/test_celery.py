"""The hourly DAG as a deployment runs it: metadata in PostgreSQL, CeleryExecutor over Redis, OpenLineage to a file."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from services import missing, postgres, redis

from sosie import tables
from sosie.airflow import DAG_ID
from sosie.airflow.client import Outcome
from sosie.airflow.datasets import READS, WRITES
from sosie.airflow.stack import stack
from sosie.lake import Lake
from sosie.settings import Settings, load
from sosie.simulate import Marketplace, write

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}"),
]


@dataclass(frozen=True)
class Ran:
    outcome: Outcome
    settings: Settings
    events: list[dict[str, Any]]
    worker_log: str
    metadata: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One hour of a small marketplace."""
    home = tmp_path_factory.mktemp("home")
    write(home / "market", Marketplace(listings=80, hours=1, seed=5, with_pictures=True))
    landing, events = home / "market" / "landing", home / "openlineage.json"
    hour = min(path.name for path in landing.iterdir())
    settings = load(home=home)
    with postgres() as database, redis() as broker:
        environment = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://sosie@{database}/airflow",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{broker}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://sosie@{database}/airflow",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "sosie",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(events), "append": True}
            ),
        }
        with stack(settings, landing=landing, environment=environment, start_timeout=400) as airflow:
            worker = ["celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle"]
            airflow.processes.start("worker", [sys.executable, "-m", "airflow", *worker])
            outcome = airflow.wait(airflow.trigger(DAG_ID, hour), timeout=500)
            metadata = airflow.client.health()["metadatabase"]
            log = airflow.processes.log("worker").read_text()
    told = [json.loads(line) for line in events.read_text().splitlines() if line]
    yield Ran(outcome, settings, told, log, metadata)
    shutil.rmtree(home, ignore_errors=True)


def test_an_hour_is_green_on_postgres_celery_and_redis(ran: Ran) -> None:
    ran.outcome.expect_success()
    assert ran.metadata == "healthy"
    assert not (ran.settings.home / "airflow" / "airflow.db").exists(), "metadata went to SQLite"
    assert "celery@" in ran.worker_log
    lake = Lake(ran.settings.lake_uri)
    assert lake.read(tables.RUNS)["state"].to_list() == ["succeeded"]
    assert lake.read(tables.CLUSTERS).height > 0


def test_lineage_tells_each_tasks_datasets_with_their_versions(ran: Ran) -> None:
    """Of what each task wrote, OpenLineage was told the version that the lake has."""
    lake = Lake(ran.settings.lake_uri)
    written: dict[str, dict[str, str]] = {}
    for event in ran.events:
        task = event["job"]["name"].removeprefix(f"{DAG_ID}.")
        for dataset in event.get("outputs", ()):
            if stamp := dataset.get("facets", {}).get("version"):
                written.setdefault(task, {})[dataset["name"].rpartition("/")[2]] = stamp["datasetVersion"]
    for task, held in WRITES.items():
        there = {table.name for table in held if lake.version(table) >= 0}
        assert there <= written[task].keys(), task
    for name in ("listings", "changes", "pairs", "clusters", "runs"):
        (task,) = [task for task, held in WRITES.items() if name in {table.name for table in held}]
        assert written[task][name] == str(lake.version(next(t for t in tables.ALL if t.name == name)))
    assert set(written["upsert_vectors"]) == {"listings_text", "listings_image"}
    read = {dataset["name"].rpartition("/")[2] for event in ran.events for dataset in event.get("inputs", ())}
    assert {"listings", "changes", "pairs", "text_embeddings"} <= read
    runs = {event["run"]["runId"] for event in ran.events if event["job"]["name"] == f"{DAG_ID}.match"}
    assert len(runs) == 1, "datasets are told under the same run as the task's own start and end"


def test_no_step_writes_a_table_that_lineage_does_not_know(ran: Ran) -> None:
    known = {table.name for held in WRITES.values() for table in held}
    lake = Lake(ran.settings.lake_uri)
    assert {table.name for table in tables.ALL if lake.version(table) > 0} <= known
    assert set(READS) >= set(WRITES)
    assert lake.read(tables.ALERTS, pl.col("state") == "dead").is_empty()
