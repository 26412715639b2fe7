"""A run that is killed, anywhere, and run again ends where an undisturbed one ends.

`sosie run` in processes of its own, on real stores. One home is killed at one point after the other, each time as soon
as that point is first reached; a few points by default, all of them where `SOSIE_LAW_EXAMPLES` is 50 or more.
"""

import json
import multiprocessing
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from sosie import tables
from sosie.index import open_index
from sosie.lake import Lake
from sosie.settings import Settings, load
from sosie.tables import Modality

HOURS = ("2026-01-05T00", "2026-01-05T01")
FULL = int(os.environ.get("SOSIE_LAW_EXAMPLES", "0")) >= 50
STRIDE = 1 if FULL else 29

STEPS = (
    "validate", "detect_changes", "embed", "upsert_vectors", "match", "cluster", "publish_features", "follow",
    "report", "alert",
)  # fmt: skip
LAKE_WRITES = (
    "quarantine.upsert", "quarantine.delete", "changes.upsert", "changes.delete", "listings.upsert",
    "text_embeddings.append", "image_embeddings.append", "regroup.upsert", "pairs.exchange", "neighbours.rewrite",
    "neighbours.append", "recipes.upsert", "cluster_events.append", "cluster_events.delete", "decisions.append",
    "clusters.exchange", "held_merges.exchange", "regroup.delete", "runs.upsert", "alerts.upsert", "spellings.append",
)  # fmt: skip
OTHER_WRITES = (
    "pictures.put", "staging.accepted", "index.text.upsert", "index.text.delete", "index.image.upsert",
    "index.image.delete", "features.apply", "features.text", "features.image", "features.decisions", "report.page",
)  # fmt: skip

# Forked from a process that has the slow imports behind it; nothing of ours has run there yet.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["sosie.cli", "sosie.pipeline", "sosie.validation.suite", "great_expectations", "feast", "pymilvus", "onnx"]
)

FEED = {"seller_id": "s1", "currency": "EUR", "price": 10.0, "is_deleted": False}


