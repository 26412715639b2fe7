"""A "different" splits a cluster when it is said; wherever that dies, the next hour ends where it would have ended.

Lakes written by hand: no model and no index has a part in it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock
from page_lake import client
from typer.testing import CliRunner

from sosie import faults, pipeline, tables
from sosie import settings as config
from sosie.cli import app
from sosie.judgements import judge, standing
from sosie.lake import Lake
from sosie.pipeline import veto
from sosie.settings import Settings, load

FIRST, SECOND = "2026-01-05T00", "2026-01-05T01"
WHEN = datetime(2026, 1, 5, 1, 7, tzinfo=UTC)
MATCHES = {("a", "b"): 0.99, ("a", "c"): 0.95, ("b", "c"): 0.9, ("d", "e"): 0.97}


def rows(table: tables.Table, *some: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(table.columns) | row for row in some], schema=table.schema)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Five listings in two clusters, a b c and d e, and the manifest of the hour that made them."""
    made = load(home=tmp_path / "home", landing=tmp_path)
    lake = Lake(made.lake_uri)
    known = {"is_deleted": False, "updated_at": WHEN, "first_seen_run": FIRST, "last_changed_run": FIRST}
    known |= dict.fromkeys(("text_hash", "content_hash"), "0" * 64)
    lake.append(
        tables.LISTINGS, rows(tables.LISTINGS, *({**known, "listing_id": one, "title": one} for one in "abcde"))
    )
    pairs = ({"left_id": left, "right_id": right, "score": score} for (left, right), score in MATCHES.items())
    lake.append(tables.PAIRS, rows(tables.PAIRS, *({**pair, "verdict": "match"} for pair in pairs)))
    lake.append(tables.REGROUP, rows(tables.REGROUP, *({"listing_id": one, "run_id": FIRST} for one in "abcde")))
    pipeline.cluster(pipeline.Run.of(FIRST, settings=made))
    ended = {"run_id": FIRST, "state": "succeeded", "started_at": WHEN, "finished_at": WHEN, "files": [], "steps": []}
    lake.append(tables.RUNS, rows(tables.RUNS, ended))
    assert grouped(made) == {"abc", "de"}
    return made


def grouped(settings: Settings) -> set[str]:
    held = Lake(settings.lake_uri).read(tables.CLUSTERS).group_by("cluster_id").agg("listing_id")
    return {"".join(sorted(members)) for members in held["listing_id"]}


def told(settings: Settings) -> dict[str, list[str]]:
    """Every table but for times on the clock."""
    lake = Lake(settings.lake_uri)
    return {
        table.name: sorted(map(str, lake.read(table).drop("created_timestamp", strict=False).rows()))
        for table in tables.ALL
    }


def vetoes(settings: Settings) -> list[dict[str, object]]:
    after = pl.col("run_id").str.contains("~veto-")
    return Lake(settings.lake_uri).read(tables.CLUSTER_EVENTS, after).sort("run_id", "kind").to_dicts()


