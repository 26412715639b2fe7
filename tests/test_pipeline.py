"""The whole hour on real stores: Delta, Milvus Lite, Feast, ONNX models, pictures; twice, and again."""

import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
from homes import land, run_of, up_to_clusters

from sosie import neighbours, phashes, pipeline, tables
from sosie.decider import mlp
from sosie.errors import BatchRejected, TerminalError
from sosie.index import open_index
from sosie.judgements import judge
from sosie.lake import Lake
from sosie.neighbour_lists import NeighbourLists
from sosie.pipeline.retrieval import Retrieval, limits
from sosie.report.counts import Counts
from sosie.settings import load
from sosie.simulate import Marketplace, write
from sosie.upkeep.history import forget_history

HOURS = ("2026-01-05T00", "2026-01-05T01")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    write(folder, Marketplace(listings=160, hours=2, seed=3))
    return folder


@pytest.fixture(scope="module")
def runs(market: Path, tmp_path_factory: pytest.TempPathFactory) -> list[pipeline.Run]:
    """Both hours, run."""
    settings = load(home=tmp_path_factory.mktemp("home"), landing=market / "landing")
    done = [pipeline.Run.of(hour, settings=settings) for hour in HOURS]
    for run in done:
        pipeline.run_all(run)
    return done


def versions(lake: Lake) -> dict[str, int]:
    return {table.name: lake.version(table) for table in tables.ALL}


def counts(run: pipeline.Run) -> Counts:
    return Counts(pipeline.manifest(run))


def live(run: pipeline.Run) -> pl.DataFrame:
    return run.lake.read(tables.LISTINGS, ~pl.col("is_deleted")).sort("listing_id")


def test_the_manifest_of_each_hour_adds_up(runs: list[pipeline.Run]) -> None:
    for run in runs:
        assert [balance for balance in counts(run).balances if not balance.holds] == []


def test_the_second_hour_embeds_only_what_changed(runs: list[pipeline.Run]) -> None:
    first, second = map(counts, runs)
    assert 0 < second.changed < first.changed / 2
    assert 0 < second.embedded < first.embedded / 2
    texts = second.total("detect_changes", ("new", "text", "text_and_image"))
    assert second("embed.text_computed") <= texts


def test_every_live_listing_has_its_vectors_in_lake_and_index(runs: list[pipeline.Run]) -> None:
    run, listings = runs[-1], live(runs[-1])
    for modality, table in (("text", tables.TEXT_EMBEDDINGS), ("image", tables.IMAGE_EMBEDDINGS)):
        wanted = listings.filter(pl.col(f"{modality}_hash").is_not_null())
        held = run.lake.read(table)
        missing = wanted.join(
            held, left_on=["listing_id", f"{modality}_hash"], right_on=["listing_id", "content_hash"], how="anti"
        )
        assert missing.is_empty()
        with open_index(run.settings) as index:
            assert set(index.ids(modality)) == set(wanted["listing_id"])


def test_duplicates_are_found_and_confusable_products_mostly_kept_apart(runs: list[pipeline.Run], market: Path) -> None:
    from sosie.airflow.demo import accuracy

    found = accuracy(runs[-1].lake, market)
    assert found["precision"] > 0.6
    assert found["recall"] > 0.5


def test_clusters_and_decisions_tell_the_same(runs: list[pipeline.Run]) -> None:
    lake = runs[-1].lake
    clusters = lake.read(tables.CLUSTERS)
    assert (
        clusters.group_by("cluster_id")
        .agg(pl.len(), pl.col("size").first())
        .filter(pl.col("len") != pl.col("size"))
        .is_empty()
    )
    assert clusters.join(clusters, left_on="canonical_id", right_on="listing_id", how="anti").is_empty()
    last = lake.read(tables.DECISIONS).sort("event_timestamp").unique("listing_id", keep="last")
    told = last.filter(pl.col("cluster_id").is_not_null()).select("listing_id", "cluster_id", "canonical_id")
    assert told.sort("listing_id").rows() == clusters.select(told.columns).sort("listing_id").rows()
    assert clusters.join(live(runs[-1]), on="listing_id", how="anti").is_empty(), "no deleted listing is in a cluster"


