"""`sosie doctor` on a home that a real hour made, whole and with each of its parts broken for real."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from sosie import doctor, features, pipeline, rebuild, tables
from sosie import settings as config
from sosie.cli import app
from sosie.doctor import stores
from sosie.errors import TerminalError
from sosie.index import open_index
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings, load
from sosie.simulate import Marketplace, write
from sosie.upkeep import upkeep

HOUR = "2026-01-05T00"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one hour done."""
    home = tmp_path_factory.mktemp("whole")
    write(home / "market", Marketplace(listings=60, hours=1, seed=5, with_pictures=False))
    shutil.copytree(home / "market" / "landing", home / "landing")
    hour = min(path.name for path in (home / "landing").iterdir())
    pipeline.run_all(pipeline.Run.of(hour, settings=load(home=home)))
    return home


@pytest.fixture
def settings(whole: Path, tmp_path: Path) -> Settings:
    """A copy of it to break."""
    shutil.copytree(whole, tmp_path / "home")
    features._store.cache_clear()
    return load(home=tmp_path / "home")


def faults(settings: Settings, check: str) -> list[doctor.Finding]:
    found = list(doctor.examine(settings, (check,)))
    assert {one.check for one in found} == {check}
    for one in found:
        assert (one.state == "ok") == (not one.remedy)
        assert one.remedy == "" or one.remedy.endswith("."), one
    return [one for one in found if one.state == "fault"]


def test_a_home_that_works_has_no_fault(settings: Settings) -> None:
    found = [one for name in doctor.CHECKS if name != "airflow" for one in doctor.examine(settings, (name,))]
    # The copy lies elsewhere, so the record of what was applied is not that of this home.
    assert {one.check for one in found if one.state == "fault"} <= {"features"}
    assert {one.check for one in found} == set(doctor.CHECKS) - {"airflow"}
    features.apply(settings)
    assert faults(settings, "features") == []


