"""A second embedding version beside the live one: built while hours run, killed, compared, switched to, gone back from.

Real encoders of two versions, a real lake, index and feature store; kills are real kills.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sosie import features, fence, pipeline, rebuild, registry, tables
from sosie.artifacts import CARD, save
from sosie.errors import ModelError, SettingsError, StoreBusy
from sosie.features.versions import view_name
from sosie.index import open_index, server
from sosie.judgements import judge
from sosie.lake import Lake
from sosie.rebuild import measures
from sosie.rebuild.comparison import folder
from sosie.rebuild.instep import under_way
from sosie.rebuild.target import begin
from sosie.registry import Source
from sosie.settings import PROJECT, Settings, load
from sosie.simulate import Marketplace, write

SHIPPED = PROJECT / "models"
PARTITION = ["listing_id", "cluster_id"]


def variant(place: Path) -> Path:
    """Encoders that read five tokens of a title, and pictures by weights that were shaken: really other vectors."""
    shutil.copytree(SHIPPED, place)
    _shake(place / "image" / "encoder.onnx")
    for name, change in (("text", {"max_tokens": 5}), ("image", {}), ("decider", {"match_at": 0.5})):
        card = json.loads((place / name / CARD).read_text())
        assert set(change) <= set(card["usage"])
        save(place / name, card["kind"], list(card["files"]), card["usage"] | change, card["about"])
    return place


def _shake(graph: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model, rng = onnx.load(graph), np.random.default_rng(1)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > 64:
            shaken = values * rng.normal(1, 0.2, values.shape).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(shaken, weight.name))
    onnx.save(model, graph)


def register(settings: Settings, models: Path) -> str:
    scores = {"a": {"row_f1": 0.8, "row_f1_standard_error": 0.01}}
    worse = {"a": {"row_f1": 0.7, "row_f1_standard_error": 0.01}}
    return registry.register(settings, models, Source("small", "0123456789ab", None), scores, worse, "ann").id


def stamps(models: Path) -> dict[str, str]:
    return registry.versions_of(models)


def live(lake: Lake) -> pl.DataFrame:
    return lake.read(tables.LISTINGS, ~pl.col("is_deleted"))


def assert_whole(settings: Settings, models: Path) -> None:
    """Both collections of these models hold every live listing that has the modality, by its newest content, once."""
    lake = Lake(settings.lake_uri)
    with open_index(settings) as index:
        for modality, table in (("text", tables.TEXT_EMBEDDINGS), ("image", tables.IMAGE_EMBEDDINGS)):
            stamp = stamps(models)[modality]
            wanted = live(lake).drop_nulls(f"{modality}_hash")
            ids = list(index.ids(modality, version=stamp))
            assert sorted(ids) == sorted(wanted["listing_id"]), modality
            rows = lake.read(table, pl.col("embedding_version") == stamp)
            assert rows.select("listing_id", "content_hash", "event_timestamp").is_duplicated().sum() == 0
            now = wanted.join(
                rows, left_on=["listing_id", f"{modality}_hash"], right_on=["listing_id", "content_hash"]
            ).unique("listing_id")
            assert now.height == wanted.height
            from sosie.vectors import matrix

            assert index.upsert(modality, now["listing_id"].to_list(), matrix(now), version=stamp).rows == 0, modality


def partition(lake: Lake) -> set[frozenset[str]]:
    held = lake.read(tables.CLUSTERS).group_by("cluster_id").agg("listing_id")
    return {frozenset(members) for members in held["listing_id"].to_list()}


def pairs(lake: Lake) -> pl.DataFrame:
    return (
        lake.read(tables.PAIRS)
        .select("left_id", "right_id", pl.col("score").round(6), "verdict")
        .sort("left_id", "right_id")
    )


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("market")
    write(place, Marketplace(listings=90, hours=5, seed=11))
    return place


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variant(tmp_path_factory.mktemp("other") / "models")


@pytest.fixture
def until_the_end() -> Iterator[ExitStack]:
    """What is entered here is left when the test ends."""
    with ExitStack() as entered:
        yield entered


def hours(market: Path) -> list[str]:
    return sorted(place.name for place in (market / "landing").glob("*T*"))


def run(home: Path, market: Path, hour: str, **more: object) -> pipeline.Run:
    done = pipeline.Run.of(hour, settings=load(home=home, landing=market / "landing", **more))
    pipeline.run_all(done)
    return done


def all_at_once(place: Path, models: Path, settings: Settings) -> Lake:
    """The catalogue as it is now, decided from nothing by these models in another home."""
    lake, fresh = Lake(settings.lake_uri), load(home=place, models=models, pictures_root=settings.pictures_root)
    hour = "2026-06-01T00"
    copy = Lake(fresh.lake_uri)
    rows = lake.read(tables.LISTINGS)
    copy.upsert(tables.LISTINGS, rows)
    changed = rows.filter(~pl.col("is_deleted")).select(
        pl.lit(hour).alias("run_id"), "listing_id", pl.lit("new").alias("kind"), "text_hash", "image_hash"
    )
    copy.upsert(tables.CHANGES, changed)
    copy.upsert(tables.JUDGEMENTS, lake.read(tables.JUDGEMENTS))
    (place / "lake" / "pictures").symlink_to(Path(settings.lake_uri) / "pictures")
    again = pipeline.Run(hour, fresh)
    for part in pipeline.shards(again):
        pipeline.embed(again, **part)
    with server.serve(fresh):
        pipeline.upsert_vectors(again)
        pipeline.match(again)
        pipeline.cluster(again)
    return copy


BUILD = """
import sys
from sosie import rebuild
from sosie.settings import load
settings = load(home=sys.argv[1], rebuild={"chunk": 4})
rebuild.build(settings, rebuild.Target.of(settings, sys.argv[2]))
"""


def test_an_hour_that_can_not_follow_is_not_done_until_the_second_version_is_abandoned(
    market: Path, other: Path, tmp_path: Path, until_the_end: ExitStack
) -> None:
    """`follow` comes before `report`: an hour that is told as done has left no gap, which a switch builds on."""
    home, feed = tmp_path / "home", hours(market)
    first = run(home, market, feed[0])
    until_the_end.enter_context(server.serve(first.settings))
    target = rebuild.Target.of(first.settings, register(first.settings, other))
    begin(first.settings, target)
    shutil.rmtree(target.models / "text")

    with pytest.raises(ModelError, match="text"):
        run(home, market, feed[1])
    stopped = pipeline.Run(feed[1], first.settings)
    assert stopped.staging.records()[-1]["step"] == "publish_features", "the storefront has the hour's answers"
    assert first.lake.read(tables.RUNS)["run_id"].to_list() == [feed[0]]
    changed = first.lake.read(tables.CHANGES, pl.col("run_id") == feed[1])["listing_id"]
    assert changed.len() > 0
    assert set(under_way(first.lake)) == set(changed)

    command = [sys.executable, "-c", "from sosie.cli import app; app(['rebuild', '--abandon'])"]
    mine = os.environ | {"SOSIE_HOME": str(home)}
    told = subprocess.run(command, env=mine, capture_output=True, text=True, check=True)
    assert "hours write it no more" in told.stdout
    run(home, market, feed[1])
    assert set(first.lake.read(tables.RUNS)["state"]) == {"succeeded"}
    assert under_way(first.lake).is_empty()


def test_the_whole_way_and_back(market: Path, other: Path, tmp_path: Path, until_the_end: ExitStack) -> None:
    home = tmp_path / "home"
    feed = hours(market)
    first = run(home, market, feed[0])
    settings = first.settings.model_copy(update={"landing": load(home=home).landing})
    lake = first.lake
    id_ = register(settings, other)
    target = rebuild.Target.of(settings, id_)
    models = target.models
    assert target.modalities(settings) == ["text", "image"]
    assert rebuild.second(settings) is None

    # Two of one cluster are told apart by a person, who is heard by every version from now on.
    cluster = lake.read(tables.CLUSTERS).sort("cluster_id", "listing_id").head(2)["listing_id"].to_list()
    judge(lake, *cluster, "different", "ann")

    # A build is killed in the middle, and an hour goes by before it is started again.
    with subprocess.Popen([sys.executable, "-c", BUILD, str(home), id_]) as process:
        until = time.monotonic() + 120
        while (told := rebuild.progress(settings)) is None or not told.done:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    begun = lake.read(tables.TEXT_EMBEDDINGS, pl.col("embedding_version") == target.versions["text"])
    assert 0 < begun.height < live(lake).height, "killed in the middle"
    until_the_end.enter_context(server.serve(settings))  # the one that the killed process left, from here on kept up
    second = run(home, market, feed[1])
    assert rebuild.second(settings) == target
    told = next(step for step in pipeline.manifest(second)["steps"] if step["name"] == "follow")
    assert told["counts"]["versions"] == 2
    assert told["counts"]["moved"] > 0

    counts = rebuild.build(settings, target)
    assert 0 < counts["text_computed"] < live(lake).height - begun.height + 1
    assert_whole(settings, models)
    assert_whole(settings, SHIPPED)
    again = rebuild.build(settings, target)
    assert {name: value for name, value in again.items() if value and not name.endswith("_held")} == {}

    run(home, market, feed[2])
    assert_whole(settings, models)
    assert_whole(settings, SHIPPED)

    # The comparison is about two really different versions.
    found = rebuild.compare(settings, target)
    assert 0 < found["overlap"]["text"]["mean"] < 1
    assert 0 < found["overlap"]["image"]["mean"] < 1
    assert found["recall"]["in one cluster"]["old"] > 0.5
    assert sum(found["decisions"]["verdicts"].values()) == found["decisions"]["pairs"] > 0
    assert sum(row["listings"] for row in found["categories"]) == live(lake).height
    assert found["counts"]["text"]["new"] == found["counts"]["text"]["expected"]
    assert json.loads((folder(settings, target) / "comparison.json").read_text()) == found
    page = (folder(settings, target) / "index.html").read_text()
    assert id_ in page
    assert f"{found['decisions']['agree']:.1%}" in page

    # Promotion: pairs and clusters are what the new models say of the catalogue from nothing, but for a person's word.
    ids_before = dict(lake.read(tables.CLUSTERS).select(PARTITION).iter_rows())
    before = lake.read(tables.DECISIONS).height
    counts = registry.promote(settings, id_, "ann")
    promoted = load(home=home)
    assert promoted.models == models
    with open_index(promoted) as index:
        assert (index.version("text"), index.version("image")) == (target.versions["text"], target.versions["image"])
    assert counts["pairs_match"] == lake.read(tables.PAIRS, pl.col("verdict") == "match").height
    assert set(lake.read(tables.PAIRS)["decider_version"]) == {target.versions["decider"]}
    assert lake.read(tables.CHANGES, pl.col("run_id").str.contains("~")).is_empty()
    fresh = all_at_once(tmp_path / "fresh", models, settings)
    assert pairs(lake).equals(pairs(fresh))
    assert partition(lake) == partition(fresh)
    assert not any(set(cluster) <= members for members in partition(lake))
    ids_after = dict(lake.read(tables.CLUSTERS).select(PARTITION).iter_rows())
    kept = [one for one in ids_after if one in ids_before]
    assert any(ids_after[one] == ids_before[one] for one in kept), "clusters that stay keep their ids"
    assert lake.read(tables.DECISIONS).height >= before

    from sosie import features

    clusters = lake.read(tables.CLUSTERS)
    shown = features.lookup(promoted, clusters["listing_id"].to_list())
    assert shown["cluster_id"].to_list() == clusters["cluster_id"].to_list()

    # Hours go on by the new models and keep the old index in step, so that going back embeds nothing.
    third = run(home, market, feed[3])
    assert third.settings.models == models
    assert_whole(promoted, models)
    assert_whole(promoted, SHIPPED)
    with pytest.raises(StoreBusy, match="were switched"):
        pipeline.match(second)  # a process that was started before the switch

    counts = registry.rollback(promoted, "bob")
    assert (counts["text_computed"], counts["image_computed"]) == (0, 0)
    back = load(home=home)
    assert back.models == SHIPPED
    with open_index(back) as index:
        assert index.version("text") == stamps(SHIPPED)["text"]
    fresh = all_at_once(tmp_path / "again", SHIPPED, settings)
    assert pairs(lake).equals(pairs(fresh))
    assert partition(lake) == partition(fresh)
    assert not any(set(cluster) <= members for members in partition(lake))
    run(home, market, feed[4])
    assert_whole(back, SHIPPED)


# --- crashes ---------------------------------------------------------------------------------------------------------

SWITCH = """
import os, sys
from sosie import registry
from sosie.index import VectorIndex
from sosie.rebuild import switch
from sosie.settings import load

