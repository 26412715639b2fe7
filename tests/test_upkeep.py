"""Stores that were damaged on purpose, and what upkeep makes of them. All stores are real."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from structlog.testing import capture_logs

from sosie import features, pipeline, tables
from sosie.doctor import examine
from sosie.errors import StoreBusy
from sosie.features import online
from sosie.index import open_index, server
from sosie.lake import Delta, Lake
from sosie.page.store import Store
from sosie.page.thumbnails import SMALL, Pictures
from sosie.pipeline.embed import version
from sosie.pipeline.ingest import thumbnails
from sosie.pipeline.publish import record
from sosie.settings import Settings, Upkeep, load
from sosie.simulate import Marketplace, write
from sosie.upkeep import PARTS, begin, delta, forget_history, forget_pictures, upkeep
from sosie.upkeep.versions import last_use
from sosie.vectors import matrix

OLD = time.time() - 90 * 86_400


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Two hours of a small marketplace, of which upkeep holds a few listings at a time; the index's server stays up."""
    market, home = tmp_path_factory.mktemp("market"), tmp_path_factory.mktemp("home")
    write(market, Marketplace(listings=60, hours=2, seed=5, with_pictures=False))
    given = load(home=home, landing=market / "landing", upkeep={"retention_hours": 0}, rebuild={"chunk": 7})
    with server.serve(given):
        for hour in sorted(place.name for place in (market / "landing").glob("*T*")):
            pipeline.run_all(pipeline.Run.of(hour, settings=given))
        yield given


def live(lake: Lake) -> list[str]:
    return lake.read(tables.LISTINGS, ~pl.col("is_deleted"))["listing_id"].sort().to_list()


def online_rows(settings: Settings, view: str) -> int:
    import sqlite3

    with sqlite3.connect(settings.home / "feast" / "online.db") as connection:
        return connection.execute(f'SELECT COUNT(DISTINCT entity_key) FROM "sosie_{view}"').fetchone()[0]


def test_damage_in_every_store_is_found_mended_and_told(settings: Settings) -> None:
    lake, stamp = Lake(settings.lake_uri), version(settings, "text")
    upkeep(settings)  # whatever the hours left to tidy
    ids = live(lake)
    clusters_before = lake.read(tables.CLUSTERS).sort("listing_id")
    dead = lake.read(tables.LISTINGS, pl.col("is_deleted"))["listing_id"]
    assert len(dead) > 0
    assert online_rows(settings, f"text_embedding_{stamp}") == len(ids), "vectors of deleted listings are gone"

    # Lost, wrong and stray rows in the index; an alias on the wrong version; vectors lost in the lake; decisions and
    # vectors lost online; a pair of a listing that nobody knows.
    rng = np.random.default_rng(0)
    wrong = rng.normal(size=(2, tables.DIM)).astype(np.float32)
    wrong /= np.linalg.norm(wrong, axis=1, keepdims=True)
    with open_index(settings) as index:
        index.delete("text", ids[:3])
        index.upsert("text", [ids[3], "stray"], wrong)
        index.create("text", "0therversion")
        index.promote("text", "0therversion")
    lake.delete(tables.TEXT_EMBEDDINGS, pl.DataFrame({"listing_id": ids[10:14]}))
    shown = lake.read(tables.CLUSTERS)["listing_id"].head(5).to_list()
    import sqlite3

    with sqlite3.connect(settings.home / "feast" / "online.db") as connection:
        assert connection.execute("DELETE FROM sosie_decisions").rowcount > 0
    orphan = lake.read(tables.PAIRS).head(1).with_columns(left_id=pl.lit("!nobody"))
    lake.append(tables.PAIRS, orphan)
    assert features.lookup(settings, shown)["cluster_id"].null_count() == len(shown)

    told = upkeep(settings)
    found = told["check_stores"]
    assert found["text_embedded"] == 4
    assert found["text_astray"] == 4  # three lost, one stray
    assert found["text_mended"] == 5  # and the wrong one
    assert found["text_held"] == found["text_live"] == len(ids)
    assert found["pairs_orphaned"] == 1
    assert found["online_mended"] >= len(shown)
    with open_index(settings) as index:
        assert index.version("text") == stamp
        assert sorted(index.ids("text")) == ids
        rows = lake.read(tables.TEXT_EMBEDDINGS, pl.col("embedding_version") == stamp)
        now = lake.read(tables.LISTINGS, ~pl.col("is_deleted")).join(
            rows, left_on=["listing_id", "text_hash"], right_on=["listing_id", "content_hash"]
        )
        held = now.unique("listing_id")
        assert index.upsert("text", held["listing_id"].to_list(), matrix(held)).rows == 0
    assert features.lookup(settings, shown)["cluster_id"].null_count() == 0
    assert lake.read(tables.CLUSTERS).sort("listing_id").equals(clusters_before)

    again = upkeep(settings)["check_stores"]
    changed = {
        name: n for name, n in again.items() if n and name.endswith(("mended", "orphaned", "embedded", "astray"))
    }
    assert changed == {}
    manifests = lake.read(tables.RUNS, pl.col("state") == "upkeep").sort("run_id")
    assert manifests.height >= 2
    steps = {step["name"] for step in manifests.row(-1, named=True)["steps"]}
    assert steps == {part.__name__ for part in PARTS}


