"""Rows that were put aside: which are, for how long, and what a replay of them does."""

import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from homes import land, run_of, up_to_clusters
from PIL import Image

from sosie import pipeline, replay, tables
from sosie.errors import BatchRejected, TerminalError
from sosie.pipeline.run import Run
from sosie.report.counts import Counts

HOURS = ("2026-01-05T00", "2026-01-05T01", "2026-01-05T02", "2026-01-05T03")


def counts(run: Run) -> Counts:
    return Counts(pipeline.manifest(run))


def test_bad_rows_and_a_huge_picture_are_put_aside_and_the_next_good_hour_runs(shop: Path) -> None:
    Image.new("1", (10_000, 5_000)).save(shop / "pictures" / "huge.png")
    (shop / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    land(
        shop,
        HOURS[0],
        {"listing_id": "b1", "title": None},
        {"listing_id": "b2", "title": "x", "price": -1.0},
        {"listing_id": "b3", "title": "x", "currency": "EURO"},
        {"listing_id": "b4", "title": "x", "updated_at": "2999-01-01T00:00:00Z"},
        {"listing_id": "b5", "title": "twice", "price": 1.0},
        {"listing_id": "b5", "title": "twice, and not the same", "price": 2.0},
        {"listing_id": "c1", "title": "Acme kettle huge picture", "image_uri": "pictures/huge.png"},
        {"listing_id": "c2", "title": "Acme kettle broken picture", "image_uri": "pictures/broken.jpg"},
        name="bad.csv",
    )
    first = run_of(shop, HOURS[0])
    up_to_clusters(first)
    put_aside = first.lake.read(tables.QUARANTINE)
    assert set(put_aside["listing_id"]) == {"b1", "b2", "b3", "b4", "b5", "c1", "c2"}
    assert put_aside["detail"].null_count() == 0
    listings = first.lake.read(tables.LISTINGS)
    assert set(listings["listing_id"]) == {"a0", "a1", "a2", "c1", "c2"}
    assert listings.filter(pl.col("image_hash").is_null())["listing_id"].sort().to_list() == ["c1", "c2"]

    # The broken picture is mended, its rows are replayed: the next hour takes them beside its own.
    Image.effect_noise((64, 64), 90).convert("RGB").save(shop / "pictures" / "broken.jpg")
    (rule,) = put_aside.filter(pl.col("listing_id") == "c2")["rule"]
    _, rows = replay.replay(first.settings, HOURS[0], rule)
    land(shop, HOURS[1], {"listing_id": "a3", "title": "Acme kettle 3 litre steel"})
    second = run_of(shop, HOURS[1])
    up_to_clusters(second)
    assert (rows, counts(second).changed) == (1, 2)
    held = second.lake.read(tables.LISTINGS, pl.col("listing_id") == "c2")
    assert held["image_hash"].null_count() == 0
    after = second.lake.read(tables.QUARANTINE, pl.col("run_id") == HOURS[0])
    heeded = after.filter(pl.col("replayed_run") == HOURS[1])
    assert (heeded["rule"].to_list(), heeded["listing_id"].to_list()) == ([rule], ["c2"])
    assert not replay.replays(first.settings, HOURS[0], rule)[-1].waiting
    assert rule not in replay.waiting(second.lake)["rule"].to_list()
    up_to_clusters(first)
    assert (
        second.lake.read(tables.QUARANTINE, pl.col("run_id") == HOURS[0])
        .sort(tables.QUARANTINE.key)
        .equals(after.sort(tables.QUARANTINE.key))
    ), "an hour that is run again forgets no replay"


def test_a_row_that_a_dead_hour_put_aside_waits_once_when_the_next_hour_takes_its_file(shop: Path) -> None:
    for name in ("bad", "overwritten"):
        land(shop, HOURS[0], {"listing_id": name, "title": None}, name=f"{name}.csv")
    land(shop, HOURS[0], {"listing_id": "picture", "title": "x", "image_uri": "pictures/none.jpg"}, name="seen.csv")
    died = run_of(shop, HOURS[0])
    pipeline.validate(died)
    pipeline.detect_changes(died)
    land(shop, HOURS[0], {"listing_id": "new", "title": None}, name="overwritten.csv")
    following = run_of(shop, HOURS[1])
    up_to_clusters(following)
    pipeline.validate(died)
    kept = dict(following.lake.read(tables.QUARANTINE).select("listing_id", "run_id").iter_rows())
    assert kept == {"bad": HOURS[1], "new": HOURS[1], "overwritten": HOURS[0], "picture": HOURS[0]}
    assert replay.waiting(following.lake)["rows"].sum() == len(kept)


def test_a_row_that_was_replayed_in_its_own_hour_and_refused_again_still_waits(shop: Path) -> None:
    land(shop, HOURS[0], {"listing_id": "b1", "title": None}, name="bad.csv")
    run = run_of(shop, HOURS[0])
    up_to_clusters(run)
    landed, _ = replay.replay(run.settings, HOURS[0], "title_present")
    for _ in range(2):
        pipeline.validate(run)
        held = run.lake.read(tables.QUARANTINE).select("source_file", "replayed_run").sort("source_file")
        assert held.rows() == [(f"{HOURS[0]}/bad.csv", HOURS[0]), (landed.file, None)]


def test_a_row_with_more_fields_than_its_header_is_replayed_by_nobody(shop: Path) -> None:
    names = "listing_id,updated_at,price,title,brand"
    shifted = "s1,2026-01-05T00:10:00Z,9.5,Acme kettle, 2 litre,Acme"  # its brand would be " 2 litre"
    wrong = "w1,2026-01-05T00:10:00Z,nine,Acme kettle,Acme"
    good = [f"g{number},2026-01-05T00:10:00Z,9.5,Borealis lamp {number},Borealis" for number in range(9)]
    (shop / HOURS[0]).mkdir(exist_ok=True)
    (shop / HOURS[0] / "feed.csv").write_text("\n".join([names, shifted, *good]))
    (shop / HOURS[1]).mkdir(exist_ok=True)
    (shop / HOURS[1] / "feed.csv").write_text("\n".join([names, shifted, wrong, *good]))
    first, second = (run_of(shop, hour) for hour in HOURS[:2])
    up_to_clusters(first)
    with pytest.raises(TerminalError, match=r"feed.csv: 6 fields where the header names 5 \(line 2\)"):
        replay.replay(first.settings, HOURS[0], "castable")
    up_to_clusters(second)
    landed, rows = replay.replay(second.settings, HOURS[1], "castable")
    assert (rows, pl.read_csv(shop / landed.file)["listing_id"].to_list()) == (1, ["w1"])
    pipeline.validate(run_of(shop, "2026-01-05T02"))
    taken = second.lake.read(tables.QUARANTINE, pl.col("run_id") == HOURS[1]).select("listing_id", "replayed_run")
    assert dict(taken.iter_rows()) == {"s1": None, "w1": "2026-01-05T02"}


def test_a_replay_is_taken_when_the_files_before_it_were_cleared_away(shop: Path) -> None:
    land(shop, HOURS[0], {"listing_id": "b1", "title": None}, name="bad.csv")
    first = run_of(shop, HOURS[0])
    up_to_clusters(first)
    landed, _ = replay.replay(first.settings, HOURS[0], "title_present")
    up_to_clusters(run_of(shop, HOURS[1]))
    shutil.rmtree(shop / HOURS[0])
    assert replay.replays(first.settings, HOURS[0], "title_present") == [replay.Replay(landed.file, waiting=False)]
    with pytest.raises(TerminalError, match=r"Nothing of hour .* that was not replayed"):
        replay.replay(first.settings, HOURS[0], "title_present")
    land(shop, HOURS[0], {"listing_id": "b2", "title": None}, name="late.csv")
    up_to_clusters(first)
    again, rows = replay.replay(first.settings, HOURS[0], "title_present")
    assert (again.file != landed.file, rows) == (True, 1)
    assert pipeline.validate(run_of(shop, "2026-01-05T02"))["rows_read"] == 1


def feed(shop: Path, hour: str, *rows: dict[str, object]) -> None:
    """As a feed in Parquet, where a column of integers that has a null is one of floats."""
    (shop / hour).mkdir(exist_ok=True)
    at = {"updated_at": datetime(2026, 1, 5, 0, 30, tzinfo=UTC)}
    pl.DataFrame([at | row for row in rows]).write_parquet(shop / hour / "feed.parquet")


def test_a_replayed_row_casts_to_what_it_did_when_it_came(shop: Path) -> None:
    feed(
        shop,
        HOURS[0],
        {"listing_id": 101.0, "title": "Lamp oak E27", "gtin": 36000291452.0, "image_uri": "pictures/9.jpg"},
        {"listing_id": None, "title": "Lamp oak E14", "gtin": None, "image_uri": None},
    )
    first, second = (run_of(shop, hour) for hour in HOURS[:2])
    up_to_clusters(first)
    shutil.copy(shop / "pictures" / "0.jpg", shop / "pictures" / "9.jpg")
    assert replay.replay(first.settings, HOURS[0], "picture_missing")[1] == 1
    up_to_clusters(second)
    (held,) = second.lake.read(tables.LISTINGS, pl.col("title") == "Lamp oak E27").iter_rows(named=True)
    assert (held["listing_id"], held["gtin"]) == ("101", "036000291452")
    assert held["image_hash"] is not None
    assert "picture_missing" not in replay.waiting(second.lake)["rule"].to_list()


def test_a_row_that_was_mended_in_its_own_file_waits_no_longer(shop: Path) -> None:
    lamp = {"listing_id": "p", "title": "Lamp oak E27", "image_uri": "pictures/typo.jpg"}
    land(shop, HOURS[0], {"listing_id": "q", "title": None}, lamp, name="mended.csv")
    land(shop, HOURS[0], {"listing_id": "r", "title": "Rope 10 m nylon", "image_uri": "pictures/8.jpg"}, name="not.csv")
    run = run_of(shop, HOURS[0])
    up_to_clusters(run)
    assert counts(run)("validate.pictures_refused") == 2
    land(shop, HOURS[0], {"listing_id": "q", "title": "Chess set, wood"}, lamp | {"image_uri": "pictures/2.jpg"},
         name="mended.csv")  # fmt: skip
    up_to_clusters(run)
    waiting = run.lake.read(tables.QUARANTINE).select("listing_id", "rule").rows()
    assert waiting == [("r", "picture_missing")], "this picture was not looked at again"
    assert counts(run)("validate.pictures_refused") == 1
    held = run.lake.lookup(tables.LISTINGS, "listing_id", ["p", "q"])
    assert dict(held.select("listing_id", pl.col("image_hash").is_not_null()).iter_rows()) == {"p": True, "q": False}


def test_a_replay_that_was_refused_with_its_batch_still_waits(shop: Path) -> None:
    land(shop, HOURS[0], {"listing_id": "b1", "title": None}, name="bad.csv")
    run = run_of(shop, HOURS[0])
    up_to_clusters(run)
    replay.replay(run.settings, HOURS[0], "title_present")
    broken = land(shop, HOURS[0], {"listing_id": "b2", "title": "Rope 10 m nylon"}, name="broken.csv")
    broken.write_text("listing_id,nothing\nb2,x\n")
    with pytest.raises(BatchRejected):
        pipeline.validate(run)
    assert [one.waiting for one in replay.replays(run.settings, HOURS[0], "title_present")] == [True]
    broken.unlink()
    pipeline.validate(run)
    up_to_clusters(run)
    assert [one.waiting for one in replay.replays(run.settings, HOURS[0], "title_present")] == [False]


def test_a_replay_heeds_those_rows_alone_that_it_holds(shop: Path) -> None:
    land(shop, HOURS[0], {"listing_id": "b1", "title": "Lamp oak E27", "price": -1.0}, name="bad.csv")
    run = run_of(shop, HOURS[0])
    up_to_clusters(run)
    replay.replay(run.settings, HOURS[0], "price_range")
    land(shop, HOURS[0], {"listing_id": "b2", "title": "Rope 10 m nylon", "price": -2.0}, name="late.csv")
    pipeline.validate(run)
    held = run.lake.read(tables.QUARANTINE).select("source_file", "listing_id", "replayed_run").sort("source_file")
    assert [(Path(file).name, *rest) for file, *rest in held.rows()] == [
        ("bad.csv", "b1", HOURS[0]),
        ("late.csv", "b2", None),
        ("replay-price_range-1.csv", "b1", None),
    ]


def test_a_refused_batch_keeps_no_file_from_the_hour_that_it_is_of(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    land(shop, HOURS[1], {"listing_id": "good", "title": "Chess set, wood"})
    land(shop, HOURS[2], *({"listing_id": f"x{n}", "title": "x", "price": -1.0} for n in range(30)))
    with pytest.raises(BatchRejected):
        pipeline.validate(run_of(shop, HOURS[2]))
    land(shop, HOURS[3], {"listing_id": "later", "title": "Rope 10 m nylon"})
    assert pipeline.validate(run_of(shop, HOURS[3]))["rows_read"] == 1, "what was refused is not tried every hour"
    assert pipeline.validate(run_of(shop, HOURS[1]))["rows_read"] == 1


def test_a_file_that_is_too_large_is_refused_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_VALIDATION__MAX_FILE_BYTES", "1000")
    file = land(shop, HOURS[1], *({"listing_id": f"x{n}", "title": "Rope 10 m nylon"} for n in range(500)))
    with gzip.open(file.with_suffix(".csv.gz"), "wb") as stream:
        stream.write(file.read_bytes())
    file.unlink()
    run = run_of(shop, HOURS[1])
    with pytest.raises(BatchRejected, match=r"listings\.csv\.gz has more than 1,000 bytes"):
        pipeline.validate(run)
    assert run.lake.read(tables.RUNS, pl.col("run_id") == run.id)["state"].to_list() == ["refused"]
    land(shop, HOURS[2], {"listing_id": "later", "title": "Chess set, wood"})
    assert pipeline.validate(run_of(shop, HOURS[2]))["files"] == 1, "what was refused is not tried every hour"


def test_a_host_that_does_not_answer_takes_no_picture_from_anybody(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    there = run_of(shop, HOURS[0]).lake.lookup(tables.LISTINGS, "listing_id", ["a0"])
    away = there.with_columns(image_uri=pl.lit("http://127.0.0.1:9/0.jpg"))
    run_of(shop, HOURS[0]).lake.upsert(tables.LISTINGS, away)
    row = {"listing_id": "a0", "title": there["title"][0], "image_uri": away["image_uri"][0]}
    land(shop, HOURS[1], {**row, "price": 11.0, "updated_at": "2026-01-05T01:10:00Z"})
    second = run_of(shop, HOURS[1])
    up_to_clusters(second)
    held = second.lake.lookup(tables.LISTINGS, "listing_id", ["a0"])
    assert held.select("price", "image_hash", "image_phash").row(0) == (
        11.0, there["image_hash"][0], there["image_phash"][0],
    )  # fmt: skip
    assert replay.waiting(second.lake)["rule"].to_list() == ["picture_unreachable"]
    moved = {"image_uri": "http://127.0.0.1:9/other.jpg", "updated_at": "2026-01-05T02:10:00Z"}
    land(shop, HOURS[2], {**row, **moved})
    third = run_of(shop, HOURS[2])
    up_to_clusters(third)
    assert third.lake.lookup(tables.LISTINGS, "listing_id", ["a0"])["image_hash"].to_list() == [None]


def test_pictures_that_were_not_asked_for_are_replayed_like_those_that_did_not_answer(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOSIE_VALIDATION__PICTURE_HOST_FAILURES", "1")
    rows = [
        {"listing_id": f"p{n}", "title": f"Rope {n} m nylon", "image_uri": f"http://127.0.0.1:9/{n}.jpg"}
        for n in range(20)
    ]
    land(shop, HOURS[0], *rows, name="away.csv")
    run = run_of(shop, HOURS[0])
    assert pipeline.validate(run)["pictures_refused"] == 20
    details = run.lake.read(tables.QUARANTINE, pl.col("rule") == "picture_unreachable")["detail"]
    assert 1 <= details.str.contains("can't be read").sum() <= 8, "those that eight threads had under way"
    assert details.str.contains("was not asked for").sum() >= 12
    assert replay.waiting(run.lake)["rows"].to_list() == [20]
    assert replay.replay(run.settings, HOURS[0], "picture_unreachable")[1] == 20
