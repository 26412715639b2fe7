"""Metrics follow from the lake; what dashboards and Prometheus rules name is there."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from sosie import metrics, tables
from sosie import settings as config
from sosie.airflow.metrics import build
from sosie.alerts import Alert, deliver, silences
from sosie.cli import app
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings

HOUR = "2026-01-05T09"
NOW = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
DASHBOARDS = sorted((PROJECT / "docker" / "grafana").rglob("*.json"))
RULES = PROJECT / "docker" / "prometheus" / "rules.yml"


def put(lake: Lake, table: tables.Table, *rows: dict[str, object]) -> None:
    lake.upsert(table, pl.DataFrame(list(rows), schema=table.schema), run_id=HOUR)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = config.load(home=tmp_path, metrics=config.Metrics(token="scrape", cache_seconds=3600))
    lake = Lake(settings.lake_uri)
    for n, seconds in enumerate((20.0, 40.0, 4000.0)):
        run = {"run_id": f"2026-01-05T{7 + n:02d}", "state": "succeeded", "seconds": seconds}
        counts = [{"name": "rows_read", "value": 10}, {"name": "rows_accepted", "value": 9}]
        step = {"name": "validate", "seconds": 1.5, "peak_memory_bytes": 1000, "counts": counts}
        put(lake, tables.RUNS, {**run, "finished_at": NOW, "steps": [step], "text_version": "t1"})
    listing = {"updated_at": NOW, "content_hash": "c", "first_seen_run": HOUR, "title": "A lamp"}
    put(
        lake,
        tables.LISTINGS,
        {**listing, "listing_id": "a", "is_deleted": False, "text_hash": "x", "image_hash": "y"},
        {**listing, "listing_id": "b", "is_deleted": False, "text_hash": "x"},
        {**listing, "listing_id": "c", "is_deleted": True},
    )
    for left, verdict in (("a", "match"), ("b", "review"), ("c", "review")):
        put(lake, tables.PAIRS, {"left_id": left, "right_id": "z", "score": 0.5, "verdict": verdict})
    put(lake, tables.JUDGEMENTS, {"left_id": "c", "right_id": "z", "verdict": "same", "who": "ann", "when": NOW})
    deliver(lake, [Alert(f"review_queue:{HOUR}", "warning", "Many wait", "x")], settings=config.Alerts(), run_id=HOUR)
    silences.silence(lake, "review_queue", NOW + timedelta(hours=2), who="ann", note=None, now=NOW)
    for hour in (HOUR, "2026-01-05T10", "notes"):
        (settings.landing / hour).mkdir(parents=True)
    return settings


def samples(text: str) -> dict[str, float]:
    """`name{label="value"}` to value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_metrics_tell_what_the_lake_holds(settings: Settings) -> None:
    told = samples(metrics.text(settings, now=NOW.timestamp()))
    assert told['sosie_runs{state="succeeded"}'] == 3
    assert told["sosie_freshness_seconds"] == 30 * 60
    assert told['sosie_run_duration_seconds_bucket{le="60.0"}'] == 2
    assert told["sosie_run_duration_seconds_count"] == 3
    assert told["sosie_run_duration_seconds_sum"] == 4060
    assert told['sosie_step_seconds{step="validate"}'] == 1.5
    assert told['sosie_step_count{count="rows_read",step="validate"}'] == 10
    assert told["sosie_unbalanced_counts"] == 2, "10 rows read, 9 accepted, none quarantined; and nothing detected"
    assert told['sosie_listings{state="live"}'] == 2
    assert told['sosie_listings_with{modality="image"}'] == 1
    assert told['sosie_pairs{verdict="review"}'] == 2
    assert told["sosie_review_queue"] == 1, "a judged pair waits no more"
    assert told['sosie_table_rows{table="listings"}'] == 3
    assert told['sosie_alerts{rule="review_queue",severity="warning",state="sent"}'] == 1
    assert told['sosie_silenced_rules{rule="review_queue"}'] == 1
    assert told["sosie_landing_hours_waiting"] == 1
    assert told['sosie_model_info{model="text",version="t1"}'] == 1


