"""Two hours by the `sosie` command with lake, scratch, pictures and reports in an object store, by settings alone."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import polars as pl
import pytest
from object_store import busy, filesystem, s3
from PIL import Image

from sosie import pipeline, tables
from sosie.commands.console import EXIT_TRANSIENT
from sosie.errors import StoreBusy
from sosie.lake import Lake, writing
from sosie.pipeline.ingest import thumbnails
from sosie.settings import PROJECT, Settings, Upkeep, load
from sosie.simulate import Marketplace, write
from sosie.upkeep import begin, forget_pictures

pytest.importorskip("s3fs")

EXAMPLE = PROJECT / "docker" / "object-store.env"


def example(environment: dict[str, str]) -> dict[str, str]:
    """The variables of the example file, with its bucket and keys, reached where the test's server is."""
    named = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert set(environment) >= {name for name in named if name.startswith("AWS_")}
    return named | environment


@dataclass(frozen=True)
class Ran:
    settings: Settings
    store: fsspec.AbstractFileSystem
    hours: list[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("home")
    write(home / "market", Marketplace(listings=60, hours=2, seed=3))
    landing = home / "market" / "landing"
    hours = sorted(path.name for path in landing.glob("*T*"))
    with s3("marketplace-sosie") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in (
            example(environment) | {"SOSIE_HOME": str(home), "SOSIE_MILVUS_TIMEOUT_SECONDS": "120"}
        ).items():
            patch.setenv(name, value)
        for hour in hours:
            command = [str(Path(sys.executable).with_name("sosie")), "run", "--landing", str(landing), "--hour", hour]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            assert told.returncode == 0, told.stdout + told.stderr
        yield Ran(load(landing=landing), filesystem(environment), hours)


def test_both_hours_are_in_the_bucket(ran: Ran) -> None:
    assert ran.settings.lake_uri == "s3://marketplace-sosie/lake"
    lake = Lake(ran.settings.lake_uri)
    assert lake.read(tables.RUNS)["state"].to_list() == ["succeeded"] * 2
    live = lake.read(tables.LISTINGS, ~pl.col("is_deleted"))
    assert live.height > 0
    clusters = lake.read(tables.CLUSTERS)
    assert 0 < clusters.height <= live.height
    hashes = live["image_hash"].drop_nulls().unique()
    kept = {Path(name).stem for name in ran.store.find("marketplace-sosie/lake/pictures")}
    assert kept >= set(hashes)
    assert ran.store.glob("marketplace-sosie/lake/_staging/*/*.json"), "the records of each step"


def test_a_bucket_out_of_reach_is_told_in_sentences(ran: Ran) -> None:
    told = subprocess.run(
        [str(Path(sys.executable).with_name("sosie")), "run", "--landing", str(ran.settings.landing)],
        env=os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == EXIT_TRANSIENT, told.stderr
    assert "is done can't be told, as its store can't be read" in told.stderr
    assert "StoreBusy: Table s3://marketplace-sosie/lake/listings can't be read" in told.stderr
    assert "Mend the store's address" in told.stderr
    assert "\x1b" not in told.stderr


def test_a_store_that_is_busy_amid_a_run_is_tried_again_later(ran: Ran) -> None:
    command = [str(Path(sys.executable).with_name("sosie")), "run", "--landing", str(ran.settings.landing)]
    with busy(".parquet"):
        told = subprocess.run([*command, "--hour", ran.hours[1]], capture_output=True, text=True, check=False)
    assert told.returncode == EXIT_TRANSIENT, told.stderr
    assert "StoreBusy: " in told.stderr
    assert "503 Service Unavailable" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("part", ["lake/changes/run_id", "_staging/"])
def test_a_step_tells_a_busy_store_as_one(ran: Ran, part: str) -> None:
    run = pipeline.Run.of(ran.hours[1], settings=ran.settings)
    with busy(part), pytest.raises(StoreBusy, match="Service Unavailable"):
        pipeline.detect_changes(run)


def test_what_is_read_and_written_outside_of_a_step_tells_it_too(ran: Ran) -> None:
    lake = Lake("s3://marketplace-sosie/busy")
    row = {"run_id": "a", "listing_id": "b", "kind": "new", "text_hash": None, "image_hash": None}
    rows = pl.DataFrame([row], schema=tables.CHANGES.schema)
    lake.append(tables.CHANGES, rows)
    with busy(".parquet"):
        with pytest.raises(StoreBusy, match="503"):
            lake.read(tables.CHANGES)
        with pytest.raises(StoreBusy, match="503"):
            lake.lookup(tables.CHANGES, "listing_id", ["b"])
        with pytest.raises(StoreBusy, match="503"):
            lake.delete(tables.CHANGES, rows.select("run_id"))
        with pytest.raises(StoreBusy, match=r"can't be written.*503"), writing(tables.CHANGES, "delete"):
            lake._merge(tables.CHANGES, rows, ["run_id"], "a").when_matched_delete().execute()


def test_upkeep_takes_forgotten_pictures_out_of_the_bucket(ran: Ran) -> None:
    def held() -> set[str]:
        return {Path(name).stem for name in ran.store.find("marketplace-sosie/lake/pictures")}

    lost = "0" * 64
    thumbnails(ran.settings).put(lost, Image.new("RGB", (80, 80)))
    before = held()
    run = begin(ran.settings.model_copy(update={"upkeep": Upkeep(history_days=0)}))
    assert forget_pictures(run)["pictures_dropped"] == len(before - held())
    assert lost in before - held()
    assert held() >= set(run.lake.read(tables.LISTINGS)["image_hash"].drop_nulls())


def test_nothing_of_it_is_on_the_disk(ran: Ran) -> None:
    left = {path.name for path in ran.settings.home.iterdir()}
    assert not left & {"lake", "reports"}, left
    assert not list(Path.cwd().glob("s3:*"))


def test_reports_are_served_from_the_bucket(ran: Ran) -> None:
    from sosie.airflow.pages import hours, inside
    from sosie.validation import docs

    root = ran.settings.reports
    assert str(root) == "s3://marketplace-sosie/reports"
    assert hours(root) == ran.hours[::-1]
    page = inside(root, ran.hours[0])
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert 'class="sankey"' in text
    assert inside(root, f"{ran.hours[0]}/index.html/../../{ran.hours[1]}/index.html") is None, "no name climbs"
    assert inside(root, f"{ran.hours[1]}/index.html") is not None
    assert inside(root, "../lake/listings/_delta_log/00000000000000000000.json") is None
    checks = docs.page_of(root, ran.hours[1])
    assert checks is not None
    assert inside(root, f"{ran.hours[1]}/{checks}") is not None
    assert f'href="{checks}"' in inside(root, ran.hours[1]).read_text(encoding="utf-8")


def test_features_have_a_history_in_the_bucket(ran: Ran) -> None:
    from datetime import UTC, datetime

    from sosie import features

    clusters = Lake(ran.settings.lake_uri).read(tables.CLUSTERS).sort("listing_id").head(5)
    asked = clusters.select("listing_id", event_timestamp=pl.lit(datetime.now(UTC)))
    told = features.history(ran.settings, asked, "duplicate_lookup")
    assert told["cluster_id"].to_list() == clusters["cluster_id"].to_list()


def test_the_doctor_finds_lake_and_reports_in_order(ran: Ran) -> None:
    from sosie.doctor import stores

    found = [*stores.lake(ran.settings), *stores.disk(ran.settings)]
    assert [one for one in found if one.state not in ("ok", "warning")] == []
    assert any("s3://marketplace-sosie/reports" in one.detail for one in found)


def test_no_writer_overwrites_anothers_commit(ran: Ran) -> None:
    """Each commit is put under the next version's name on condition that nobody has."""
    lake, places, failed = Lake("s3://marketplace-sosie/race"), range(4), []
    lake.create([tables.CHANGES])

    def append(place: int) -> None:
        for number in range(5):
            row = {
                "run_id": f"{place}",
                "listing_id": f"{number}",
                "kind": "new",
                "text_hash": None,
                "image_hash": None,
            }
            try:
                lake.append(tables.CHANGES, pl.DataFrame([row], schema=tables.CHANGES.schema))
            except Exception as error:  # told below, whatever it is
                failed.append(error)

    threads = [threading.Thread(target=append, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert lake.read(tables.CHANGES).height == 20
    assert lake.version(tables.CHANGES) >= 20


def test_the_example_names_nothing_but_settings(ran: Ran) -> None:
    named = re.findall(r"^(SOSIE_[A-Z_]+)=", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert set(named) == {"SOSIE_LAKE_URI", "SOSIE_REPORTS"}
    assert all(name.removeprefix("SOSIE_").lower() in Settings.model_fields for name in named)