def test_the_online_store_is_held_against_what_was_decided_last(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    decided = lake.read(tables.DECISIONS)
    corrected = decided.with_columns(
        is_duplicate=~pl.col("is_duplicate"), created_timestamp=pl.col("created_timestamp") + timedelta(hours=1)
    )
    lake.append(tables.DECISIONS, corrected)
    features.publish(
        settings, tables.TEXT_EMBEDDINGS.schema.to_frame(), tables.IMAGE_EMBEDDINGS.schema.to_frame(), corrected
    )
    assert faults(settings, "features") == []


def test_what_the_next_hour_is_still_to_tell_is_no_fault(settings: Settings) -> None:
    features.apply(settings)
    lake = Lake(settings.lake_uri)
    vetoed = lake.read(tables.DECISIONS, pl.col("is_duplicate")).with_columns(
        is_duplicate=False,
        canonical_id=pl.lit(None, pl.String),
        event_timestamp=pl.col("event_timestamp") + timedelta(seconds=1),
        created_timestamp=pl.lit(datetime.now(UTC)),
    )
    assert vetoed.height
    lake.append(tables.DECISIONS, vetoed)
    assert faults(settings, "features") == []
    ended = lake.read(tables.RUNS).with_columns(finished_at=pl.lit(datetime.now(UTC)))
    lake.upsert(tables.RUNS, ended)
    (found,) = faults(settings, "features")
    assert "otherwise than the lake" in found.detail


def no_landing(settings: Settings) -> Settings:
    shutil.rmtree(settings.landing)
    return settings


def lake_is_a_file(settings: Settings) -> Settings:
    shutil.rmtree(settings.lake_uri)
    Path(settings.lake_uri).write_text("no folder")
    return settings


def a_table_lost_its_files(settings: Settings) -> Settings:
    for file in Path(settings.lake_uri, "listings").glob("*.parquet"):
        file.unlink()
    return settings


def a_table_is_cut_short(settings: Settings) -> Settings:
    for file in Path(settings.lake_uri, "listings").glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    return settings


def a_model_is_damaged(settings: Settings) -> Settings:
    models = settings.home / "models"
    shutil.copytree(PROJECT / "models", models)
    with (models / "text" / "encoder.onnx").open("ab") as stream:
        stream.write(b"!")
    return settings.model_copy(update={"models": models})


def there_are_no_models(settings: Settings) -> Settings:
    return settings.model_copy(update={"models": settings.home / "nowhere"})


def vectors_are_missing(settings: Settings) -> Settings:
    lake = Lake(settings.lake_uri)
    one = lake.read(tables.TEXT_EMBEDDINGS).head(1)
    lake.delete(tables.TEXT_EMBEDDINGS, one.select("listing_id"))
    return settings


def milvus_is_away(settings: Settings) -> Settings:
    return settings.model_copy(update={"milvus_uri": "http://127.0.0.1:9", "milvus_timeout_seconds": 1.0})


def the_index_lost_a_vector(settings: Settings) -> Settings:
    with open_index(settings) as index:
        index.delete("text", [next(iter(index.ids("text")))])
    return settings


def the_alias_serves_another_version(settings: Settings) -> Settings:
    with open_index(settings) as index:
        index.create("text", "0123456789ab")
        index.promote("text", "0123456789ab")
    return settings


def the_online_store_is_lost(settings: Settings) -> Settings:
    features.apply(settings)
    features._store.cache_clear()
    (settings.home / "feast" / "online.db").unlink()
    features.apply(settings)
    return settings


def the_online_store_is_damaged(settings: Settings) -> Settings:
    features.apply(settings)
    features._store.cache_clear()
    (settings.home / "feast" / "online.db").write_bytes(b"no database" * 100)
    return settings


def the_registry_is_damaged(settings: Settings) -> Settings:
    features.apply(settings)
    features._store.cache_clear()
    (settings.home / "feast" / "registry.db").write_bytes(b"no registry" * 100)
    return settings


def the_catalogue_is_lost(settings: Settings) -> Settings:
    shutil.rmtree(Path(settings.lake_uri) / "listings")
    return settings


def milvus_can_not_be_written(settings: Settings) -> Settings:
    shutil.rmtree(settings.home / "milvus")
    (settings.home / "milvus").write_text("no folder")
    return settings


def no_registry(settings: Settings) -> Settings:
    shutil.rmtree(settings.home / "feast")
    return settings


def an_unknown_channel(settings: Settings) -> Settings:
    return settings.model_copy(update={"alerts": config.Alerts(urls=("nosuch://t0ken",))})


def unusable_rules(settings: Settings) -> Settings:
    return settings.model_copy(update={"alerts": config.Alerts(thresholds={"nosuch": 1})})


def the_clock_is_behind(settings: Settings) -> Settings:
    run = {"run_id": HOUR, "state": "succeeded", "finished_at": datetime.now(UTC) + timedelta(days=1)}
    Lake(settings.lake_uri).upsert(tables.RUNS, pl.DataFrame([run], schema=tables.RUNS.schema))
    return settings


def the_clusters_are_lost(settings: Settings) -> Settings:
    shutil.rmtree(Lake(settings.lake_uri).path(tables.CLUSTERS))
    return settings


def reports_can_not_be_written(settings: Settings) -> Settings:
    shutil.rmtree(settings.reports)
    settings.reports.write_text("no folder")
    return settings


@pytest.mark.parametrize(
    ("check", "broken", "detail", "remedy"),
    [
        ("landing", no_landing, "is no folder", "SOSIE_LANDING"),
        ("lake", lake_is_a_file, "can't be written", "SOSIE_LAKE_URI"),
        ("lake", a_table_lost_its_files, "Table listings can't be read", "backup"),
        ("lake", the_catalogue_is_lost, "Table listings is gone from", "Restore its folder"),
        ("lake", the_clusters_are_lost, "Table clusters is gone from", "Restore its folder"),
        ("lake", a_table_is_cut_short, "Table listings can't be read", "backup"),
        ("models", there_are_no_models, "which is no folder", "SOSIE_MODELS"),
        ("models", a_model_is_damaged, "encoder.onnx is missing or is not the file", "git checkout"),
        ("versions", vectors_are_missing, "1 live listings have no text vector", "sosie rebuild"),
        ("index", milvus_is_away, "No Milvus answers", "leave that unset"),
        ("index", the_index_lost_a_vector, "vectors, the lake has", "sosie rebuild"),
        ("index", the_alias_serves_another_version, "serves version 0123456789ab", "SOSIE_MODELS"),
        ("features", the_online_store_is_lost, "otherwise than the lake", "sosie upkeep"),
        ("features", the_online_store_is_damaged, "online store in", "Remove online.db there"),
        ("features", the_registry_is_damaged, "registry in", "Remove registry.db and applied.json there"),
        ("features", no_registry, "registry is not there", "publish_features"),
        ("alerts", an_unknown_channel, "Apprise can't use", "SOSIE_ALERTS__URLS"),
        ("alerts", unusable_rules, "nosuch", "."),
        ("clock", the_clock_is_behind, "This clock says", "NTP"),
        ("disk", milvus_can_not_be_written, "milvus can't be written", "right to write"),
        ("disk", reports_can_not_be_written, "can't be written", "right to write"),
    ],
)
def test_each_fault_is_found_with_its_remedy(
    check: str, broken: Callable[[Settings], Settings], detail: str, remedy: str, settings: Settings
) -> None:
    (found,) = faults(broken(settings), check)
    assert detail in found.detail
    assert remedy in found.remedy
    assert "t0ken" not in found.detail


@pytest.mark.parametrize(("lose", "table"), [(the_catalogue_is_lost, "listings"), (the_clusters_are_lost, "clusters")])
def test_nothing_takes_a_lost_table_for_an_empty_one(
    lose: Callable[[Settings], Settings], table: str, settings: Settings
) -> None:
    lose(settings)
    for going_on in (
        lambda: pipeline.run_all(pipeline.Run.of(HOUR, settings=settings)),
        lambda: rebuild.in_place(settings),
        lambda: upkeep(settings),
    ):
        with pytest.raises(TerminalError, match=rf"Table {table} is gone from .* Restore its folder from a backup\."):
            going_on()
    with open_index(settings) as index:
        assert index.count("text") > 0


def test_pairs_that_are_lost_are_told_and_decided_again_by_the_next_hour(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    before = {table.name: lake.read(table).sort(table.key) for table in (tables.PAIRS, tables.CLUSTERS)}
    events = lake.read(tables.CLUSTER_EVENTS)
    shutil.rmtree(lake.path(tables.PAIRS))
    assert [one.detail for one in stores.lake(settings) if one.state == "warning"] == [
        f"Table pairs is gone from {settings.lake_uri}, while what was made of it is there."
    ]
    (settings.landing / "2026-01-06T00").mkdir()
    pipeline.run_all(pipeline.Run.of("2026-01-06T00", settings=settings))
    now = {table.name: lake.read(table).sort(table.key) for table in (tables.PAIRS, tables.CLUSTERS)}
    assert_frame_equal(now["pairs"].drop("run_id"), before["pairs"].drop("run_id"))
    assert_frame_equal(now["clusters"], before["clusters"])
    assert_frame_equal(lake.read(tables.CLUSTER_EVENTS), events)


def test_a_disk_that_fills_up_is_told_before_it_is_full(settings: Settings) -> None:
    assert next(one.state for one in stores.disk(settings, wanted=2**70)) == "warning"
    assert next(one.state for one in stores.disk(settings, least=2**70)) == "fault"


def test_alerts_that_were_given_up_and_an_audience_of_none_are_warned_of(settings: Settings) -> None:
    dead = {"key": f"x:{HOUR}", "severity": "info", "text": "t", "channel": "c", "state": "dead", "attempts": 9}
    Lake(settings.lake_uri).upsert(tables.ALERTS, pl.DataFrame([dead], schema=tables.ALERTS.schema))
    told = [one.detail for one in doctor.examine(settings, ("alerts",)) if one.state == "warning"]
    assert any("nobody but the console" in detail for detail in told)
    assert any("1 alerts were given up" in detail for detail in told)
    assert not any("no longer set" in detail for detail in told)


def test_alerts_that_wait_for_a_channel_that_is_gone_are_warned_of(settings: Settings) -> None:
    failed = {"key": f"x:{HOUR}", "severity": "info", "text": "t", "state": "failed", "attempts": 1}
    rows = [failed | {"channel": channel} for channel in ("console", "json://old#000000")]
    Lake(settings.lake_uri).upsert(tables.ALERTS, pl.DataFrame(rows, schema=tables.ALERTS.schema))
    told = {one.detail: one.remedy for one in doctor.examine(settings, ("alerts",)) if one.state == "warning"}
    remedy = told["1 alerts wait for channels that are no longer set: json://old#000000."]
    assert "sosie alerts --resend" in remedy


def test_dags_parse_and_one_that_does_not_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(settings.home / "airflow"))
    assert faults(settings, "airflow") == []
    dags = settings.home / "dags"
    dags.mkdir()
    (dags / "broken.py").write_text("from airflow.sdk import dag\nraise RuntimeError('no good')\n")
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(dags))
    (broken,) = faults(settings, "airflow")
    assert ("no good" in broken.detail, "Mend that file" in broken.remedy) == (True, True)
    (dags / "broken.py").write_text("from sosie.airflow import bridge\nbridge.schedule()  # of a dag\n")
    monkeypatch.setenv("SOSIE_SCHEDULE", "nonsense")
    (broken,) = faults(settings, "airflow")
    assert ("SOSIE_SCHEDULE" in broken.detail, "Mend what the error names" in broken.remedy) == (True, True)
    (dags / "broken.py").unlink()
    (missing,) = faults(settings, "airflow")
    assert "has no DAG dedup_hourly" in missing.detail


