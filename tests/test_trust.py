"""What an hour must never do: overrule a veto, join in silence, go back in time, or fall over where a store is away."""

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filelock import FileLock
from homes import full_disk, up_to_clusters, up_to_decisions

from sosie import features, pipeline, tables
from sosie.errors import IndexUnavailable, StoreBusy, TerminalError
from sosie.index import open_index, server
from sosie.judgements import judge
from sosie.lake import Lake
from sosie.pipeline.run import Staging
from sosie.settings import Settings, load

FIRST, SECOND, THIRD = (f"2026-01-05T0{hour}" for hour in range(3))
FEED = {"seller_id": "s1", "price": 10.0, "currency": "EUR"}
KETTLE = "Acme kettle 1 litre steel"


def land(landing: Path, hour: str, *rows: dict[str, object], name: str = "rows.csv") -> None:
    path = landing / hour / name
    path.parent.mkdir(parents=True, exist_ok=True)
    at = {"updated_at": f"{hour}:10:00Z"}
    pl.DataFrame([FEED | at | row for row in rows], infer_schema_length=None).write_csv(path)


def run_of(landing: Path, hour: str, **settings: object) -> pipeline.Run:
    return pipeline.Run.of(hour, settings=load(home=landing.parent / "home", landing=landing, **settings))


def clusters(lake: Lake) -> dict[str, str]:
    return dict(lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Path]:
    """Three copies of one kettle at the first hour; the index's server stays up between the hours."""
    folder = tmp_path / "landing"
    land(folder, FIRST, *({"listing_id": f"a{n}", "title": KETTLE} for n in range(3)))
    with server.serve(run_of(folder, FIRST).settings):
        yield folder


def test_a_veto_holds_when_both_sides_are_embedded_anew(landing: Path) -> None:
    first = run_of(landing, FIRST)
    up_to_clusters(first)
    assert len(set(clusters(first.lake).values())) == 1
    judge(first.lake, "a0", "a1", "different", "ann")
    for hour, title in ((SECOND, "ACME kettle, 1 litre, steel"), (THIRD, "Acme steel kettle of 1 litre")):
        at = {"updated_at": f"{hour}:20:00Z"}
        land(landing, hour, *({"listing_id": f"a{n}", "title": title, **at} for n in range(3)))
        run = run_of(landing, hour)
        up_to_clusters(run)
        held = clusters(run.lake)
        assert held.get("a0") is None or held.get("a0") != held.get("a1")
        veto = run.lake.read(tables.PAIRS, pl.col("left_id") == "a0", pl.col("right_id") == "a1")
        assert veto.select("verdict", "score").rows() == [("no_match", 0.0)]
    kept = run.lake.read(tables.HELD_MERGES)
    assert kept.height >= 1, "the third copy can go with one of them only, and the other match is kept for a person"
    assert set(kept["cause"]) <= {"judged_different", "weak_link"}


def test_what_a_size_limit_keeps_apart_waits_for_a_person_with_its_cause(landing: Path) -> None:
    land(landing, FIRST, *({"listing_id": f"b{n}", "title": KETTLE} for n in range(3)), name="more.csv")
    run = run_of(landing, FIRST, clusters={"max_size": 3})
    up_to_clusters(run)
    sizes = run.lake.read(tables.CLUSTERS).group_by("cluster_id").len()["len"]
    assert sizes.max() <= 3
    held = run.lake.read(tables.HELD_MERGES)
    assert set(held["cause"]) == {"cluster_too_large"}
    matches = run.lake.read(tables.PAIRS, pl.col("verdict") == "match").height
    group = clusters(run.lake)
    apart = [row for row in held.iter_rows(named=True) if group.get(row["left_id"], "") != group.get(row["right_id"])]
    assert len(apart) == held.height < matches


def test_clusters_that_merge_say_which_they_were(landing: Path) -> None:
    drill = "Bolt drill 500 W with case"
    land(landing, FIRST, *({"listing_id": f"b{n}", "title": drill} for n in range(2)), name="more.csv")
    run = run_of(landing, FIRST)
    up_to_clusters(run)
    before = clusters(run.lake)
    assert before["a0"] != before["b0"]
    land(landing, SECOND, *({"listing_id": f"b{n}", "title": KETTLE} for n in range(2)))
    run = run_of(landing, SECOND)
    up_to_clusters(run)
    merged = run.lake.read(tables.CLUSTER_EVENTS, pl.col("kind") == "merged")
    assert merged["before"].to_list() == [sorted({before["a0"], before["b0"]})]
    assert set(clusters(run.lake).values()) == {before["a0"]}, "the oldest listing's id stays"