def test_an_online_store_that_no_row_can_be_taken_out_of_stops_no_upkeep(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(online, "kind", lambda _: "dynamodb")
    with capture_logs() as logs:
        upkeep(settings)
    (told,) = (log for log in logs if log["event"] == "vectors of what is gone stay online")
    assert "the online store is dynamodb" in told["reason"]
    (warned,) = (one for one in examine(settings, ("features",)) if one.state == "warning")
    assert warned.detail.endswith("stay in the online store, as it is dynamodb.")


def test_an_hour_runs_as_ever_after_upkeep(settings: Settings) -> None:
    upkeep(settings)
    lake = Lake(settings.lake_uri)
    before = {table.name: lake.version(table) for table in tables.ALL}
    hour = lake.read(tables.RUNS, pl.col("state") == "succeeded")["run_id"].max()
    pipeline.run_all(pipeline.Run.of(hour, settings=settings))
    assert {table.name: lake.version(table) for table in tables.ALL} == before


def test_tables_are_few_files_and_hold_the_same_rows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    row = {"key": "k", "severity": "info", "text": "", "channel": "c", "state": "sent", "attempts": 1, "run_id": "r"}
    for number in range(12):
        lake.upsert(tables.ALERTS, pl.DataFrame([{**row, "key": str(number)}], schema=tables.ALERTS.schema))
        lake.upsert(
            tables.ALERTS, pl.DataFrame([{**row, "key": str(number), "text": "x"}], schema=tables.ALERTS.schema)
        )
    before = lake.read(tables.ALERTS).sort("key")
    folder = Path(lake.path(tables.ALERTS))
    parquet = len(list(folder.glob("*.parquet")))
    told = delta.compact(lake, tables.ALERTS, 0)
    assert told["files_before"] == 12
    assert told["files_after"] == len(list(folder.glob("*.parquet"))) == 1
    assert told["files_removed"] == parquet  # all but the merged one
    assert lake.read(tables.ALERTS).sort("key").equals(before)
    assert delta.compact(lake, tables.ALERTS, 0)["files_removed"] == 0
    assert delta.compact(lake, tables.PAIRS, 0) == {"files_before": 0, "files_after": 0, "files_removed": 0}
    kept = Lake(str(tmp_path / "kept"))
    kept.upsert(tables.ALERTS, before)
    kept.upsert(tables.ALERTS, before.with_columns(text=pl.lit("y")))
    assert delta.compact(kept, tables.ALERTS, 24)["files_removed"] == 0, "younger than the retention"


def written_over(lake: Lake, *texts: str) -> Path:
    """A table whose one row was written over, each time with another text; returns its folder."""
    row = {"key": "k", "severity": "info", "channel": "c", "state": "sent", "attempts": 1, "run_id": "r"}
    for text in texts:
        lake.upsert(tables.ALERTS, pl.DataFrame([row | {"text": text}], schema=tables.ALERTS.schema))
    return Path(lake.path(tables.ALERTS))


def age(folder: Path, *, written: int, removed: int) -> None:
    """Let files be of so many days ago, and let those that no version has now have gone so many days ago."""
    at = {name: time.time() - days * 86_400 for name, days in (("written", written), ("removed", removed))}
    for log in folder.glob("_delta_log/*.json"):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for gone in (line["remove"] for line in lines if "remove" in line):
            gone["deletionTimestamp"] = int(at["removed"] * 1000)
        log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for file in folder.glob("*.parquet"):
        os.utime(file, (at["written"], at["written"]))


def test_files_go_that_only_a_version_from_before_the_retention_had(tmp_path: Path) -> None:
    """Also where a checkpoint has forgotten that they were removed, as Delta's own do after a week."""
    lake = Lake(str(tmp_path / "lake"))
    folder = written_over(lake, "a", "b", "c")
    age(folder, written=8, removed=8)
    Delta(str(folder)).create_checkpoint()
    assert delta.compact(lake, tables.ALERTS, 30 * 24)["files_removed"] == 0
    assert delta.compact(lake, tables.ALERTS, 7 * 24)["files_removed"] == 2
    assert [file.stat().st_size > 0 for file in folder.glob("*.parquet")] == [True]


def test_a_long_retention_keeps_files_that_were_removed_within_it(tmp_path: Path) -> None:
    """However long ago they were written, and whatever checkpoints were made meanwhile."""
    lake = Lake(str(tmp_path / "lake"))
    folder = written_over(lake, "a", "b")
    version = lake.version(tables.ALERTS)
    age(folder, written=90, removed=10)
    for _ in range(2):
        assert delta.compact(lake, tables.ALERTS, 30 * 24)["files_removed"] == 0
    assert lake.scan(tables.ALERTS, as_of=version - 1).collect()["text"].to_list() == ["a"]


def test_files_of_writers_that_died_go_and_those_of_today_stay(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    folder = written_over(lake, "a")
    (file,) = folder.glob("*.parquet")
    dead, at_work = (Path(shutil.copy(file, folder / f"part-{name}.parquet")) for name in ("dead", "at-work"))
    os.utime(dead, (OLD, OLD))
    assert delta.compact(lake, tables.ALERTS, 0)["files_removed"] == 1
    assert (dead.exists(), at_work.exists()) == (False, True)


def test_a_store_without_room_gets_some_before_any_table_is_compacted(tmp_path: Path, monkeypatch) -> None:
    given = load(home=tmp_path / "home", upkeep={"retention_hours": 0})
    lake = Lake(given.lake_uri)
    lake.create([tables.LISTINGS])
    folder = written_over(lake, "a", "b")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(delta, "_compact", full)
    with pytest.raises(StoreBusy, match=r"Table listings can't be written .*No space left"):
        delta.compact_tables(pipeline.Run("2026-01-05T00~upkeep", given))
    assert len(list(folder.glob("*.parquet"))) == 1


def test_versions_go_after_the_grace_time_and_not_before(settings: Settings) -> None:
    lake, now = Lake(settings.lake_uri), datetime.now(UTC)
    stamp = version(settings, "text")
    for name, age in (("gone", 30), ("lately", 1)):
        run = dict.fromkeys(tables.RUNS.columns) | {
            "run_id": f"2026-01-01T0{age % 10}", "state": "succeeded", "text_version": name, "image_version": "x",
            "finished_at": now - timedelta(days=age), "files": [], "steps": [],
        }  # fmt: skip
        lake.append(tables.RUNS, pl.DataFrame([run], schema=tables.RUNS.schema))
        rows = lake.read(tables.TEXT_EMBEDDINGS, pl.col("embedding_version") == stamp).head(5)
        rows = rows.with_columns(embedding_version=pl.lit(name), created_timestamp=pl.lit(now - timedelta(days=age)))
        lake.append(tables.TEXT_EMBEDDINGS, rows)
        with open_index(settings) as index:
            index.create("text", name)
    assert timedelta(days=29) < now - last_use(settings, lake, "text", "gone") < timedelta(days=31)
    told = upkeep(settings)["drop_versions"]
    assert (told["collections_dropped"], told["partitions_dropped"]) == (1, 0)
    with open_index(settings) as index:
        assert set(index.versions("text")) >= {stamp, "lately"}
        assert "gone" not in index.versions("text")
    harsh = settings.model_copy(update={"upkeep": settings.upkeep.model_copy(update={"vectors_days": 7.0})})
    assert upkeep(harsh)["drop_versions"]["partitions_dropped"] == 1
    stored = set(lake.read(tables.TEXT_EMBEDDINGS)["embedding_version"])
    assert stored == {stamp, "lately"}


def test_scratch_and_records_go_by_their_age(settings: Settings) -> None:
    staging = Path(settings.lake_uri) / "_staging"
    first, second = sorted(place for place in staging.iterdir() if "~" not in place.name)[:2]
    for folder, age in ((first, OLD), (second, time.time() - 3 * 86_400)):
        for file in folder.iterdir():
            os.utime(file, (age, age))
    assert (second / "accepted.parquet").exists()
    told = upkeep(settings)["clear_staging"]
    assert (told["data_cleared"], told["records_cleared"]) == (2, 1)
    assert told["bytes_cleared"] > 0
    assert not first.exists()
    assert {file.suffix for file in second.iterdir()} == {".json"}


def test_history_is_forgotten_only_where_asked_and_never_what_is_known_now(settings: Settings) -> None:
    lake, now = Lake(settings.lake_uri), datetime.now(UTC)
    stamp = version(settings, "text")
    one = live(lake)[0]
    held = lake.read(tables.TEXT_EMBEDDINGS, pl.col("listing_id") == one, pl.col("embedding_version") == stamp).head(1)
    for days in (500, 400):
        older = held.with_columns(
            content_hash=pl.lit(f"{days}"),
            event_timestamp=pl.lit(now - timedelta(days=days)),
            created_timestamp=pl.lit(now - timedelta(days=days)),
        )
        lake.append(tables.TEXT_EMBEDDINGS, older)
    assert upkeep(settings)["forget_history"]["vectors"] == 0
    yearly = settings.model_copy(update={"upkeep": settings.upkeep.model_copy(update={"history_days": 365.0})})
    told = upkeep(yearly)["forget_history"]
    assert told["vectors"] == 1, "the oldest was superseded 400 days ago; the next only when ours was written"
    left = lake.read(tables.TEXT_EMBEDDINGS, pl.col("listing_id") == one, pl.col("embedding_version") == stamp)
    assert "500" not in left["content_hash"].to_list()
    assert {"400", held["content_hash"][0]} <= set(left["content_hash"])

    for heard, forgotten in ((now, 0), (now - timedelta(days=399), 1)):
        deleted = lake.lookup(tables.LISTINGS, "listing_id", [one]).with_columns(
            is_deleted=pl.lit(True),
            updated_at=pl.lit(now - timedelta(days=400)),
            last_changed_run=pl.lit(f"{heard:%Y-%m-%dT%H}"),
        )
        lake.upsert(tables.LISTINGS, deleted)
        assert upkeep(yearly)["forget_history"]["listings"] == forgotten, "by when an hour heard of it, not by its date"


def embedded(run: pipeline.Run) -> None:
    pipeline.detect_changes(run)
    for part in pipeline.shards(run):
        pipeline.embed(run, **part)
    record(run, "succeeded")


def test_a_picture_goes_with_the_last_history_of_it_and_may_come_again(tmp_path: Path) -> None:
    landing, forever = tmp_path / "landing", load(home=tmp_path / "home", landing=tmp_path / "landing")
    settings = forever.model_copy(update={"upkeep": Upkeep(history_days=0)})
    (landing / "pictures").mkdir(parents=True)
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (80, 80), colour).save(landing / "pictures" / f"{colour}.png")
    digest = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in landing.rglob("*.png")}

    def hour(number: int, *rows: dict[str, object]) -> pipeline.Run:
        run = pipeline.Run.of(f"2026-01-05T{number:02}", settings=settings)
        (landing / run.id).mkdir()
        frame = pl.DataFrame([{"updated_at": f"2026-01-05T{number:02}:00:00Z", **row} for row in rows])
        frame.write_csv(landing / run.id / "feed.csv")
        pipeline.validate(run)
        return run

    def held() -> set[str]:
        kept = thumbnails(settings)
        return {colour for colour, image_hash in digest.items() if kept.has(image_hash)}

    def forget(given: Settings) -> tuple[int, int]:
        run = begin(given)
        forget_history(run)
        told = forget_pictures(run)
        assert (told["bytes_dropped"] > 0) == (told["pictures_dropped"] > 0)
        return told["pictures_dropped"], told["copies_dropped"]

    row = {"listing_id": "a", "title": "A red lamp", "image_uri": "pictures/red.png", "is_deleted": False}
    other = {**row, "listing_id": "b", "image_uri": "pictures/green.png"}
    embedded(hour(0, row, other))
    copies = [Pictures(Store(settings)).file(digest[colour], SMALL) for colour in ("red", "green")]
    embedded(hour(1, {**row, "image_uri": "pictures/blue.png"}, {**other, "is_deleted": True}))
    for old in (tmp_path / "home").glob("lake/_staging/*/accepted.parquet"):
        old.unlink()  # as clear_staging does in time
    assert forget(forever) == (0, 0)
    yearly = forever.model_copy(update={"upkeep": Upkeep(history_days=365)})
    assert forget(yearly) == (0, 0)
    assert held() == {"red", "green", "blue"}
    assert forget(settings) == (2, 2), "one was superseded, one listing deleted"
    assert held() == {"blue"}
    assert not any(copy.exists() for copy in copies)

    under_way = hour(2, {**row, "listing_id": "c"})
    assert forget(settings) == (0, 0), "an hour has seen it and not stored its listing yet"
    embedded(under_way)
    assert forget(settings) == (0, 0)
    vectors = under_way.lake.read(tables.IMAGE_EMBEDDINGS, pl.col("content_hash") == digest["red"])
    assert vectors["listing_id"].to_list() == ["c"]
    assert held() == {"red", "blue"}