def test_the_shell_tells_in_a_table_and_in_json(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_HOME", str(settings.home))
    config.settings.cache_clear()
    shell = CliRunner(env={"COLUMNS": "160"})
    good = shell.invoke(app, ["doctor", "--only", "landing", "--only", "clock"])
    assert good.exit_code == 0, good.output
    assert "0 faults" in good.output
    shutil.rmtree(settings.landing)
    bad = shell.invoke(app, ["doctor", "--only", "landing", "--json"])
    assert bad.exit_code == 2
    told = json.loads(bad.output)
    assert told["faults"] == 1
    assert told["findings"][0]["remedy"].startswith("Make it")
    assert shell.invoke(app, ["doctor", "--only", "nosuch"]).exit_code == 2
    monkeypatch.setenv("SOSIE_BLOCKING__NOSUCH", "1")
    config.settings.cache_clear()
    unset = shell.invoke(app, ["doctor", "--json"])
    assert unset.exit_code == 2
    assert "nosuch" in json.loads(unset.output)["findings"][0]["detail"].lower()
    monkeypatch.delenv("SOSIE_BLOCKING__NOSUCH")
    (settings.home / "registry" / "live.json").write_text("{")
    config.settings.cache_clear()
    damaged = shell.invoke(app, ["doctor", "--json"])
    assert damaged.exit_code == 2
    assert "live.json is damaged" in json.loads(damaged.output)["findings"][0]["detail"]
    config.settings.cache_clear()