def test_hours_that_were_missed_are_taken_in_the_order_of_their_events(landing: Path) -> None:
    # The file of a later hour was written first, and its name sorts first.
    land(landing, THIRD, {"listing_id": "a0", "title": "third title"}, name="a.csv")
    land(landing, SECOND, {"listing_id": "a0", "title": "second title"}, name="z.csv")
    run = run_of(landing, THIRD)
    up_to_clusters(run)
    held = run.lake.lookup(tables.LISTINGS, "listing_id", ["a0"]).row(0, named=True)
    assert (held["title"], held["first_seen_run"]) == ("third title", THIRD)
    counts = pipeline.manifest(run)["steps"]
    superseded = next(step for step in counts if step["name"] == "detect_changes")["counts"]["superseded"]
    assert superseded == 2


def test_a_backfill_never_makes_a_listing_older(landing: Path) -> None:
    (landing / FIRST).rename(landing.parent / "late")
    land(landing, SECOND, {"listing_id": "a0", "title": "newest title"})
    late = run_of(landing, SECOND)
    up_to_clusters(late)
    (landing.parent / "late").rename(landing / FIRST)
    early = run_of(landing, FIRST)
    up_to_clusters(early)
    held = early.lake.lookup(tables.LISTINGS, "listing_id", ["a0"]).row(0, named=True)
    assert (held["title"], held["updated_at"].hour) == ("newest title", 1)
    version = early.lake.version(tables.LISTINGS)
    up_to_clusters(late)
    up_to_clusters(early)
    assert early.lake.version(tables.LISTINGS) == version, "doing both hours again changes nothing"
    with open_index(early.settings) as index:
        assert set(index.ids("text")) == {"a0", "a1", "a2"}