def test_a_veto_splits_at_once_and_keeps_the_id_of_the_oldest(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    before = dict(lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    assert pipeline.part(settings, [judge(lake, "a", "c", "different", "ada")]) == "split"
    assert grouped(settings) == {"ab", "de"}
    now = lake.read(tables.CLUSTERS)
    assert dict(now.select("listing_id", "cluster_id").iter_rows()) == {one: before[one] for one in "abde"}
    assert set(now.filter(cluster_id=before["a"])["canonical_id"]) == {"a"}
    (shrank,) = vetoes(settings)
    assert (shrank["kind"], shrank["before"], shrank["after"], shrank["left"]) == (
        "shrank", [before["a"]], [before["a"]], ["c"],
    )  # fmt: skip
    decided = lake.read(tables.DECISIONS, pl.col("listing_id") == "c").sort("created_timestamp")
    assert decided["is_duplicate"].to_list() == [True, False]

    assert pipeline.part(settings, [judge(lake, "d", "e", "different", "ada")]) == "split"
    assert vetoes(settings)[-1]["kind"] == "dissolved"
    assert pipeline.part(settings, [judge(lake, "a", "d", "different", "ada")]) == "apart"
    version = lake.version(tables.CLUSTERS)
    pipeline.cluster(pipeline.Run.of(SECOND, settings=settings))
    assert (grouped(settings), lake.version(tables.CLUSTERS)) == ({"ab"}, version), "nothing is left for the next run"


class Died(Exception):
    pass


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, at: str) -> Iterator[list[str]]:
    """Every point that is passed; at the one named so it ends there and then."""
    passed: list[str] = []

    def point(name: str) -> None:
        passed.append(name)
        if name == at:
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(faults, "point", point)
        yield passed


def test_wherever_it_dies_the_next_hour_ends_where_it_would_have_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"left_id": "a", "right_id": "b", "verdict": "different", "who": "ada", "when": WHEN}
    Lake(settings.lake_uri).append(tables.JUDGEMENTS, rows(tables.JUDGEMENTS, said))

    def another(name: str) -> Settings:
        home = shutil.copytree(settings.home, settings.home.with_name(name))
        return load(home=home, landing=settings.landing)

    calm = another("calm")
    with dying(monkeypatch, "nowhere") as points:
        assert pipeline.heed(calm)
    assert len(points) == 8
    pipeline.cluster(pipeline.Run.of(SECOND, settings=calm))
    for number, fault in enumerate(points):
        struck = another(f"struck{number}")
        with dying(monkeypatch, fault), pytest.raises(Died):
            pipeline.heed(struck)
        pipeline.cluster(pipeline.Run.of(SECOND, settings=struck))
        assert told(struck) == told(calm), fault
    waited = another("waited")
    pipeline.cluster(pipeline.Run.of(SECOND, settings=waited))
    assert told(waited) == told(calm)


def test_the_page_tells_whether_it_is_split_and_takes_it_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = client(settings)
    cluster = Lake(settings.lake_uri).read(tables.CLUSTERS, pl.col("listing_id") == "a")["cluster_id"][0]

    def say(left: str, right: str) -> str:
        said = {"left": left, "right": right, "verdict": "different"}
        assert browser.post("/review/judge", data=said).status_code == 303
        return browser.get("/review").text

    assert "different</b>; no cluster holds both now." in say("a", "c")
    assert grouped(settings) == {"ab", "de"}
    assert browser.post("/review/undo", data={}).status_code == 303
    assert grouped(settings) == {"abc", "de"}

    monkeypatch.setattr(veto, "PATIENCE", 0.1)
    with FileLock(settings.home / "run.lock"):
        assert "a run is at work, and the next one splits their cluster" in say("a", "c")
        assert "1 pair of these listings was judged different" in browser.get(f"/clusters/{cluster}").text
    assert standing(Lake(settings.lake_uri)).height == 1
    assert grouped(settings) == {"abc", "de"}
    pipeline.cluster(pipeline.Run.of(SECOND, settings=settings))
    assert grouped(settings) == {"ab", "de"}


def test_a_cluster_of_two_that_is_split_leads_to_the_listing(settings: Settings) -> None:
    browser = client(settings)
    cluster = Lake(settings.lake_uri).read(tables.CLUSTERS, pl.col("listing_id") == "d")["cluster_id"][0]
    page = browser.get(f"/clusters/{cluster}").text
    seen = page.split('name="seen" value="')[1].split('"')[0]
    answer = browser.post(f"/clusters/{cluster}/split", data={"seen": seen, "chosen": "e"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/clusters?q=e")
    assert grouped(settings) == {"abc"}


def test_the_shell_says_which_it_was(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_HOME", str(settings.home))
    monkeypatch.setattr(veto, "PATIENCE", 0.1)
    config.settings.cache_clear()
    judged = ["judge", "a", "c", "different", "--who", "ada"]
    try:
        with FileLock(settings.home / "run.lock"):
            assert "the next one splits their cluster" in CliRunner().invoke(app, judged).output
        assert "Their cluster is split now." in CliRunner().invoke(app, judged).output
        assert "No cluster holds both" in CliRunner().invoke(app, judged).output
    finally:
        config.settings.cache_clear()
