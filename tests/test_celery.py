"""The hourly DAG as a deployment runs it: metadata and Feast's registry in PostgreSQL, CeleryExecutor over Redis, the
online store in Redis, lineage to a file, metrics from the API server."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import polars as pl
import pytest
from services import missing, postgres, redis

from sosie import features, tables
from sosie.airflow import DAG_ID
from sosie.airflow.client import Outcome
from sosie.airflow.datasets import WRITES
from sosie.airflow.stack import stack
from sosie.lake import Lake
from sosie.settings import PROJECT, Metrics, Settings, load
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
    metrics: str
    online: pl.DataFrame


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One hour of a small marketplace."""
    home = tmp_path_factory.mktemp("home")
    write(home / "market", Marketplace(listings=80, hours=1, seed=5, with_pictures=True))
    landing, events = home / "market" / "landing", home / "openlineage.json"
    hour = min(path.name for path in landing.iterdir())
    repo = shutil.copytree(PROJECT / "feature_repo", home / "feature_repo")
    shutil.copy(PROJECT / "docker" / "feature_repo" / "feature_store.yaml", repo)
    settings = load(home=home, landing=landing, feature_repo=repo, metrics=Metrics(token="scrape"))
    with postgres() as database, redis() as broker, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEAST_REGISTRY", f"postgresql+psycopg://sosie@{database}/feast")
        patch.setenv("FEAST_REDIS", f"{broker},db=1")
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
        with stack(settings, environment=environment, start_timeout=400) as airflow:
            worker = ["celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle"]
            airflow.processes.start("worker", [sys.executable, "-m", "airflow", *worker])
            outcome = airflow.wait(airflow.trigger(DAG_ID, hour), timeout=500)
            metadata = airflow.client.health()["metadatabase"]
            log = airflow.processes.log("worker").read_text()
            # The first request builds the app.
            scraper = httpx.Client(trust_env=False, timeout=120, headers={"Authorization": "Bearer scrape"})
            metrics = scraper.get(f"{airflow.url}/sosie/metrics").raise_for_status().text
            assert httpx.get(f"{airflow.url}/sosie/metrics", trust_env=False, timeout=120).status_code == 401
        ids = Lake(settings.lake_uri).read(tables.CLUSTERS)["listing_id"].to_list()
        online = features.lookup(settings, ids)
    told = [json.loads(line) for line in events.read_text().splitlines() if line]
    yield Ran(outcome, settings, told, log, metadata, metrics, online)
    shutil.rmtree(home, ignore_errors=True)


def test_an_hour_is_green_on_postgres_celery_and_redis(ran: Ran) -> None:
    ran.outcome.expect_success()
    assert ran.metadata == "healthy"
    assert not (ran.settings.home / "airflow" / "airflow.db").exists(), "metadata went to SQLite"
    assert "celery@" in ran.worker_log
    lake = Lake(ran.settings.lake_uri)
    assert lake.read(tables.RUNS)["state"].to_list() == ["succeeded"]
    assert lake.read(tables.CLUSTERS).height > 0


def test_the_storefront_is_answered_from_redis(ran: Ran) -> None:
    assert not (ran.settings.home / "feast" / "online.db").exists()
    assert not (ran.settings.home / "feast" / "registry.db").exists()
    held = Lake(ran.settings.lake_uri).read(tables.CLUSTERS).select("listing_id", "cluster_id", "canonical_id")
    answered = ran.online.select(held.columns)
    assert answered.sort("listing_id").equals(held.sort("listing_id"))


def test_the_api_server_gives_metrics_of_the_hour(ran: Ran) -> None:
    assert 'sosie_runs{state="succeeded"} 1.0' in ran.metrics
    assert 'sosie_step_count{count="rows_read",step="validate"} 80.0' in ran.metrics


def test_lineage_tells_each_tasks_datasets_with_their_versions(ran: Ran) -> None:
    """Of what each task wrote, OpenLineage was told the version that the lake has."""
    lake = Lake(ran.settings.lake_uri)
    written: dict[str, dict[str, str]] = {}
    for event in ran.events:
        task = event["job"]["name"].removeprefix(f"{DAG_ID}.")
        for dataset in event.get("outputs", ()):
            if stamp := dataset.get("facets", {}).get("version"):
                written.setdefault(task, {})[dataset["name"].rpartition("/")[2]] = stamp["datasetVersion"]
    # Only where there is a second version, and of an hour that died and is taken over.
    seldom = {("follow", "text_embeddings"), ("follow", "image_embeddings"), ("detect_changes", "cluster_events")}
    for task, held in WRITES.items():
        there = {table.name for table in held if lake.version(table) >= 0 and (task, table.name) not in seldom}
        assert there <= written.get(task, {}).keys(), task
    for name in ("listings", "changes", "pairs", "clusters", "runs"):
        (task,) = [task for task, held in WRITES.items() if name in {table.name for table in held}]
        assert written[task][name] == str(lake.version(next(t for t in tables.ALL if t.name == name)))
    assert set(written["upsert_vectors"]) == {"listings_text", "listings_image"}
    read = {dataset["name"].rpartition("/")[2] for event in ran.events for dataset in event.get("inputs", ())}
    assert {"listings", "changes", "pairs", "text_embeddings"} <= read
    runs = {event["run"]["runId"] for event in ran.events if event["job"]["name"] == f"{DAG_ID}.match"}
    assert len(runs) == 1, "datasets are told under the same run as the task's own start and end"


def test_every_alert_was_delivered(ran: Ran) -> None:
    lake = Lake(ran.settings.lake_uri)
    assert lake.read(tables.ALERTS, pl.col("state") == "dead").is_empty()