home, id_, point = sys.argv[1:]
die = lambda *_, **__: os._exit(9)
if point == "before the commit":
    registry.commit = die
elif point == "after the commit":
    commit = registry.commit
    registry.commit = lambda *args: (commit(*args), os._exit(9))
elif point == "between the aliases":
    moved = VectorIndex.promote
    def once(self, modality, version):
        moved(self, modality, version)
        os._exit(9)
    VectorIndex.promote = once
else:
    switch.match = die
registry.promote(load(home=home), id_, "ann")
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`market`, and `home` with its first hour run: each switch that dies has a copy of both."""
    place = tmp_path_factory.mktemp("begun")
    write(place / "market", Marketplace(listings=40, hours=2, seed=4))
    run(place / "home", place / "market", hours(place / "market")[0])
    return place


@pytest.mark.parametrize("point", ["before the commit", "after the commit", "between the aliases", "before the pairs"])
def test_a_switch_that_dies_leaves_one_version_and_the_next_hour_ends_it(
    point: str, begun: Path, other: Path, tmp_path: Path, until_the_end: ExitStack
) -> None:
    home, market = (shutil.copytree(begun / name, tmp_path / name) for name in ("home", "market"))
    settings = load(home=home, landing=market / "landing")
    id_ = register(settings, other)
    target = rebuild.Target.of(settings, id_)
    died = subprocess.run([sys.executable, "-c", SWITCH, str(home), id_, point], check=False)
    assert died.returncode == 9

    now = load(home=home)
    until_the_end.enter_context(server.serve(now))  # the one that the dead process left
    assert now.models == (SHIPPED if point == "before the commit" else target.models)
    with open_index(now) as index:
        for modality in ("text", "image"):
            assert index.version(modality) == stamps(now.models)[modality]
    lake = Lake(now.lake_uri)
    assert not lake.read(tables.CHANGES, pl.col("run_id").str.contains("~")).is_empty()
    run(home, market, hours(market)[1])
    assert lake.read(tables.CHANGES, pl.col("run_id").str.contains("~")).is_empty(), "the next hour took it over"
    assert set(lake.read(tables.PAIRS)["decider_version"]) == {stamps(now.models)["decider"]}
    assert_whole(now, now.models)
    # Asked for again, the switch is made, or is there already.
    registry.promote(load(home=home), id_, "ann")
    assert load(home=home).models == target.models
    assert set(lake.read(tables.PAIRS)["decider_version"]) == {target.versions["decider"]}


# --- small parts -----------------------------------------------------------------------------------------------------


def test_steps_share_and_a_switch_is_alone(tmp_path: Path) -> None:
    patient = load(home=tmp_path, rebuild={"wait_seconds": 0.3})
    with fence.sharing(patient), fence.sharing(patient), pytest.raises(StoreBusy, match="the steps of an hour"):
        fence.alone(patient).__enter__()
    with fence.alone(patient), fence.sharing(patient):
        code = "import sys; from sosie import fence; from sosie.settings import load\n"
        code += "with fence.sharing(load(home=sys.argv[1], rebuild={'wait_seconds': 0.3})): pass"
        told = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, env=os.environ
        )
        assert "a switch of models to end" in told.stderr


def test_a_second_index_is_abandoned_and_leaves_a_gap(tmp_path: Path, other: Path) -> None:
    from sosie.rebuild.target import begin, rebuilding

    settings = load(home=tmp_path)
    target = rebuild.Target.of(settings, register(settings, other))
    assert not begin(settings, target)
    assert begin(settings, target), "hours have written it since"
    with rebuilding(settings), pytest.raises(StoreBusy, match="rebuilding the index"):
        rebuild.abandon(settings)
    rebuild.abandon(settings)
    assert rebuild.second(settings) is None
    assert not begin(settings, target), "there is a gap"
    with pytest.raises(SettingsError, match="unset SOSIE_MODELS"):
        registry.check_switchable(load(home=tmp_path, models=other))


def test_the_shell_builds_tells_and_abandons(tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a home that has no catalogue yet."""
    from typer.testing import CliRunner

    from sosie import settings as settings_module
    from sosie.cli import EXIT_TERMINAL, app

    id_ = register(load(home=tmp_path), other)
    monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def sosie(*arguments: str) -> tuple[int, str]:
        settings_module.settings.cache_clear()
        told = CliRunner().invoke(app, list(arguments))
        settings_module.settings.cache_clear()
        return told.exit_code, " ".join(told.output.split())

    assert sosie("rebuild", "--status") == (0, "No second index.")
    code, told = sosie("rebuild", "--models", "nobody")
    assert (code, f"There are: {id_}" in told) == (EXIT_TERMINAL, True)
    code, told = sosie("rebuild", "--models", "packaged")
    assert (code, "no second index to build" in told) == (EXIT_TERMINAL, True)
    code, told = sosie("rebuild", "--models", id_)
    assert (code, f"`sosie promote {id_}` switches" in told) == (0, True), told
    assert (folder(load(home=tmp_path), rebuild.Target.of(load(home=tmp_path), id_)) / "index.html").exists()
    assert f"{id_}: ready" in sosie("rebuild", "--status")[1]
    assert f"{id_}: hours write it no more" in sosie("rebuild", "--abandon")[1]
    assert sosie("rebuild", "--status") == (0, "No second index.")


