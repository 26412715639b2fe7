"""Every rule of rules.yaml fires on tables that it is about, once, through Apprise to a real web server."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from deltalake import DeltaTable
from receivers import webhook

from sosie import alerts, pipeline, tables
from sosie import settings as config
from sosie.alerts.measures import MEASURES
from sosie.alerts.rules import SHIPPED, load
from sosie.errors import BatchRejected, IndexUnavailable, SettingsError
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings

RUN = "2026-01-05T09"
BASE = "https://airflow.example.org"
RULES = list(yaml.safe_load(SHIPPED.read_text()))

Manifest = dict[str, Any]


def manifest(run_id: str = RUN, **counts: int) -> Manifest:
    """`validate__rows_read=3` is step validate, count rows_read."""
    steps: dict[str, dict[str, int]] = {}
    for name, value in counts.items():
        step, _, count = name.partition("__")
        steps.setdefault(step, {})[count] = value
    return {
        "run_id": run_id,
        "state": "succeeded",
        "text_version": "v1",
        "image_version": "v1",
        "steps": [{"name": name, "counts": own} for name, own in steps.items()],
    }


def put(lake: Lake, table: tables.Table, rows: list[dict[str, Any]], run_id: str = RUN) -> None:
    """Write rows, columns left out being null."""
    lake.upsert(table, pl.DataFrame(rows, schema=table.schema), run_id=run_id)


def hours_before(number: int) -> list[str]:
    first = datetime(2026, 1, 5, 9, tzinfo=UTC)
    return [f"{first - timedelta(hours=n):%Y-%m-%dT%H}" for n in range(number, 0, -1)]


def listing(listing_id: str, **given: Any) -> dict[str, Any]:
    return {
        "listing_id": listing_id,
        "updated_at": datetime(2026, 1, 5, tzinfo=UTC),
        "is_deleted": False,
        "content_hash": listing_id,
        "first_seen_run": RUN,
        "title": "A lamp",
        **given,
    }


def member(listing_id: str, cluster_id: str, size: int, run_id: str = RUN) -> dict[str, Any]:
    return {
        "listing_id": listing_id,
        "cluster_id": cluster_id,
        "canonical_id": listing_id,
        "size": size,
        "changed_run": run_id,
    }


def pair(number: int, score: float, verdict: str, run_id: str) -> dict[str, Any]:
    return {"left_id": f"a{number}", "right_id": f"b{number}", "score": score, "verdict": verdict, "run_id": run_id}


# --- one scene a rule: what the lake and the manifest look like when it must speak, and what it must then say --------


def quarantine_share(lake: Lake) -> Manifest:
    broken = {"run_id": RUN, "source_file": "a.parquet", "rule": "price_is_positive", "row": "{}"}
    put(lake, tables.QUARANTINE, [{**broken, "row_number": n} for n in range(6)])
    put(lake, tables.QUARANTINE, [{**broken, "row_number": n, "rule": "gtin_check_digit"} for n in range(9)])
    return manifest(validate__rows_read=100, validate__rows_quarantined=6)


def pictures_refused(lake: Lake) -> Manifest:
    return manifest(validate__rows_read=100, validate__pictures_refused=6)


def candidates_capped(lake: Lake) -> Manifest:
    return manifest(detect_changes__new=100, match__capped_listings=6)


def candidate_explosion(lake: Lake) -> Manifest:
    usual = [
        {
            "run_id": hour,
            "state": "succeeded",
            "steps": [
                {"name": "detect_changes", "counts": [{"name": "new", "value": 100}]},
                {"name": "match", "counts": [{"name": "candidates", "value": 1000}]},
            ],
        }
        for hour in hours_before(4)
    ]
    put(lake, tables.RUNS, usual)
    return manifest(detect_changes__new=100, match__candidates=3100)


def large_merge(lake: Lake) -> Manifest:
    (before,) = hours_before(1)
    old = [member(f"a{n}", "ca", 12, before) for n in range(12)] + [
        member(f"b{n}", "cb", 10, before) for n in range(10)
    ]
    put(lake, tables.CLUSTERS, old, before)
    put(lake, tables.CLUSTERS, [member(row["listing_id"], "ca", 22) for row in old])
    event = {"run_id": RUN, "kind": "merged", "cluster_id": "ca", "before": ["ca", "cb"], "after": ["ca"]}
    put(lake, tables.CLUSTER_EVENTS, [{**event, "joined": [f"b{n}" for n in range(10)], "left": []}])
    return manifest(cluster__merged=1, cluster__grew=50)


def merge_share(lake: Lake) -> Manifest:
    return manifest(cluster__merged=10, cluster__formed=39)


def held_for_review(lake: Lake) -> Manifest:
    return manifest(cluster__held_for_review=1)


def seller_flood(lake: Lake) -> Manifest:
    put(lake, tables.LISTINGS, [listing(f"l{n}", seller_id="copycat") for n in range(10)])
    put(lake, tables.CLUSTERS, [member(f"l{n}", "c1", 10) for n in range(10)])
    return manifest()


def price_outlier(lake: Lake) -> Manifest:
    prices = {"l1": 10.0, "l2": 11.0, "l3": 9.0, "l4": 99.0}
    put(lake, tables.LISTINGS, [listing(one, price=price, currency="EUR") for one, price in prices.items()])
    put(lake, tables.CLUSTERS, [member(one, "c1", 4) for one in prices])
    return manifest()


def embedding_drift(lake: Lake) -> Manifest:
    random = np.random.default_rng(1)
    rows = []
    for n in range(500):
        vector = random.normal(size=tables.DIM) + (1.0 if n < 250 else 0.0)
        row = {"listing_id": f"l{n}", "content_hash": f"h{n}", "embedding_version": "v1"}
        stamp = datetime(2026, 1, 5, tzinfo=UTC)
        rows.append({**row, "vector": (vector / np.linalg.norm(vector)).tolist(), "event_timestamp": stamp})
    put(lake, tables.TEXT_EMBEDDINGS, rows)
    changed = {"run_id": RUN, "kind": "new"}
    put(lake, tables.CHANGES, [{**changed, "listing_id": f"l{n}", "text_hash": f"h{n}"} for n in range(250)])
    return manifest()


def score_drift(lake: Lake) -> Manifest:
    (before,) = hours_before(1)
    steady = [pair(n, n / 300, "no_match", before) for n in range(300)]
    moved = [pair(1000 + n, 0.9 + n / 3000, "match", RUN) for n in range(300)]
    put(lake, tables.PAIRS, steady + moved)
    return manifest()


def index_mismatch(lake: Lake) -> Manifest:
    put(lake, tables.LISTINGS, [listing(f"l{n}", text_hash=f"h{n}") for n in range(5)])
    return manifest(upsert_vectors__text_held=4, upsert_vectors__image_held=0)


def review_queue(lake: Lake) -> Manifest:
    put(lake, tables.PAIRS, [pair(n, 0.5, "review", RUN) for n in range(1001)])
    return manifest(match__review=3)


SCENES: dict[str, tuple[Callable[[Lake], Manifest], str]] = {
    "quarantine_share": (quarantine_share, "Most often: price_is_positive (6)."),
    "pictures_refused": (pictures_refused, "6 of 100 rows came with a picture that is missing"),
    "candidates_capped": (candidates_capped, "6 of 100 changed listings reached the limit of 120"),
    "candidate_explosion": (candidate_explosion, "31.0 candidate pairs for each of 100 changed listings, against 10.0"),
    "large_merge": (large_merge, "ca of 12 + 10"),
    "merge_share": (merge_share, "10 merges among 49 clusters"),
    "held_for_review": (held_for_review, "1 pairs match"),
    "seller_flood": (seller_flood, "copycat 10 times in c1"),
    "price_outlier": (price_outlier, "l4 at 99 EUR against 10.5 in c1"),
    "embedding_drift": (embedding_drift, "this hour's 250 text vectors"),
    "score_drift": (score_drift, "this hour's 300 pairs and 300 earlier ones"),
    "index_mismatch": (index_mismatch, "5 live listings with a text vector, the index holds 4"),
    "review_queue": (review_queue, "above its limit of 1,000"),
}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with webhook() as hook:
        to = config.Alerts(urls=(hook.url,), console=False, base_url=BASE, docs_url="https://docs.example.org")
        found = config.load(home=tmp_path, alerts=to)
        object.__setattr__(found, "hook", hook)
        yield found


def received(settings: Settings) -> list[dict[str, str]]:
    return settings.hook.received  # type: ignore[attr-defined,no-any-return]


def test_every_rule_has_a_scene_or_an_event() -> None:
    assert set(RULES) == set(SCENES) | {"run_failed", "batch_rejected", "deadline_missed", "rule_broken"}
    assert set(MEASURES) == set(SCENES)


@pytest.mark.parametrize("rule", SCENES)
def test_a_rule_speaks_once_says_what_to_do_and_whose_it_is(rule: str, settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    scene, said = SCENES[rule]
    told = scene(lake)
    for _ in range(2):  # the step may run again
        found = alerts.found(lake, told, settings, run_url=f"{BASE}/dags/dedup_hourly/runs/r1")
        alerts.deliver(lake, found, settings=settings.alerts, run_id=RUN)
    (body,) = received(settings)
    assert [alert.rule for alert in found] == [rule]
    text = body["message"]
    assert body["title"].endswith(f"· hour {RUN}")
    assert said in text
    entry = load(settings)[rule]
    assert f"Owner: {entry.owner} · {entry.severity}" in text
    assert "What to do: " in text
    for link in (
        f"{BASE}/sosie/{RUN}/index.html",
        f"{BASE}/dags/dedup_hourly/runs/r1",
        f"https://docs.example.org/runbooks/{rule}/",
    ):
        assert link in text


@pytest.mark.parametrize("rule", SCENES)
def test_a_rule_is_quiet_below_its_threshold(rule: str, settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = SCENES[rule][0](lake)
    (alert,) = alerts.found(lake, told, settings)
    higher = settings.alerts.model_copy(update={"thresholds": {rule: 1e9}})
    assert alerts.found(lake, told, settings.model_copy(update={"alerts": higher})) == []
    assert alert.rule == rule


def test_an_ordinary_hour_is_quiet(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    counts = {"validate__rows_read": 1000, "validate__rows_quarantined": 50, "detect_changes__new": 900}
    calm = manifest(**counts, match__candidates=9000, match__capped_listings=45, cluster__merged=9, cluster__formed=1)
    assert alerts.found(lake, calm, settings) == []


def test_what_stays_true_is_told_once_a_day(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = review_queue(lake)
    for run_id in ("2026-01-05T09", "2026-01-05T10", "2026-01-06T00"):
        found = alerts.found(lake, {**told, "run_id": run_id}, settings)
        alerts.deliver(lake, found, settings=settings.alerts, run_id=run_id)
    hours = [body["title"].rpartition(" ")[2] for body in received(settings)]
    assert hours == ["2026-01-05T09", "2026-01-06T00"]


def test_a_rule_that_can_not_be_measured_is_told_and_keeps_no_other_quiet(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = review_queue(lake)
    put(lake, tables.LISTINGS, [listing("l1", text_hash="h")])
    for file in Path(lake.path(tables.LISTINGS)).glob("*.parquet"):
        file.unlink()
    found = alerts.found(lake, manifest(upsert_vectors__text_held=1) | {"steps": [*told["steps"], {
        "name": "upsert_vectors", "counts": {"text_held": 1}}]}, settings)  # fmt: skip
    for _ in range(2):
        alerts.deliver(lake, found, settings=settings.alerts, run_id=RUN)
    (body,) = received(settings)
    assert {"rule_broken", "review_queue"} == {alert.rule for alert in found}
    assert "The alert rule index_mismatch can't be measured" in body["message"]
    assert "1,001 pairs wait for a person" in body["message"]


def test_a_merge_whose_past_was_cleaned_up_does_not_stop_the_alerts(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = large_merge(lake)
    assert [alert.rule for alert in alerts.found(lake, told, settings)] == ["large_merge"]
    table = DeltaTable(lake.path(tables.CLUSTERS))
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert alerts.found(lake, told, settings) == []


def test_an_hour_that_ran_again_does_not_hold_its_old_count_against_the_lake_of_today(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = index_mismatch(lake)
    put(lake, tables.RUNS, [{"run_id": "2026-01-05T10", "state": "succeeded"}])
    assert alerts.found(lake, told, settings) == []


def test_a_pair_that_was_judged_waits_no_more(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    told = review_queue(lake)
    judged = {"left_id": "a0", "right_id": "b0", "verdict": "same", "who": "ann", "when": datetime.now(UTC)}
    put(lake, tables.JUDGEMENTS, [judged])
    assert alerts.found(lake, told, settings) == []


def test_a_refused_batch_and_a_failed_run_say_what_to_do(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    refused = alerts.run_failed(settings, RUN, BatchRejected("Column title is missing in a.parquet."))
    assert refused == alerts.run_failed(settings, RUN, BatchRejected("Column title is missing in a.parquet."))
    assert refused.key != alerts.run_failed(settings, RUN, BatchRejected("The file is empty.")).key
    away = alerts.run_failed(settings, RUN, IndexUnavailable("Milvus is away."))
    odd = alerts.run_failed(settings, RUN, KeyError("x"))
    for _ in range(2):
        alerts.deliver(lake, [refused, away], settings=settings.alerts, run_id=RUN)
    (body,) = received(settings)
    assert body["title"] == f"2 critical · hour {RUN}"
    for word in ("Column title is missing in a.parquet.", "No table was changed", "Milvus is away.", "store it names"):
        assert word in body["message"]
    assert "did not foresee" in odd.text
    unusable = alerts.run_failed(settings, RUN, PermissionError(13, "Permission denied", "reports"))
    assert "Give this user the right to use this path" in unusable.text
    assert [alert.rule for alert in (refused, away, odd)] == ["batch_rejected", "run_failed", "run_failed"]


def test_a_task_that_failed_and_a_deadline_that_was_missed_are_told_once(settings: Settings) -> None:
    for _ in range(2):
        pipeline.alert_failure(
            settings,
            run_id=RUN,
            dag_id="dedup_hourly",
            task_id="match",
            message="Milvus is away.",
            log_url=f"{BASE}/log",
        )
        pipeline.alert_deadline(settings, run_id=RUN, minutes=50, run_url=f"{BASE}/dags/dedup_hourly/runs/r1")
    failed, late = received(settings)
    assert failed["title"] == f"dedup_hourly.match failed · hour {RUN}"
    assert f"Run: {BASE}/log" in failed["message"]
    assert late["title"] == f"The run is late · hour {RUN}"
    assert "not finished 50 minutes after it was queued" in late["message"]
    assert "runbooks/deadline_missed/" in late["message"]


def test_a_file_of_rules_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "rules.yaml"
    settings = config.load(home=tmp_path, alerts=config.Alerts(rules=mine))
    with pytest.raises(SettingsError, match="can't be read"):
        load(settings)
    shipped = yaml.safe_load(SHIPPED.read_text())
    shipped["review_queue"]["severity"] = "loud"
    mine.write_text(yaml.safe_dump(shipped))
    with pytest.raises(SettingsError, match=r"review_queue\.severity"):
        load(settings)
    shipped["review_queue"] |= {"severity": "info", "what": "{nosuch} pairs", "threshold": -1}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(shipped))
    with pytest.raises(SettingsError, match="nosuch"):
        alerts.found(
            Lake(settings.lake_uri), manifest(), settings.model_copy(update={"alerts": config.Alerts(rules=other)})
        )
    unknown = settings.model_copy(update={"alerts": config.Alerts(thresholds={"run_failed": 1})})
    with pytest.raises(SettingsError, match=r"run_failed, which is no rule with a threshold"):
        load(unknown)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_runbook(rule: str) -> None:
    text = (PROJECT / "docs" / "runbooks" / f"{rule}.md").read_text()
    parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert parts == ["Symptom", "Causes", "What to look at", "Remedy", "Who"]
    assert text.startswith(f"# {rule}\n")
    looked = text.partition("## What to look at")[2].partition("## Remedy")[0]
    assert "```sh" in looked, "a runbook gives commands"
    assert yaml.safe_load(SHIPPED.read_text())[rule]["owner"] in text.partition("## Who")[2]


def test_the_list_of_runbooks_is_that_of_the_rules() -> None:
    listed = (PROJECT / "docs" / "runbooks" / "index.md").read_text()
    rules = yaml.safe_load(SHIPPED.read_text())
    for name, rule in rules.items():
        assert f"| [{name}]({name}.md) | {rule['severity']} | {rule['owner']} |" in listed


def test_a_failure_is_told_even_where_the_rules_can_not_be_used(settings: Settings) -> None:
    own = settings.alerts.model_copy(update={"rules": settings.home / "nosuch.yaml", "thresholds": {"nosuch": 1}})
    broken = settings.model_copy(update={"alerts": own})
    where = {"run_id": RUN, "dag_id": "dedup_hourly", "task_id": "alert"}
    pipeline.alert_failure(broken, **where, message="The rules can't be read.", log_url=f"{BASE}/log")
    pipeline.alert_deadline(broken, run_id=RUN, minutes=50, run_url=BASE)
    failed, late = received(settings)
    assert failed["title"] == f"dedup_hourly.alert failed · hour {RUN}"
    assert "nosuch.yaml can't be read" in failed["message"]
    assert late["title"] == f"The run is late · hour {RUN}"
