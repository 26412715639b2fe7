"""Hours, upkeep and other models over a Milvus proper: the same tables as over the embedded one, mended the same way.

What the index does by itself there is in test_index.
"""

from collections.abc import Iterator

import pytest
from homes import land, milvus_proper
from polars.testing import assert_frame_equal

from sosie import doctor, pipeline, rebuild, registry, tables
from sosie.errors import IndexOutOfStep
from sosie.index import alias_name, collection_name, open_index, server
from sosie.lake import Lake
from sosie.pipeline.embed import version
from sosie.registry import Source
from sosie.settings import Settings, load
from sosie.simulate import Marketplace, write
from sosie.upkeep import upkeep


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    market = tmp_path_factory.mktemp("market")
    write(market, Marketplace(listings=300, hours=3, seed=5))
    return load(home=market / "embedded", landing=market / "landing")


@pytest.fixture(scope="module")
def proper(embedded: Settings) -> Iterator[Settings]:
    home = embedded.landing.parent / "proper"
    with milvus_proper(home) as uri:
        # Every search is the index's: a first hour would be joined in process.
        yield load(home=home, landing=embedded.landing, milvus_uri=uri, blocking={"join_above_share": 1.0})


@pytest.fixture(scope="module")
def ran(embedded: Settings, proper: Settings) -> Settings:
    for settings in (embedded, proper):
        with server.serve(settings):
            for hour in sorted(place.name for place in settings.landing.glob("*T*")):
                pipeline.run_all(pipeline.Run.of(hour, settings=settings))
    assert not server.folder(proper).exists(), "no embedded server was started beside it"
    return proper


@pytest.mark.parametrize("table", [tables.PAIRS, tables.CLUSTERS, tables.CLUSTER_EVENTS], ids=lambda table: table.name)
def test_hours_write_what_they_write_over_the_embedded_index(
    ran: Settings, embedded: Settings, table: tables.Table
) -> None:
    there, here = (Lake(settings.lake_uri).read(table).sort(table.key) for settings in (embedded, ran))
    assert there.height > 20
    assert_frame_equal(here, there)


def test_what_it_lost_is_told_and_mended(ran: Settings) -> None:
    with open_index(ran) as index:
        ids = sorted(index.ids("text"))
        index.delete("text", ids[:3])
    (found,) = (one for one in doctor.examine(ran, only=("index",)) if one.state == "fault")
    assert f"{len(ids) - 3} vectors" in found.detail
    assert upkeep(ran)["check_stores"]["text_astray"] == 3
    with open_index(ran) as index:
        assert sorted(index.ids("text")) == ids
    assert {one.state for one in doctor.examine(ran, only=("index",))} == {"ok"}


def test_an_hour_over_one_that_was_never_filled_is_refused(ran: Settings) -> None:
    with open_index(ran) as index:
        held = index.count("text")
        for modality in tables.MODALITIES:
            name = collection_name(modality, version(ran, modality))
            index._milvus.call("drop_alias", alias_name(modality))
            index._milvus.call("drop_collection", name)
    hour = "2026-01-06T00"
    rows = ({"listing_id": f"late{n}", "title": f"Acme kettle {n}", "updated_at": f"{hour}:10:00Z"} for n in range(20))
    land(ran.landing, hour, *rows)
    with pytest.raises(IndexOutOfStep, match=rf"holds no text vectors, and {held} listings .* `sosie rebuild`"):
        pipeline.run_all(pipeline.Run.of(hour, settings=ran))
    rebuild.in_place(ran)
    pipeline.run_all(pipeline.Run.of(hour, settings=ran))
    with open_index(ran) as index:
        assert index.count("text") == held + 20


def test_other_models_are_built_beside_and_served(ran: Settings) -> None:
    better, worse = ({"a": {"row_f1": f1, "row_f1_standard_error": 0.01}} for f1 in (0.8, 0.7))
    source = Source("small", "0123456789ab", None)
    candidate = registry.register(ran, ran.models / "light", source, better, worse, "ann")
    before = version(ran, "text")
    rebuild.build(ran, rebuild.Target.of(ran, candidate.id))
    registry.promote(ran, candidate.id, "ann")
    live = load(home=ran.home, landing=ran.landing, milvus_uri=ran.milvus_uri)
    with open_index(live) as index:
        assert index.version("text") == version(live, "text") != before
        assert index.count("text") == index.count("text", version=before)
    registry.rollback(live, "bob")
    with open_index(ran) as index:
        assert index.version("text") == before
