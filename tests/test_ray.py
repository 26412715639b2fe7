"""A rebuild by the workers of a real Ray: the vectors that hours make, each content once, and no partition twice."""

import hashlib
import importlib.util
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from sosie import settings as current
from sosie.cli import EXIT_TERMINAL, app
from sosie.lake import Lake
from sosie.pipeline.embed import embed_listings, newest, version
from sosie.rebuild import spread
from sosie.rebuild.instep import without_vector
from sosie.settings import Settings, load
from sosie.tables import IMAGE_EMBEDDINGS, LISTINGS, TEXT_EMBEDDINGS
from sosie.vectors import matrix

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray (pip install sosie[ray])")
PARTITIONS, LISTED, TITLES = 5, 60, 40


def catalogue(home: Path) -> Lake:
    """Listings of which a third have the title of another, one without any, one deleted."""
    rows = [
        {
            "listing_id": f"l{number:03d}",
            "title": f"acme kettle {number % TITLES} with {number % TITLES % 7} litres",
            "updated_at": datetime(2026, 3, 1, tzinfo=UTC),
            "is_deleted": number == 0,
            "content_hash": f"{number}",
            "first_seen_run": "2026-03-01T00",
        }
        for number in range(LISTED)
    ]
    for row in rows:
        row["text_hash"] = (
            hashlib.sha256(str(row["title"]).encode()).hexdigest() if row["listing_id"] != "l001" else None
        )
    lake = Lake(load(home=home).lake_uri)
    lake.upsert(LISTINGS, pl.DataFrame(rows, schema=LISTINGS.schema))
    return lake


def settings_of(home: Path) -> Settings:
    return load(home=home, rebuild={"engine": "ray", "ray": {"partitions": PARTITIONS, "workers": 1}})


BUILD = """
import sys
from sosie.lake import Lake
from sosie.rebuild import spread
from sosie.settings import load
settings = load(home=sys.argv[1], rebuild={"engine": "ray", "ray": {"partitions": int(sys.argv[2]), "workers": 1}})
spread.embed(Lake(settings.lake_uri), settings, "text")
"""


@with_ray
def test_a_build_that_was_killed_goes_on_and_ends_as_one_by_a_single_process(tmp_path: Path) -> None:
    home = tmp_path / "spread"
    lake, settings = catalogue(home), settings_of(home)
    stamp = version(settings, "text")
    scratch = spread.Scratch(f"{lake.uri}/_staging/rebuild-text-{stamp}")
    with subprocess.Popen([sys.executable, "-c", BUILD, str(home), str(PARTITIONS)]) as process:
        until = time.monotonic() + 300
        while not scratch.done():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finished = pl.read_parquet(scratch.done())
    assert 0 < finished.height < LISTED - 2, "killed in the middle"
    assert lake.read(TEXT_EMBEDDINGS).is_empty(), "nothing had been taken to the lake"

    marks: list[tuple[int, int]] = []
    calls = spread.embed(lake, settings, "text", lambda done, of: marks.append((done, of)))
    held = lake.read(TEXT_EMBEDDINGS)
    assert held.join(finished, on=TEXT_EMBEDDINGS.columns.keys() - {"vector"}, how="semi").height == finished.height, (
        "what was done is taken as it is"
    )
    left = LISTED - 2 - finished.height
    assert marks[0] == (0, left)
    assert marks[-1] == (left, left)
    assert calls + finished["content_hash"].n_unique() == held["content_hash"].n_unique() < LISTED - 2
    assert without_vector(lake, settings, "text").is_empty()
    assert held["listing_id"].n_unique() == held.height == LISTED - 2
    assert not list(Path(lake.uri).glob("_staging/*/*")), "no scratch is left"

    alone = catalogue(tmp_path / "alone")
    embed_listings(alone, settings, "text", without_vector(alone, settings, "text"), "rebuild")
    wanted = alone.read(TEXT_EMBEDDINGS).sort("listing_id")
    held = held.sort("listing_id")
    same = ["listing_id", "content_hash", "embedding_version", "event_timestamp"]
    assert held.select(same).equals(wanted.select(same))
    # The int8 graph scales activations by the batch, and other batches are made here.
    cosines = np.einsum("nd,nd->n", matrix(held), matrix(wanted))
    assert cosines.min() > 0.99


@with_ray
def test_what_a_worker_raises_is_told_as_it_is(tmp_path: Path) -> None:
    """Pictures that nobody kept: the worker's own sentence, and what other partitions finished stays."""
    from sosie.errors import TerminalError

    lake, settings = catalogue(tmp_path), settings_of(tmp_path)
    rows = lake.read(LISTINGS).with_columns(image_hash=pl.col("text_hash"))
    lake.upsert(LISTINGS, rows)
    with pytest.raises(TerminalError, match="No copy of picture"):
        spread.embed(lake, settings, "image")
    assert lake.read(IMAGE_EMBEDDINGS).is_empty()


def test_what_is_taken_last_is_newest_where_a_feed_gives_days(tmp_path: Path) -> None:
    """Rows are dated as hours date them, and what an hour did meanwhile stands."""
    lake, settings = catalogue(tmp_path), settings_of(tmp_path)
    stamp = version(settings, "text")

    def titled(one: str, title: str) -> str:
        """What an hour makes of a new title, which follows a second index; returns its hash."""
        mine, hashed = pl.col("listing_id") == one, hashlib.sha256(title.encode()).hexdigest()
        lake.upsert(LISTINGS, lake.read(LISTINGS, mine).with_columns(title=pl.lit(title), text_hash=pl.lit(hashed)))
        return hashed

    def embedded(one: str) -> None:
        embed_listings(lake, settings, "text", lake.read(LISTINGS, pl.col("listing_id") == one), "h")

    scratch = spread.Scratch(f"{lake.uri}/_staging/rebuild-text-{stamp}")
    for title in ("red rope", "blue rope"):
        titled("l002", title)
        embedded("l002")
    last = titled("l002", "green rope")
    spread._part(lake, settings, "text", scratch)
    for partition in scratch.partitions():
        assert spread.Partition(scratch, settings, "text")({"partition": partition})["kind"] == ""
    moved = titled("l003", "chess set")
    for one in ("l003", "l004"):
        embedded(one)
    held = lake.read(TEXT_EMBEDDINGS).height
    spread._take(lake, settings, "text", scratch)
    now = newest(lake, "text", stamp, pl.Series(["l002", "l003"])).sort("listing_id")
    assert now["content_hash"].to_list() == [last, moved]
    assert lake.read(TEXT_EMBEDDINGS).height == held + LISTED - 2 - 2, "but for those that an hour embedded"


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path)
    monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import of something that is not there meets
    current.settings.cache_clear()
    try:
        told = CliRunner().invoke(app, ["rebuild", "--engine", "ray"])
        wrong = CliRunner().invoke(app, ["rebuild", "--engine", "spark"])
    finally:
        current.settings.cache_clear()
    assert told.exit_code == wrong.exit_code == EXIT_TERMINAL
    assert "pip install 'sosie[ray]'" in told.output.replace("\n", " ")
    assert "local, ray" in wrong.output