def test_hours_that_another_one_s_run_took_wait_no_more(settings: Settings) -> None:
    caught_up = {"run_id": "2026-01-05T12", "state": "succeeded", "seconds": 1.0, "finished_at": NOW}
    taken = [
        {"path": f"2026-01-05T{hour}/feed.csv", "sha256": hour, "bytes": 1, "rows": 1} for hour in ("10", "11", "12")
    ]
    for hour in (11, 12, 13):
        (settings.landing / f"2026-01-05T{hour}").mkdir()
    put(Lake(settings.lake_uri), tables.RUNS, {**caught_up, "files": taken})
    assert samples(metrics.text(settings))["sosie_landing_hours_waiting"] == 1, "the 13th hour alone"


def test_the_newest_hour_is_told_of_also_after_upkeep(settings: Settings) -> None:
    before = samples(metrics.text(settings, now=NOW.timestamp()))
    checked = {"name": "check_stores", "seconds": 60.0, "peak_memory_bytes": 1, "counts": []}
    night = {"run_id": f"{HOUR}~upkeep-20260105T100000", "state": "upkeep", "finished_at": NOW, "steps": [checked]}
    put(Lake(settings.lake_uri), tables.RUNS, night)
    after = samples(metrics.text(settings, now=NOW.timestamp()))
    whole = ("sosie_runs", "sosie_table_")
    assert {name: value for name, value in after.items() if not name.startswith(whole)} == {
        name: value for name, value in before.items() if not name.startswith(whole)
    }


def test_every_family_is_there_before_the_first_run(tmp_path: Path, settings: Settings) -> None:
    def names(told: str) -> set[str]:
        return set(re.findall(r"^# HELP (\S+)", told, flags=re.MULTILINE))

    empty = names(metrics.text(config.load(home=tmp_path / "empty")))
    assert empty == names(metrics.text(settings))


def test_the_shell_prints_them(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_HOME", str(settings.home))
    config.settings.cache_clear()
    told = CliRunner().invoke(app, ["metrics"])
    config.settings.cache_clear()
    assert told.exit_code == 0
    assert samples(told.output)['sosie_listings{state="live"}'] == 2


def test_the_endpoint_is_for_who_has_the_token(settings: Settings) -> None:
    scraper = TestClient(build(settings))
    assert scraper.get("/metrics").status_code == 401
    assert scraper.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    found = scraper.get("/metrics", headers={"Authorization": "Bearer scrape"})
    assert found.status_code == 200
    assert found.headers["content-type"] == CONTENT_TYPE_PLAIN_0_0_4
    assert samples(found.text)["sosie_review_queue"] == 1
    without = settings.model_copy(update={"metrics": config.Metrics()})
    off = TestClient(build(without)).get("/metrics")
    assert (off.status_code, "set SOSIE_METRICS__TOKEN" in off.text) == (404, True)


def test_the_plugin_sends_scrapers_past_the_login(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    monkeypatch.setenv("SOSIE_HOME", str(settings.home))
    monkeypatch.setenv("SOSIE_METRICS__TOKEN", "scrape")
    monkeypatch.syspath_prepend(str(PROJECT / "plugins"))
    monkeypatch.setenv("AIRFLOW_HOME", str(settings.home / "airflow"))
    config.settings.cache_clear()
    import sosie_plugin

    server = TestClient(Starlette(routes=[Mount("/sosie", app=sosie_plugin.app)]))
    found = server.get("/sosie/metrics", headers={"Authorization": "Bearer scrape"})
    assert found.status_code == 200
    assert "sosie_review_queue 1.0" in found.text
    assert server.get("/sosie/metrics").status_code == 401
    config.settings.cache_clear()
    del sys.modules["sosie_plugin"]


def named(expression: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) if "duration" in name else name
            for name in re.findall(r"\bsosie_[a-z_]+", expression)}  # fmt: skip


def known(settings: Settings) -> set[str]:
    return set(re.findall(r"^# HELP (\S+)", metrics.text(settings), flags=re.MULTILINE))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_shows_metrics_that_exist(file: Path, settings: Settings) -> None:
    board = json.loads(file.read_text())
    asked = {target["expr"] for panel in board["panels"] for target in panel.get("targets", ())}
    assert len(asked) > 8
    assert set().union(*map(named, asked)) <= known(settings)
    spots = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(spots)) == len(spots)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_prometheus_rules_name_metrics_that_exist_and_a_runbook(settings: Settings) -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 6
    for rule in rules:
        assert named(rule["expr"]) <= known(settings), rule["alert"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
        assert (PROJECT / "docs" / "runbooks" / f"{rule['annotations']['runbook']}.md").is_file()


def test_there_is_a_dashboard() -> None:
    assert DASHBOARDS
