"""The same definitions on a real Redis."""

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from sosie import features, pipeline, tables
from sosie.judgements import judge
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings, load
from sosie.tables import DECISIONS, DIM, IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS, VECTOR

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="no redis-server is installed (apt-get install redis-server)"),
    pytest.mark.skipif(importlib.util.find_spec("redis") is None, reason="no Redis client (pip install sosie[redis])"),
]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server of our own, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [str(SERVER), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        yield port
        server.terminate()


@pytest.fixture(scope="module")
def settings(redis: int, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    repo = home / "feature_repo"
    shutil.copytree(PROJECT / "feature_repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    config = (repo / "feature_store.yaml").read_text()
    kept = config[: config.index("online_store:")]
    store = f'online_store:\n  type: redis\n  connection_string: "127.0.0.1:{redis}"\n'
    (repo / "feature_store.yaml").write_text(kept + store)
    return load(home=home, feature_repo=repo, models=home / "models")


def test_decisions_and_vectors_are_served_and_removed(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    vectors = np.random.default_rng(1).normal(size=(2, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = pl.DataFrame(
        {"listing_id": ["a", "it's b"], "vector": pl.Series(vectors.tolist(), dtype=VECTOR), "content_hash": ["1", "2"]}
    ).with_columns(
        embedding_version=pl.lit("v1"), event_timestamp=pl.lit(NOON), created_timestamp=pl.lit(NOON)
    )  # fmt: skip
    decided = pl.DataFrame(
        {
            "listing_id": ["a", "it's b"], "is_duplicate": [False, True], "cluster_id": ["c1", "c1"],
            "canonical_id": ["a", "a"], "score": [0.9, 0.9], "event_timestamp": [NOON] * 2,
            "created_timestamp": [NOON] * 2, "run_id": ["2026-03-01T12"] * 2,
        }
    )  # fmt: skip
    lake.append(TEXT_EMBEDDINGS, texts)
    lake.append(DECISIONS, decided)
    none = IMAGE_EMBEDDINGS.schema.to_frame()
    first = features.publish(settings, texts, none, decided)
    assert (first["text"], first["decisions"]) == (2, 2)
    again = features.publish(settings, texts, none, decided)
    assert (again["text"], again["text_unchanged"], again["decisions_unchanged"]) == (0, 2, 2)
    late = features.publish(
        settings, texts[:0], none, decided.with_columns(event_timestamp=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))
    )
    assert late["decisions_late"] == 2
    assert features.lookup(settings, ["it's b", "nobody", "a"]).rows() == [
        ("it's b", True, "c1", "a", 0.9),
        ("nobody", None, None, None, None),
        ("a", False, "c1", "a", 0.9),
    ]
    store = features.store(settings)

    def vector(one: str) -> object:
        asked = store.get_feature_service("text_vectors_v1")
        return store.get_online_features(features=asked, entity_rows=[{"listing_id": one}]).to_dict()["text_vector"][0]

    np.testing.assert_array_equal(vector("a"), vectors[0])
    assert features.forget(settings, pl.Series(["a", "never there"])) == 1
    assert vector("a") is None
    np.testing.assert_array_equal(vector("it's b"), vectors[1])
    assert features.lookup(settings, ["a"])["cluster_id"].to_list() == ["c1"], "its decision stays"


def test_a_veto_within_the_hour_that_it_corrects_reaches_the_storefront(settings: Settings) -> None:
    lake, hour = Lake(settings.lake_uri), "2026-03-01T12"
    none = TEXT_EMBEDDINGS.schema.to_frame(), IMAGE_EMBEDDINGS.schema.to_frame()

    def put(table: tables.Table, *some: dict[str, object]) -> None:
        lake.append(table, pl.DataFrame([dict.fromkeys(table.columns) | row for row in some], schema=table.schema))

    def told() -> list[tuple[bool, str]]:
        features.publish(settings, *none, lake.read(DECISIONS))
        return features.lookup(settings, ["c", "d"]).select("is_duplicate", "canonical_id").rows()

    known = {"updated_at": NOON, "is_deleted": False, "content_hash": "0", "first_seen_run": hour}
    put(tables.LISTINGS, *({**known, "listing_id": one} for one in "cd"))
    put(tables.PAIRS, {"left_id": "c", "right_id": "d", "score": 0.9, "verdict": "match"})
    put(tables.REGROUP, *({"listing_id": one} for one in "cd"))
    pipeline.cluster(pipeline.Run.of(hour, settings=settings))
    put(tables.RUNS, {"run_id": hour, "state": "succeeded", "finished_at": NOON})
    assert told() == [(False, "c"), (True, "c")]
    assert pipeline.part(settings, [judge(lake, "c", "d", "different", "ada")]) == "split"
    assert told() == [(False, None), (False, None)]

    version = lake.version(DECISIONS)
    pipeline.cluster(pipeline.Run.of(hour, settings=settings))
    assert lake.version(DECISIONS) == version, "an hour that is run again and changes nothing decides nothing"