def test_a_switch_of_deciders_lets_a_build_of_another_go_on(tmp_path: Path, other: Path) -> None:
    from sosie.rebuild.target import begin, close

    settings = load(home=tmp_path)
    target, packaged = rebuild.Target.of(settings, register(settings, other)), rebuild.Target.of(settings, None)
    begin(settings, target)
    close(settings, packaged)
    assert rebuild.second(settings) == target
    close(settings, target)
    assert rebuild.second(settings) is None


def test_the_measures() -> None:
    near = pl.DataFrame({"query_id": ["a", "a", "b", "b"], "listing_id": ["x", "y", "x", "z"]})
    moved = pl.DataFrame({"query_id": ["a", "a", "b", "b"], "listing_id": ["x", "q", "p", "q"]})
    assert measures.overlap(near, moved).rows() == [("a", 0.5), ("b", 0.0)]
    known = pl.DataFrame({"left_id": ["a", "b", "p"], "right_id": ["x", "y", "z"]})
    assert measures.recalled(known, near) == pytest.approx(1 / 3)
    assert measures.recalled(known.clear(), near) is None
    scores = np.array([0.1, 0.5, 0.9])
    old = pl.DataFrame(
        {
            "left_id": ["a", "a", "b"],
            "right_id": ["x", "y", "x"],
            "score": scores,
            "verdict": ["no_match", "review", "match"],
        }
    )
    new = old.with_columns(score=pl.Series([0.1, 0.8, 0.9]), verdict=pl.Series(["no_match", "match", "match"]))
    agreed = measures.agreement(old, new)
    assert agreed["agree"] == pytest.approx(2 / 3)
    assert agreed["verdicts"]["review → match"] == 1
    drifted = measures.drift(old, new)
    assert drifted["shift"] == drifted["distance"] == pytest.approx(0.1)
    assert drifted["psi"] > 0
    assert measures.drift(old, old)["psi"] == 0
    assert measures.flipped(old, new, 5).select("left_id", "right_id", "new_verdict").rows() == [("a", "y", "match")]
    clusters = pl.DataFrame({"listing_id": ["c", "a", "b", "d"], "cluster_id": ["1", "1", "1", "2"]})
    assert measures.inside_clusters(clusters).rows() == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_home_moves_to_the_models_without_a_transformer(market: Path, tmp_path: Path) -> None:
    """Its hours say what to do first; afterwards it is as a home that never had others."""
    light, home = SHIPPED / "light", tmp_path / "home"
    first, second, *_ = hours(market)
    run(home, market, first)
    with pytest.raises(SettingsError, match="Run `sosie rebuild`"):
        run(home, market, second, models=light)
    settings = load(home=home, landing=market / "landing", models=light, rebuild={"chunk": 7})
    rebuild.in_place(settings)
    lake = Lake(settings.lake_uri)
    ids = lake.read(tables.LISTINGS, ~pl.col("is_deleted"))["listing_id"].to_list()
    view = view_name("text", registry.versions_of(light)["text"])
    online = features.store(settings).get_online_features([f"{view}:text_vector"], {"listing_id": ids}).to_dict()
    assert [len(vector) for vector in online["text_vector"]] == [tables.DIM] * len(ids)
    run(home, market, second, models=light)
    assert set(lake.read(tables.PAIRS)["decider_version"]) == {registry.versions_of(light)["decider"]}
    fresh = all_at_once(tmp_path / "fresh", light, settings)
    assert partition(lake) == partition(fresh)
    assert pairs(lake).equals(pairs(fresh))