def test_a_second_run_of_one_home_waits_its_turn_and_then_says_so(landing: Path) -> None:
    run = run_of(landing, FIRST, run_lock_seconds=0.2)
    with FileLock(run.settings.home / "run.lock"), pytest.raises(StoreBusy, match="another process that is running"):
        pipeline.run_all(run)
    assert pipeline.validate(run)["rows_read"] == 3

    waiting = run_of(landing, FIRST, run_lock_seconds=60.0)
    lock = FileLock(run.settings.home / "run.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    assert pipeline.detect_changes(waiting)["new"] == 3


def test_a_milvus_that_is_away_stops_the_hour_which_goes_on_later(landing: Path) -> None:
    away = run_of(landing, FIRST, milvus_uri="http://127.0.0.1:9", milvus_timeout_seconds=1.0)
    pipeline.validate(away)
    pipeline.detect_changes(away)
    for part in pipeline.shards(away):
        pipeline.embed(away, **part)
    with pytest.raises(IndexUnavailable, match="No Milvus answers"):
        pipeline.upsert_vectors(away)
    said = pipeline.left_behind(away)
    assert "validate, detect_changes, embed" in said
    assert f"sosie run --landing {landing} --hour {FIRST}" in said
    again = run_of(landing, FIRST)
    up_to_clusters(again)
    assert set(clusters(again.lake)) == {"a0", "a1", "a2"}


def test_an_embedded_milvus_that_is_killed_between_steps_comes_back_with_all_it_held(landing: Path) -> None:
    run = run_of(landing, FIRST)
    pipeline.validate(run)
    pipeline.detect_changes(run)
    for part in pipeline.shards(run):
        pipeline.embed(run, **part)
    pipeline.upsert_vectors(run)
    victim = server.process(run.settings)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    pipeline.match(run)
    pipeline.cluster(run)
    assert set(clusters(run.lake)) == {"a0", "a1", "a2"}


def test_scratch_that_a_failure_of_the_power_left_empty_counts_as_not_written(landing: Path) -> None:
    run = run_of(landing, FIRST)
    pipeline.validate(run)
    scratch = Path(run.staging.uri)
    for name in ("accepted.parquet", "validate-0.json"):
        (scratch / name).write_bytes(b"")
    assert run.staging.records() == []
    with pytest.raises(TerminalError, match="run this hour from its first step"):
        pipeline.detect_changes(run)
    up_to_clusters(run)
    assert set(clusters(run.lake)) == {"a0", "a1", "a2"}


def test_a_full_disk_stops_the_write_and_keeps_nothing_of_it(landing: Path) -> None:
    run = run_of(landing, FIRST)
    pipeline.validate(run)
    with full_disk(2_000), pytest.raises(StoreBusy, match="Make room"):
        pipeline.detect_changes(run)
    assert run.lake.read(tables.LISTINGS).is_empty()
    up_to_clusters(run)
    assert set(clusters(run.lake)) == {"a0", "a1", "a2"}


@pytest.mark.parametrize("write", [Lake.append, Lake.upsert])
def test_a_disk_that_is_full_amid_a_file_of_a_table_is_told(tmp_path: Path, write: Callable[..., object]) -> None:
    lake, rows = Lake(str(tmp_path)), pl.DataFrame({"run_id": map(str, range(50_000)), "state": "succeeded"})
    rows = pl.concat([tables.RUNS.schema.to_frame(), rows], how="diagonal")
    lake.create([tables.RUNS])
    with full_disk(100_000), pytest.raises(StoreBusy, match=r"Table runs can't .*File too large.*Make room"):
        write(lake, tables.RUNS, rows)
    assert lake.read(tables.RUNS).is_empty()
    write(lake, tables.RUNS, rows)
    assert lake.read(tables.RUNS).height == rows.height


def test_a_disk_that_is_full_amid_a_file_of_scratch_is_told(tmp_path: Path) -> None:
    staging, rows = Staging(str(tmp_path)), pl.DataFrame({"number": np.random.default_rng(0).random(50_000)})
    with full_disk(100_000), pytest.raises(StoreBusy, match=r"rows\.parquet can't .*File too large.*Make room"):
        staging.put("rows", rows)
    with pytest.raises(TerminalError, match="is not there"):
        staging.get("rows")
    staging.put("rows", rows)
    assert staging.get("rows").equals(rows)


def test_a_feast_that_another_process_holds_is_waited_for_and_then_told(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(landing, FIRST)
    up_to_clusters(run)
    monkeypatch.setattr(features, "_LOCK_SECONDS", 0.2)
    (run.settings.home / "feast").mkdir(exist_ok=True)
    with FileLock(run.settings.home / "feast" / "write.lock"), pytest.raises(StoreBusy, match="writing features"):
        pipeline.publish_features(run)
    features.apply(run.settings)
    online = next((run.settings.home / "feast").glob("online*"))
    with sqlite3.connect(online) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy, match="online store can't be used"):
            pipeline.publish_features(run)
        other.rollback()
    assert pipeline.publish_features(run)["decision_rows"] == 3
    assert features.lookup(run.settings, ["a0"])["cluster_id"].item() == clusters(run.lake)["a0"]


def test_what_an_ended_hour_published_is_not_compared_again_but_what_a_later_try_of_it_left_is(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, publish = [], features.publish

    def seen(settings: Settings, text: pl.DataFrame, image: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, int]:
        asked.append(sorted(decisions["listing_id"]))
        return publish(settings, text, image, decisions)

    monkeypatch.setattr(features, "publish", seen)
    pipeline.run_all(run_of(landing, FIRST))
    pipeline.run_all(run_of(landing, SECOND))
    land(landing, FIRST, {"listing_id": "a3", "title": KETTLE}, name="later.csv")
    died = run_of(landing, FIRST)
    up_to_decisions(died)
    pipeline.run_all(run_of(landing, THIRD))
    assert asked == [["a0", "a1", "a2"], [], ["a0", "a1", "a2", "a3"]]
    assert features.lookup(died.settings, ["a3"])["cluster_id"].item() == clusters(died.lake)["a3"]


def test_what_the_very_first_hour_decided_before_it_died_the_next_one_publishes(landing: Path) -> None:
    died = run_of(landing, FIRST)
    up_to_decisions(died)
    pipeline.run_all(run_of(landing, SECOND))
    told = features.lookup(died.settings, ["a0", "a1", "a2"])
    assert dict(told.select("listing_id", "cluster_id").iter_rows()) == clusters(died.lake)