def land(landing: Path, hour: str, rows: list[dict[str, Any]]) -> None:
    folder = landing / hour
    folder.mkdir(parents=True, exist_ok=True)
    at = {"updated_at": f"{hour}:10:00Z"}
    pl.DataFrame([FEED | at | row for row in rows], infer_schema_length=None).write_csv(folder / "rows.csv")


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours that reach every store: clusters that form, merge, shrink and go, refused rows, deletes."""
    folder = tmp_path_factory.mktemp("market") / "landing"
    (folder / "pictures").mkdir(parents=True)
    for number, colour in enumerate(("red", "blue", "green", "grey", "orange")):
        picture = Image.new("RGB", (80, 80), colour)
        picture.paste("black", (10 * number, 5, 10 * number + 20, 60))
        picture.save(folder / "pictures" / f"{number}.png")
    goods = ("Acme kettle 1 litre steel", "Bolt drill 500 W", "Summer dress blue", "Lamp oak E27", "Rope 10 m nylon")
    first = [
        {"listing_id": f"k{number}{copy}", "title": title, "image_uri": f"pictures/{number}.png"}
        for number, title in enumerate(goods)
        for copy in range(5)
    ]
    # Enough that stand apart, for the second hour to append its lists of neighbours in place of writing all anew.
    apart = [{"listing_id": f"p{n}", "title": f"Part {n * 7919 % 9973} no. {n * 104729 % 99991}"} for n in range(250)]
    bad = [{"listing_id": "bad1", "title": "x", "price": -1.0}, {"listing_id": "bad2", "title": None}]
    land(folder, HOURS[0], [*first, *apart, *bad])
    moved = {"title": goods[1], "image_uri": "pictures/1.png"}
    second = [
        {"listing_id": "k00", **moved},
        {"listing_id": "k01", "title": goods[0], "image_uri": None},
        {"listing_id": "k20", "title": goods[2], "is_deleted": True},
        {"listing_id": "k21", "title": goods[2], "is_deleted": True},
        {"listing_id": "k22", "title": "Garden hose 20 m green", "image_uri": None},
        {"listing_id": "k23", "title": "Chess set, wood", "image_uri": None},
        {"listing_id": "k30", "title": goods[3], "image_uri": "pictures/3.png", "price": 12.0},
        {"listing_id": "n1", "title": goods[4], "image_uri": "pictures/4.png"},
        {"listing_id": "bad3", "title": "x", "price": -1.0},
    ]
    land(folder, HOURS[1], second)
    return folder


def _sosie(home: str, landing: str, hour: str | None, fault: str, log: str) -> None:
    os.environ |= {"SOSIE_HOME": home, "SOSIE_FAULT": fault, "SOSIE_FAULT_LOG": log, "OMP_NUM_THREADS": "1"}
    os.environ["SOSIE_ALERTS__URLS"] = "[]"
    sys.stdout = sys.stderr = Path(home).parent.joinpath("out.txt").open("a")
    from sosie.cli import app

    if hour is None:
        from sosie import pipeline

        sys.exit(not pipeline.heed(settings_of(Path(home), Path(landing))))
    app(["run", "--landing", landing, "--hour", hour])


def sosie(home: Path, landing: Path, hour: str | None, *, fault: str = "", log: Path | None = None) -> int:
    """Exit status of one `sosie run`, or of applying a veto where there is no hour; -9 where it was killed."""
    home.mkdir(parents=True, exist_ok=True)
    process = processes.Process(target=_sosie, args=(str(home), str(landing), hour, fault, str(log or "")))
    process.start()
    process.join(180)
    assert process.exitcode is not None, f"hung at {fault or 'nothing'}"
    return process.exitcode


def said(home: Path) -> str:
    """The end of what the runs of a home printed, for a failure to tell."""
    return (home.parent / "out.txt").read_text()[-2000:]


def settings_of(home: Path, landing: Path) -> Settings:
    return load(home=home, landing=landing)


VOLATILE = {"created_timestamp", "vector", "started_at", "finished_at", "seconds", "steps", "attempts", "text", "when"}


def told(settings: Settings) -> dict[str, object]:
    """All tables but for times on the clock, and both collections of the index."""
    lake = Lake(settings.lake_uri)
    found: dict[str, object] = {}
    for table in tables.ALL:
        rows = lake.read(table).drop(VOLATILE, strict=False)
        found[table.name] = sorted(json.dumps(row, default=str) for row in rows.iter_rows(named=True))
    modalities: tuple[Modality, ...] = ("text", "image")
    with open_index(settings) as index:
        found["index"] = {modality: sorted(index.ids(modality)) for modality in modalities}
    return found


VETO_WRITES = ("cluster_events.append", "decisions.append", "held_merges.exchange", "clusters.exchange")


def between(home: Path, landing: Path, *, killed: bool) -> None:
    """What a person says after the first hour; it splits a cluster at once, or is killed at each write of that."""
    lake = Lake(settings_of(home, landing).lake_uri)
    said = {"left_id": "k30", "right_id": "k31", "verdict": "different", "who": "tester", "note": None}
    when = {"when": datetime(2026, 1, 5, 1, 7, tzinfo=UTC), "retracted_at": None}
    lake.append(tables.JUDGEMENTS, pl.DataFrame([said | when], schema=tables.JUDGEMENTS.schema))
    whole = lake.version(tables.CLUSTERS)
    for write in VETO_WRITES if killed else ():
        for where in ("before", "after")[: 1 if write == "clusters.exchange" else 2]:
            assert sosie(home, landing, None, fault=f"lake.{write}.{where}") == -9, write
    if not killed:
        assert sosie(home, landing, None) == 0
    assert (lake.version(tables.CLUSTERS) == whole) == killed


@pytest.fixture(scope="module")
def undisturbed(landing: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], list[list[str]]]:
    """Both hours in peace: the tables, and the points that each hour was first to pass."""
    home = tmp_path_factory.mktemp("calm") / "home"
    passed: list[list[str]] = []
    for number, hour in enumerate(HOURS):
        log = home.parent / f"{hour}.log"
        assert sosie(home, landing, hour, log=log) == 0
        if number == 0:
            between(home, landing, killed=False)
        seen = set().union(*passed) if passed and not FULL else set()
        passed.append([name for name in dict.fromkeys(log.read_text().split()) if name not in seen])
    return told(settings_of(home, landing)), passed


def points() -> tuple[str, ...]:
    """The name of every point that a run passes."""
    bounds = [f"step.{step}.{where}" for step in STEPS for where in ("begun", "done", "told")]
    writes = [*(f"lake.{write}" for write in LAKE_WRITES), *OTHER_WRITES]
    return (*bounds, *(f"{write}.{where}" for write in writes for where in ("before", "after")))


def test_the_points_are_those_that_the_code_passes(undisturbed) -> None:
    reached = set().union(*undisturbed[1])
    # See the last test.
    gone = ("quarantine", "changes", "cluster_events")
    taken_over = {f"lake.{name}.delete.{where}" for name in gone for where in ("before", "after")}
    assert reached | taken_over == set(points())
    assert len(reached) >= 40


def test_killed_at_one_point_after_the_other_a_run_ends_where_an_undisturbed_one_ends(
    landing: Path, undisturbed, tmp_path: Path
) -> None:
    wanted, passed = undisturbed
    home = tmp_path / "home"
    for number, hour in enumerate(HOURS):
        for fault in passed[number][number % STRIDE :: STRIDE]:
            assert sosie(home, landing, hour, fault=fault) == -9, f"{fault}: {said(home)}"
        assert sosie(home, landing, hour) == 0, said(home)
        if number == 0:
            between(home, landing, killed=True)
    found = told(settings_of(home, landing))
    for name in wanted:
        assert found[name] == wanted[name], name
    shutil.rmtree(home)


def test_an_hour_that_was_killed_and_never_run_again_is_finished_by_the_next(
    landing: Path, undisturbed, tmp_path: Path
) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    assert sosie(home, landing, HOURS[0], fault="lake.pairs.exchange.after") == -9
    assert sosie(home, landing, HOURS[1], log=log) == 0
    assert {"lake.quarantine.delete.after", "lake.changes.delete.after"} <= set(log.read_text().split())
    lake = Lake(settings_of(home, landing).lake_uri)
    members = lake.read(tables.CLUSTERS).group_by("cluster_id").agg(pl.col("listing_id").sort())
    grouped = {tuple(ids) for ids in members["listing_id"]}
    assert ("k40", "k41", "k42", "k43", "k44", "n1") in grouped
    assert lake.read(tables.REGROUP).is_empty()


def test_events_of_clusters_that_an_hour_died_before_it_made_are_told_by_none(landing: Path, tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    assert sosie(home, landing, HOURS[0]) == 0
    assert sosie(home, landing, HOURS[1], fault="lake.cluster_events.append.after") == -9
    lake = Lake(settings_of(home, landing).lake_uri)
    assert lake.read(tables.CLUSTER_EVENTS, pl.col("run_id") == HOURS[1]).height
    assert sosie(home, landing, "2026-01-05T02", log=log) == 0
    assert "lake.cluster_events.delete.after" in log.read_text().split()
    events = lake.read(tables.CLUSTER_EVENTS)
    assert set(events["run_id"]) == {HOURS[0], "2026-01-05T02"}
    made = events.filter(pl.col("run_id") != HOURS[0])["after"].explode().drop_nulls()
    assert made.len() >= 4
    assert set(made) <= set(lake.read(tables.CLUSTERS)["cluster_id"])


def test_an_hour_that_had_ended_and_was_killed_when_run_again_is_finished_by_the_next(
    landing: Path, tmp_path: Path
) -> None:
    mine, home = tmp_path / "landing", tmp_path / "home"
    shutil.copytree(landing, mine)
    assert sosie(home, mine, HOURS[0]) == 0
    late = {"updated_at": f"{HOURS[0]}:20:00Z"}
    rows = [
        {"listing_id": "k00", "title": "Rope 10 m nylon", "image_uri": "pictures/4.png"},
        {"listing_id": "l1", "title": "Lamp oak E27", "image_uri": "pictures/3.png"},
    ]
    pl.DataFrame([FEED | late | row for row in rows]).write_csv(mine / HOURS[0] / "late.csv")
    assert sosie(home, mine, HOURS[0], fault="lake.listings.upsert.after") == -9
    lake = Lake(settings_of(home, mine).lake_uri)
    assert lake.read(tables.RUNS)["state"].to_list() == ["running"]
    shutil.rmtree(mine / HOURS[1])
    assert sosie(home, mine, HOURS[1]) == 0
    members = lake.read(tables.CLUSTERS).group_by("cluster_id").agg(pl.col("listing_id").sort())
    grouped = {tuple(ids) for ids in members["listing_id"]}
    assert ("k00", "k40", "k41", "k42", "k43", "k44") in grouped
    assert ("k30", "k31", "k32", "k33", "k34", "l1") in grouped
    assert lake.read(tables.RUNS)["state"].to_list() == ["succeeded"] * 2


def test_a_first_hour_that_was_killed_before_it_had_clusters_is_no_damaged_lake(landing: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert sosie(home, landing, HOURS[0], fault="lake.cluster_events.append.after") == -9
    lake = Lake(settings_of(home, landing).lake_uri)
    assert lake.version(tables.CLUSTERS) < 0
    assert lake.read(tables.CLUSTER_EVENTS).height
    assert sosie(home, landing, HOURS[1]) == 0
    assert lake.read(tables.CLUSTERS).height


def test_an_hour_that_died_before_it_told_its_alerts_is_told_of_by_the_next(landing: Path, tmp_path: Path) -> None:
    mine, home = tmp_path / "landing", tmp_path / "home"
    shutil.copytree(landing, mine)
    refused = [FEED | {"listing_id": f"x{n}", "title": "x", "price": -1.0} for n in range(60)]
    pl.DataFrame(refused).with_columns(updated_at=pl.lit(f"{HOURS[0]}:10:00Z")).write_csv(mine / HOURS[0] / "more.csv")
    assert sosie(home, mine, HOURS[0], fault="step.alert.begun") == -9
    lake = Lake(settings_of(home, mine).lake_uri)
    assert lake.read(tables.ALERTS).is_empty()
    for _ in range(2):
        assert sosie(home, mine, HOURS[1]) == 0, said(home)
        found = lake.read(tables.ALERTS, pl.col("run_id") == HOURS[0])["key"].to_list()
        assert len([key for key in found if key.startswith("quarantine_share:")]) == 1
