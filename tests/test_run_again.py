"""Hours that are run again, late or not, and die: what they leave, and who takes it."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from homes import land, run_of, up_to_clusters, up_to_decisions

from sosie import features, landing, pipeline, tables
from sosie.errors import BatchRejected
from sosie.pipeline.run import Run
from sosie.runs import last_end

HOURS = ("2026-01-05T00", "2026-01-05T01", "2026-01-05T02", "2026-01-05T03")


def states(run: Run) -> dict[str, str]:
    return dict(run.lake.read(tables.RUNS).select("run_id", "state").iter_rows())


def test_what_an_hour_took_over_when_it_was_run_again_is_lost_to_nobody(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    land(shop, HOURS[2], {"listing_id": "a0", "title": "Rope 10 m nylon", "updated_at": "2026-01-05T02:10:00Z"})
    again = run_of(shop, HOURS[2])
    up_to_clusters(again)
    ended = last_end(again.lake)
    land(shop, HOURS[1], {"listing_id": "a0", "title": "Garden hose 30 m", "updated_at": "2026-01-05T02:20:00Z"})
    for run in (run_of(shop, HOURS[1]), again):  # both die here; the second has nothing new of its own
        pipeline.validate(run)
        pipeline.detect_changes(run)
    assert states(again)[HOURS[2]] == "running"
    assert last_end(again.lake) == ended, "what was published until then is"
    land(shop, HOURS[3], {"listing_id": "z", "title": "Chess set, wood"})
    following = run_of(shop, HOURS[3])
    up_to_clusters(following)
    (hashed,) = following.lake.lookup(tables.LISTINGS, "listing_id", ["a0"])["text_hash"]
    held = following.lake.lookup(tables.TEXT_EMBEDDINGS, "listing_id", ["a0"])["content_hash"]
    assert hashed in held.to_list()
    assert set(states(following).values()) == {"succeeded"}


def test_a_late_file_that_an_hour_refused_is_still_its_own_hours(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    land(shop, HOURS[2], {"listing_id": "c", "title": "Chess set, wood"})
    up_to_clusters(run_of(shop, HOURS[2]))
    late = land(shop, HOURS[1], {"listing_id": "d", "title": "Rope"})
    late.write_text("listing_id,nothing\nd,x\n")
    for hour in (HOURS[2], HOURS[1]):  # which had succeeded before, and its own
        with pytest.raises(BatchRejected, match="lacks the mandatory columns"):
            pipeline.validate(run_of(shop, hour))
    assert states(run_of(shop, HOURS[2]))[HOURS[2]] == "succeeded"


def test_an_old_hour_takes_no_picture_out_of_the_online_store_that_came_back_since(shop: Path) -> None:
    def published(hour: str) -> Run:
        run = run_of(shop, hour)
        up_to_decisions(run)
        pipeline.publish_features(run)
        pipeline.report(run)
        return run

    def online(run: Run) -> str | None:
        store = features.store(run.settings)
        (view,) = (one for one in store.list_feature_views() if one.name.startswith("image_"))
        ((_, values),) = features._held(store, view, ["a0"], ["image_hash"])
        return values[0] if values else None

    kettle = {"listing_id": "a0", "title": "Acme kettle 0 litre steel"}
    assert online(published(HOURS[0])) is not None
    land(shop, HOURS[1], kettle | {"image_uri": None, "updated_at": "2026-01-05T01:10:00Z"})
    assert online(published(HOURS[1])) is None
    land(shop, HOURS[2], kettle | {"image_uri": "pictures/1.jpg", "updated_at": "2026-01-05T02:10:00Z"})
    back = online(published(HOURS[2]))
    assert back is not None
    assert online(published(HOURS[1])) == back


def test_what_lies_beside_feeds_refuses_no_hour(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    for marks in (f"pictures/{HOURS[1]}/p.jpg", f".trash/{HOURS[1]}/x.json", f"_done-{HOURS[1]}/x.log"):
        (shop / marks).parent.mkdir(parents=True)
        (shop / marks).write_text("x")
    assert pipeline.validate(run_of(shop, HOURS[1]))["rows_read"] == 0
    land(shop, HOURS[2], {"listing_id": "c", "title": "Chess set, wood"})
    (shop / HOURS[2] / "manifest.json").write_text("{}")
    up_to_clusters(run_of(shop, HOURS[3]))
    assert pipeline.validate(run_of(shop, HOURS[2]))["rows_read"] == 0, "its file was taken by the hour after it"
    (shop / HOURS[2] / "listings.csv").unlink()
    (shop / HOURS[2] / "feed.csv.tmp").write_text("listing_id")
    assert landing.passed_over(shop, HOURS[2]) == [f"{HOURS[2]}/manifest.json"]
    shutil.rmtree(shop / HOURS[2])


def test_clusters_that_people_made_need_no_pair(shop: Path) -> None:
    from sosie import integrity
    from sosie.judgements import judge

    (shop / HOURS[0] / "listings.csv").unlink()
    land(shop, HOURS[0], {"listing_id": "a", "title": "Garden hose 30 m"}, {"listing_id": "b", "title": "Chess, wood"})
    first = run_of(shop, HOURS[0])
    up_to_clusters(first)
    assert first.lake.version(tables.PAIRS) < 0
    judge(first.lake, "a", "b", "same", "ada")
    for hour in HOURS[1:3]:
        up_to_clusters(run_of(shop, hour))
        integrity.check(first.lake)
    assert first.lake.read(tables.CLUSTERS).height == 2
    assert last_end(first.lake) <= datetime.now(UTC)