def test_the_storefront_is_told_what_the_lake_holds(runs: list[pipeline.Run]) -> None:
    from sosie import features

    clusters = runs[-1].lake.read(tables.CLUSTERS).head(20)
    told = features.lookup(runs[-1].settings, clusters["listing_id"].to_list())
    joined = clusters.join(told, on="listing_id", suffix="_told")
    assert joined.height == clusters.height
    assert (joined["cluster_id"] == joined["cluster_id_told"]).all()


def test_an_hour_run_again_changes_no_table_and_calls_no_model(
    runs: list[pipeline.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = sys.modules["sosie.pipeline.embed"]  # the package's own `embed` is the step
    monkeypatch.setattr(encoding, "encode", lambda *_: pytest.fail("a model was called"))
    before, told = versions(runs[-1].lake), pipeline.manifest(runs[-1])
    pipeline.run_all(runs[-1])
    assert versions(runs[-1].lake) == before
    assert pipeline.manifest(runs[-1]) == told


def test_the_index_and_the_join_in_process_find_the_same_neighbours(runs: list[pipeline.Run]) -> None:
    decider = mlp.load(runs[-1].settings.decider_model)
    catalogue = live(runs[-1])
    changed = catalogue["listing_id"].sort().gather_every(5)
    found = []
    for share in (0.0, 1.0):  # above 0 % everything is joined, above 100 % nothing is
        rules = runs[-1].settings.blocking.model_copy(update={"join_above_share": share})
        run = pipeline.Run(runs[-1].id, runs[-1].settings.model_copy(update={"blocking": rules}))
        retrieve = Retrieval(run, catalogue, decider.vocabulary)
        asked = limits(rules).items()
        asking = retrieve.places.of(changed)
        found.append({source: retrieve(source, asking, k, floor) for source, (k, floor) in asked})
    joined, asked = found
    for modality in ("text", "image"):
        both = joined[modality].join(asked[modality], on=["query_id", "listing_id"], how="full", suffix="_asked")
        # Where equal cosines stand at the end of a listing's k, either may be cut.
        only_one = both.filter(pl.col("similarity").is_null() | pl.col("similarity_asked").is_null())
        assert only_one.height <= 0.01 * both.height
        shared = both.drop_nulls("similarity").drop_nulls("similarity_asked")
        assert shared.height > 100
        assert (shared["similarity"] - shared["similarity_asked"]).abs().max() < 1e-4


def test_vectors_are_the_same_looked_up_or_read_with_all_others(
    runs: list[pipeline.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = sys.modules["sosie.pipeline.embed"]
    lake, settings, listings = runs[-1].lake, runs[-1].settings, live(runs[-1])
    for modality in encoding.MODALITIES:
        stamp, found = encoding.version(settings, modality), []
        for many in (1, listings.height + 1):
            monkeypatch.setattr(encoding, "MANY", many)
            found.append(encoding.current(lake, modality, stamp, listings))
        assert found[0].height > 50
        assert found[0].equals(found[1])


def test_pictures_whose_hashes_differ_in_a_few_bits_propose_each_other(runs: list[pipeline.Run]) -> None:
    run = runs[-1]
    hashes = {row["listing_id"]: int(row["image_phash"], 16) for row in live(run).drop_nulls("image_phash").to_dicts()}
    near = {
        one: {other for other, their in hashes.items() if 0 < (code ^ their).bit_count() <= 7}
        for one, code in hashes.items()
    }
    assert any(near.values())
    lists = NeighbourLists.read(run.lake).where(pl.col("source") == phashes.SOURCE).to_dicts()
    room = run.settings.blocking.phash_neighbours
    names = {neighbours.numbers(pl.Series([one]))[0]: one for one in live(run)["listing_id"]}
    held = {names[row["number"]]: {names[other] for other in row["others"][:room]} for row in lists}
    assert held.keys() == near.keys()
    assert all(held[one] <= near[one] and len(held[one]) == min(len(near[one]), room) for one in near)
    assert run.lake.read(tables.PAIRS)["blocked_by"].explode().eq(phashes.SOURCE).any()


def test_the_report_shows_the_hour(runs: list[pipeline.Run]) -> None:
    page = runs[-1].settings.reports / HOURS[1] / "index.html"
    assert HOURS[1] in page.read_text()
    assert (page.parent / "data_docs" / "validations" / "listings.html").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.with_suffix(".parquet").write_bytes(b"<html>502 Bad Gateway</html>"), "listings.parquet"),
        (lambda file: file.write_bytes(b""), "empty"),
        (lambda file: file.rename(file.with_suffix(".xlsx")), r"listings.xlsx can't be taken.*ends in .parquet, .csv"),
        (lambda file: file.write_text("listing_id,updated_at\na,2026-01-05T01:00:00Z\n"), "title"),
    ],
    ids=["no parquet", "empty", "another ending", "missing column"],
)
def test_a_batch_that_cannot_be_trusted_stops_the_hour_and_changes_nothing(shop: Path, damage, said: str) -> None:
    shutil.rmtree(shop / HOURS[0])
    file = land(shop, HOURS[1], {"listing_id": "a0", "title": "other"})
    damage(file)
    run = run_of(shop, HOURS[1])
    with pytest.raises(BatchRejected, match=said):
        pipeline.validate(run)
    assert {name for name, version in versions(run.lake).items() if version >= 0} == {"runs"}

    # The file stays where it is; the hour after it runs all the same, and the mended hour can be run later.
    land(shop, "2026-01-05T02", {"listing_id": "a9", "title": "Acme kettle 9 litre steel"})
    after = run_of(shop, "2026-01-05T02")
    up_to_clusters(after)
    assert after.lake.read(tables.LISTINGS)["listing_id"].to_list() == ["a9"]
    for bad in (shop / HOURS[1]).iterdir():
        bad.unlink()
    land(shop, HOURS[1], {"listing_id": "a0", "title": "other"})
    up_to_clusters(run)
    assert set(run.lake.read(tables.LISTINGS)["listing_id"]) == {"a0", "a9"}
    assert set(run.lake.read(tables.RUNS)["state"]) == {"succeeded"}


def test_an_hours_seconds_are_those_of_its_steps(shop: Path) -> None:
    run = run_of(shop, HOURS[0])
    for step, shard, started, seconds in (
        ("validate", "0", "01:00:00", 10.0),
        ("embed", "text", "01:00:10", 10.0),
        ("embed", "image", "01:00:15", 10.0),  # beside the other shard
        ("match", "0", "03:00:00", 5.0),  # of a second try
    ):
        run.staging.put_record(
            {
                "step": step,
                "shard": shard,
                "started_at": f"2026-01-05T{started}+00:00",
                "seconds": seconds,
                "peak_memory_bytes": 1,
                "counts": {},
            }
        )
    assert pipeline.manifest(run)["seconds"] == 10 + 15 + 5


@pytest.mark.parametrize("hour", ["2026-11-31T09", "2026-01-05T24", "2026-1-5T9", "2026-01-05T09 ", "a/2026-01-05T09"])
def test_a_run_is_named_by_an_hour_that_exists(hour: str) -> None:
    with pytest.raises(TerminalError, match=f"'{hour}', which is no hour. A run is named by its hour in UTC"):
        pipeline.Run.of(hour)


def test_late_rows_and_deletes(shop: Path) -> None:
    up_to_clusters(run_of(shop, HOURS[0]))
    land(
        shop,
        HOURS[1],
        {"listing_id": "a0", "title": "an old title", "updated_at": "2026-01-04T00:00:00Z"},
        {"listing_id": "a1", "title": None, "is_deleted": True, "updated_at": "2026-01-05T01:10:00Z"},
    )
    run = run_of(shop, HOURS[1])
    up_to_clusters(run)
    assert (counts(run)("detect_changes.stale"), counts(run)("detect_changes.deleted")) == (1, 1)
    assert "an old title" not in run.lake.read(tables.LISTINGS)["title"].to_list()
    with open_index(run.settings) as index:
        assert set(index.ids("text")) == {"a0", "a2"}


def test_a_title_that_comes_back_under_one_time_is_the_newest_and_keeps_its_vector(shop: Path) -> None:
    titles = ("Acme kettle 0 litre steel", "Bolt drill 500 W", "Acme kettle 0 litre steel")
    for hour, title in zip((*HOURS, "2026-01-05T02"), titles, strict=True):
        land(shop, hour, {"listing_id": "a0", "title": title})
        run = run_of(shop, hour)
        up_to_clusters(run)
    encoding = sys.modules["sosie.pipeline.embed"]
    stamp, now = encoding.version(run.settings, "text"), live(run).filter(listing_id="a0")
    newest = encoding.latest(run.lake, "text", stamp, now["listing_id"])
    assert newest["content_hash"].to_list() == now["text_hash"].to_list()
    before = run.lake.version(tables.TEXT_EMBEDDINGS)
    pipeline.embed(run, modality="text", shard=0, shards=1)
    assert run.lake.version(tables.TEXT_EMBEDDINGS) == before

    brief = run.settings.model_copy(update={"upkeep": run.settings.upkeep.model_copy(update={"history_days": 1e-9})})
    forget_history(pipeline.Run.of("2026-01-05T03", settings=brief))
    assert encoding.current(run.lake, "text", stamp, now).height == 1


def test_an_hour_that_died_is_finished_by_the_next_and_a_late_file_adds_to_its_own(shop: Path) -> None:
    died = run_of(shop, HOURS[0])
    pipeline.validate(died)
    pipeline.detect_changes(died)
    row = {"listing_id": "a0", "title": "Acme kettle 0 litre steel", "image_uri": "pictures/0.jpg"}
    land(shop, HOURS[0], {**row, "price": 9.0, "updated_at": "2026-01-05T00:40:00Z"}, name="late.csv")
    pipeline.validate(died)
    pipeline.detect_changes(died)
    asked = pipeline.shards(died)
    assert {part["modality"] for part in asked} == {"text", "image"}
    kinds = dict(died.lake.read(tables.CHANGES).select("listing_id", "kind").iter_rows())
    assert kinds == dict.fromkeys(("a0", "a1", "a2"), "new")

    land(shop, HOURS[1], {"listing_id": "a3", "title": "Acme kettle 3 litre steel"})
    following = run_of(shop, HOURS[1])
    up_to_clusters(following)
    with open_index(following.settings) as index:
        assert set(index.ids("text")) == {"a0", "a1", "a2", "a3"}
    assert [balance for balance in counts(following).balances if not balance.holds] == []


def test_a_cluster_that_grows_in_each_try_of_an_hour_is_told_to_grow_each_time(shop: Path) -> None:
    same = {"title": "Acme kettle 1 litre steel", "image_uri": "pictures/1.jpg"}
    land(shop, HOURS[0], {"listing_id": "z1", **same}, name="more.csv")
    up_to_clusters(run_of(shop, HOURS[0]))
    second, grew = run_of(shop, HOURS[1]), pl.col("kind") == "grew"
    for listing in ("z2", "z3"):
        land(shop, HOURS[1], {"listing_id": listing, **same}, name=f"{listing}.csv")
        up_to_clusters(second)
    assert sorted(second.lake.read(tables.CLUSTER_EVENTS, grew)["joined"].to_list()) == [["z2"], ["z3"]]
    assert counts(second)("cluster.grew") == 2


def test_decisions_of_an_hour_that_runs_late_are_the_newest(shop: Path) -> None:
    same = {"title": "Acme kettle 1 litre steel", "image_uri": "pictures/1.jpg"}
    land(shop, HOURS[1], {"listing_id": "b1", **same, "updated_at": "2026-01-05T01:10:00Z"})
    (shop / HOURS[0]).rename(shop.parent / "held back")
    up_to_clusters(run_of(shop, HOURS[1]))
    (shop.parent / "held back").rename(shop / HOURS[0])
    early = run_of(shop, HOURS[0])
    up_to_clusters(early)
    last = early.lake.read(tables.DECISIONS).sort("event_timestamp").unique("listing_id", keep="last")
    told = dict(last.select("listing_id", "cluster_id").iter_rows())
    held = dict(early.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    assert held["a1"] == held["b1"] == told["b1"] == told["a1"]


def test_a_person_is_never_overruled(shop: Path) -> None:
    same = {"title": "Acme kettle 1 litre steel", "image_uri": "pictures/1.jpg"}
    land(shop, HOURS[0], {"listing_id": "z1", **same}, {"listing_id": "z2", **same}, name="more.csv")
    first = run_of(shop, HOURS[0])
    up_to_clusters(first)
    together = dict(first.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    assert together["z1"] == together["z2"] == together["a1"]

    judge(first.lake, "z1", "z2", "different", "tester")
    judge(first.lake, "a0", "a2", "same", "tester")
    land(shop, HOURS[1], {"listing_id": "z1", **same, "price": 11.0, "updated_at": "2026-01-05T01:10:00Z"})
    second = run_of(shop, HOURS[1])
    up_to_clusters(second)
    now = dict(second.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    assert now.get("z1") != now.get("z2") or now.get("z1") is None
    assert now["a0"] == now["a2"]
    assert {"split", "shrank"} & set(second.lake.read(tables.CLUSTER_EVENTS)["kind"])
