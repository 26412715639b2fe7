"""The index against a dictionary and brute force, on the embedded server and on a Milvus proper; and the embedded one
against kill -9 and sharing.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from homes import milvus_proper
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sosie import settings
from sosie.errors import IndexOutOfStep, IndexUnavailable, SchemaMismatch, SettingsError, TerminalError
from sosie.index import VectorIndex, collection_name, open_index
from sosie.index import server as milvus_server
from sosie.index.ahead import ahead
from sosie.index.client import MilvusCalls, among
from sosie.index.profiles import PROFILES, index_params, profile_for
from sosie.index.rows import NEIGHBOURS
from sosie.lake import Written
from sosie.tables import DIM

AWKWARD = ["it's", 'a "quoted" one', "back\\slash", "new\nline", "{braces}", "ünï 漢字 🙂", "a','b", " space ", "%_"]


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(held: dict[str, np.ndarray], ids: list[str], vectors: np.ndarray, k: int) -> dict[str, list[float]]:
    matrix = np.array(list(held.values())).reshape(-1, DIM)
    names = np.array(list(held), dtype=object)
    return {
        one: sorted((vector @ matrix[names != one].T).tolist(), reverse=True)[:k]
        for one, vector in zip(ids, vectors, strict=True)
    }


def make_settings(home: Path, **more: object) -> settings.Settings:
    return settings.load(home=home, **more)


def server_pid(given: settings.Settings) -> int:
    process = milvus_server.process(given)
    assert process is not None
    return int(process.pid)


def comes(given: settings.Settings) -> int:
    """The pid of a server that somebody has started, once it holds its folder."""
    while (process := milvus_server.process(given)) is None:
        time.sleep(0.05)
    return int(process.pid)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    folder = tmp_path_factory.mktemp("index")
    if request.param == "embedded":
        yield make_settings(folder)
        return
    with milvus_proper(folder) as uri:
        yield make_settings(folder, milvus_uri=uri)


@pytest.fixture(scope="module")
def index(home: settings.Settings) -> Iterator[VectorIndex]:
    with open_index(home) as opened:
        pid = None if home.milvus_uri else server_pid(home)
        yield opened
    assert pid is None or not alive(pid)


def test_random_writes_leave_what_a_dictionary_would(index: VectorIndex) -> None:
    rng = np.random.default_rng(7)
    index.ensure("text", "model1")
    pool, held = AWKWARD + [f"listing-{i}" for i in range(400)], {}
    for step in range(25):
        ids = [pool[i] for i in rng.choice(len(pool), size=int(rng.integers(1, 120)), replace=False)]
        dice = rng.random()
        if dice < 0.2:  # half of them in, half of them out, in one go
            come, go = ids[::2], ids[1::2]
            vectors = unit(rng, len(come))
            gone = [one for one in go if held.pop(one, None) is not None]
            updated = sum(one in held for one in come)
            held.update(zip(come, vectors, strict=True))
            wanted = Written(len(come) - updated, updated, len(go) - len(gone), len(gone))
            assert index.exchange("text", come, vectors, go) == wanted
            assert index.count("text") == len(held)
        elif dice < 0.45:
            written = index.delete("text", ids)
            gone = [one for one in ids if held.pop(one, None) is not None]
            assert written == Written(deleted=len(gone), unchanged=len(ids) - len(gone))
        else:
            vectors = unit(rng, len(ids))
            same = [at for at, one in enumerate(ids) if one in held and rng.random() < 0.5]
            for at in same:
                vectors[at] = held[ids[at]]
            new = sum(one not in held for one in ids)
            assert index.upsert("text", ids, vectors) == Written(
                inserted=new, updated=len(ids) - new - len(same), unchanged=len(same)
            )
            held.update(zip(ids, vectors, strict=True))
        assert index.count("text") == len(held)
        if step % 6 == 0 and held:
            assert set(index.ids("text")) == set(held)
            queries = [*ids[:20], "never held"]
            vectors = unit(rng, len(queries))
            found = index.search("text", queries, vectors, 15)
            assert dict(found.schema) == NEIGHBOURS
            assert found.filter(pl.col("query_id") == pl.col("listing_id")).is_empty()
            for one, expected in brute_force(held, queries, vectors, 15).items():
                rows = found.filter(pl.col("query_id") == one)
                np.testing.assert_allclose(rows["similarity"], expected, atol=1e-5)
                at = queries.index(one)
                for other, similarity in rows.select("listing_id", "similarity").rows():
                    assert abs(float(vectors[at] @ held[other]) - similarity) < 1e-5


def test_search_leaves_out_the_query_itself_and_what_is_too_far(index: VectorIndex) -> None:
    rng = np.random.default_rng(1)
    index.ensure("image", "model1")
    base = unit(rng, 1)
    near = base + 0.01 * unit(rng, 3)
    vectors = np.concatenate([base, near / np.linalg.norm(near, axis=1, keepdims=True), unit(rng, 1500)])
    ids = [f"p{i}" for i in range(len(vectors))]
    index.upsert("image", ids, vectors)
    found = index.search("image", ids, vectors, 5, min_similarity=0.9)  # more than one batch
    assert set(found["query_id"]) == set(ids[:4])
    assert found.height == 4 * 3
    assert index.search("image", [], np.empty((0, DIM), np.float32), 5).is_empty()


def test_rebuild_makes_the_collection_equal_to_the_lake(index: VectorIndex) -> None:
    rng = np.random.default_rng(2)
    ids, vectors = pl.Series([f"r{i}" for i in range(30)]), unit(rng, 30)
    assert index.rebuild_from("text", "model2", ids, vectors) == Written(inserted=30)
    assert index.rebuild_from("text", "model2", ids[10:], vectors[10:]) == Written(unchanged=20, deleted=10)
    assert index.count("text", version="model2") == 20
    assert index.rebuild_from("text", "model2", ids[:0], vectors[:0]) == Written(deleted=20)


def test_the_alias_moves_only_on_purpose_and_guards_its_collection(index: VectorIndex) -> None:
    index.ensure("image", "model1")
    with pytest.raises(SettingsError, match="serves embedding version model1"):
        index.ensure("image", "model9")
    with pytest.raises(IndexOutOfStep, match="no collection listings_image_model9"):
        index.promote("image", "model9")
    index.create("image", "model9")
    assert index.versions("image") == ["model1", "model9"]
    assert index.promote("image", "model9") == "model1"
    assert (index.version("image"), index.count("image")) == ("model9", 0)
    with pytest.raises(SettingsError, match="being served"):
        index.drop("image", "model9")
    assert index.promote("image", "model1") == "model9"
    index.drop("image", "model9")
    assert index.versions("image") == ["model1"]


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "large"])
def test_every_profile_finds_near_duplicates(home: settings.Settings, profile: str) -> None:
    with open_index(home.model_copy(update={"milvus_profile": profile})) as index:
        index.ensure("image", "model1")
        assert index.fit("image", "model1", 50) == (profile != "exact")
        assert not index.fit("image", "model1", 50)
        rng = np.random.default_rng(3)
        vectors = unit(rng, 50)
        ids = [f"n{i}" for i in range(50)]
        index.upsert("image", ids, vectors)
        found = index.search("image", [f"query of {one}" for one in ids], vectors, 1)
        assert found["listing_id"].to_list() == ids
        assert found["similarity"].min() > 0.98  # eight bits a number


def test_a_graph_is_asked_for_more_than_it_looks_at_otherwise(home: settings.Settings) -> None:
    vectors = unit(np.random.default_rng(4), 2_000)  # Milvus builds no graph over a few
    ids = [f"g{i}" for i in range(len(vectors))]
    for profile in ("exact", "graph"):
        with open_index(home.model_copy(update={"milvus_profile": profile})) as index:
            index.ensure("image", "model1")
            index.upsert("image", ids, vectors)
            index.compact("image", "model1")
            index.fit("image", "model1", len(ids))
    with open_index(home.model_copy(update={"milvus_profile": "graph"})) as index:
        index.ensure("image", "model1")
        found = index.search("image", ids[:5], vectors[:5], 2 * PROFILES["graph"].search["ef"])
    assert found.group_by("query_id").len()["len"].to_list() == [2 * PROFILES["graph"].search["ef"]] * 5


def test_a_collection_is_indexed_anew_when_it_outgrew_its_profile(index: VectorIndex) -> None:
    index.create("text", "grown")
    index.upsert("text", ["a", "b"], unit(np.random.default_rng(3), 2), version="grown")
    assert not index.fit("text", "grown", 100_000)
    assert index.fit("text", "grown", 100_001)
    assert index_type(index, "grown") == "IVF_SQ8"
    assert index.count("text", version="grown") == 2
    assert not index.fit("text", "grown", 10), "one that shrank is left"


@pytest.mark.parametrize("first", ["read", "fit"])
def test_an_index_that_was_taken_away_and_not_made_again_is_made(
    home: settings.Settings, index: VectorIndex, first: str
) -> None:
    cut = f"cut_{first}"
    index.create("text", cut)
    index.upsert("text", ["a", "b"], unit(np.random.default_rng(3), 2), version=cut)
    name = collection_name("text", cut)
    index._milvus.call("release_collection", name)
    index._milvus.call("drop_index", name, "vector")
    with open_index(home) as later:
        if first == "fit":
            assert later.fit("text", cut, 2)
        assert later.count("text", version=cut) == 2
        later.fit("text", cut, 2)  # the embedded server reads without an index
        assert index_type(later, cut) == "FLAT"


def index_type(index: VectorIndex, version: str) -> str:
    told = index._milvus.call("describe_index", collection_name("text", version), "vector")
    return str(told["index_type"])


def test_profiles_go_by_size_and_by_what_the_server_has(index: VectorIndex) -> None:
    sizes = (0, 100_000, 100_001, 10**7, 10**7 + 1, 10**9)
    small = ["exact", "exact", "compressed", "compressed"]
    assert [profile_for(rows, "v2.6.4") for rows in sizes] == [*small, "large", "large"]
    for older in ("", "v2.5.12", "2.3.5-dev"):
        assert [profile_for(rows, older) for rows in sizes] == [*small, "compressed", "compressed"]
    assert profile_for(10**9, "3.0.1") == "large"
    assert index.profile_for(10**9) == "compressed"


def test_the_large_profile_is_what_milvus_documents_for_rabitq() -> None:
    # https://milvus.io/docs/ivf-rabitq.md; no server here has this index, so its names are all that can be checked.
    large = PROFILES["large"]
    assert large.build.keys() <= {"nlist", "refine", "refine_type"}
    assert large.search.keys() <= {"nprobe", "rbq_query_bits", "refine_k"}
    assert large.build["refine_type"] in {"SQ6", "SQ8", "FP16", "BF16", "FP32"}
    (told,) = index_params(large, "vector")
    assert (told.index_type, told.get_index_configs()["metric_type"]) == ("IVF_RABITQ", "COSINE")


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a"], np.zeros((1, DIM), np.float32), "not of unit length"),
        (["a"], np.full((1, DIM), np.nan, np.float32), "not of unit length"),
        (["a"], np.ones((1, 3), np.float32), r"received \(1, 3\)"),
        (["a", "a"], unit(np.random.default_rng(0), 2), "given twice"),
        (["a" * 600], unit(np.random.default_rng(0), 1), "longer than 512 bytes"),
    ],
)
def test_rows_that_cannot_be_held_are_refused(index: VectorIndex, ids: list[str], vectors, message: str) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        index.upsert("text", ids, vectors)


def test_a_write_that_got_lost_is_noticed(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.ensure("text", "model1")
    call = index._milvus.call

    def forgetful(method: str, *args, **options):
        """Acknowledges every write and keeps half of it."""
        if method == "upsert":
            args = (args[0], args[1][: len(args[1]) // 2])
        return call(method, *args, **options)

    ids, vectors = [f"lost{i}" for i in range(10)], unit(np.random.default_rng(4), 10)
    with monkeypatch.context() as patch:
        patch.setattr(index._milvus, "call", forgetful)
        with pytest.raises(IndexOutOfStep, match="5 of 10 vectors are in"):
            index.upsert("text", ids, vectors)
    assert index.upsert("text", ids, vectors) == Written(inserted=5, unchanged=5)


def test_asking_before_anything_was_loaded_says_what_to_do(home: settings.Settings, index: VectorIndex) -> None:
    with pytest.raises(IndexOutOfStep, match="sosie rebuild"):
        index.count("image", version="never")


@hypothesis_settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_id_survives_the_filter(ids: list[str]) -> None:
    from milvus_lite.search.filter.tokens import TokenKind, tokenize

    tokens = tokenize(among("listing_id", ids))
    assert [token.value for token in tokens if token.kind is TokenKind.STRING] == ids


def test_kill_9_between_writes_loses_nothing(tmp_path: Path) -> None:
    given = make_settings(tmp_path, milvus_timeout_seconds=10)
    rng = np.random.default_rng(5)
    ids, vectors = [f"k{i}" for i in range(1500)], unit(rng, 1500)
    with open_index(given) as first:
        first.ensure("text", "v")
        first.upsert("text", ids[:1000], vectors[:1000])
        killed = server_pid(given)
        os.kill(killed, signal.SIGKILL)
        with open_index(given) as second:
            assert server_pid(given) != killed
            assert second.count("text") == 1000
            assert second.upsert("text", ids, vectors) == Written(inserted=500, unchanged=1000)
            assert set(second.ids("text")) == set(ids)
        pid = server_pid(given)
        assert alive(pid), "the outer user still needs it"
    assert not alive(pid)


SHARER = """
import os, signal, sys
import numpy as np
from sosie import settings
from sosie.index import open_index
home, name, end = sys.argv[1:]
rng = np.random.default_rng(len(name))
with open_index(settings.load(home=home)) as index:
    index.ensure("text", "v")
    for step in range(5):
        vectors = rng.normal(size=(40, 128)).astype("float32")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index.upsert("text", [f"{name}-{step}-{i}" for i in range(40)], vectors)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_share_one_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    with open_index(given) as index:
        pid = server_pid(given)
        index.ensure("text", "v")
        others = [
            subprocess.Popen([sys.executable, "-c", SHARER, str(tmp_path), name, end])
            for name, end in (("one", "left"), ("two's", "killed"))
        ]
        assert [other.wait(60) for other in others] == [0, -signal.SIGKILL]
        assert server_pid(given) == pid
        assert index.count("text") == 400, "writes of several processes were lost"
    assert not alive(pid)
    assert not list((tmp_path / "milvus" / "users").glob("*.lock"))


def test_a_server_whose_users_were_killed_is_used_again(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    assert subprocess.run([sys.executable, "-c", SHARER, str(tmp_path), "dead", "killed"], check=False).returncode == -9
    orphan = server_pid(given)
    assert alive(orphan)
    counted = []

    def use_and_fail() -> None:
        with open_index(given) as index:
            assert server_pid(given) == orphan
            counted.append(index.count("text"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert counted == [200]
    assert not alive(orphan)


def test_a_server_whose_starter_was_killed_at_once_is_used_again(tmp_path: Path) -> None:
    """Nobody ever had a place there, and nothing but the process itself tells of it."""
    killed = "import os, signal, sys; from sosie import settings; from sosie.index import server\n"
    killed += "server.answers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    killed += "with server.serve(settings.load(home=sys.argv[1])): pass"
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    given = make_settings(tmp_path)
    orphan = comes(given)
    assert not list((tmp_path / "milvus" / "users").iterdir())
    with open_index(given) as index:
        index.ensure("text", "model1")
        assert server_pid(given) == orphan
    assert not alive(orphan)


def test_a_server_whose_folder_was_deleted_is_not_the_one_of_the_next(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    assert subprocess.run([sys.executable, "-c", SHARER, str(tmp_path), "dead", "killed"], check=False).returncode == -9
    orphan = server_pid(given)
    shutil.rmtree(tmp_path / "milvus")
    try:
        with open_index(given) as index:
            index.ensure("text", "model1")
            assert index.count("text") == 0
            assert server_pid(given) != orphan
        assert alive(orphan), "it may be another container's"
        assert milvus_server.process(given) is None
    finally:
        psutil.Process(orphan).kill()
    with open_index(given) as index:
        assert index.version("text") == "model1"


def test_a_collection_that_was_only_begun_is_made(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    with open_index(given) as index:
        index.ensure("text", "model1")
        index.upsert("text", ["a"], unit(np.random.default_rng(0), 1))
    collections = tmp_path / "milvus" / "data" / "collections"
    (whole,) = collections.iterdir()
    begun = collections / whole.name.replace("_text_", "_image_")
    begun.mkdir()
    with open_index(given) as index:
        index.ensure("image", "model1")
        assert (index.count("text"), index.count("image")) == (1, 0)
    assert (begun / "schema.json").exists()


def test_who_leaves_last_does_not_wait_for_the_one_that_started_the_server(tmp_path: Path) -> None:
    """It ends at once, and stays a zombie until its parent asks for it."""
    starts = "import sys; from sosie import settings; from sosie.index import server\n"
    starts += "with server.serve(settings.load(home=sys.argv[1])):\n    print('up', flush=True); input()\n"
    starts += "print('left', flush=True); input()"
    given = make_settings(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", starts, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        with milvus_server.serve(given):
            pid = server_pid(given)
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "left\n"
            killed = psutil.Process(pid)
        assert killed.status() == psutil.STATUS_ZOMBIE
        other.stdin.write("\n")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    data = tmp_path / "milvus" / "data"
    data.mkdir(parents=True)
    with (data / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(IndexUnavailable, match=r"ended with code 1(.|\n)*holds the lock"),
            milvus_server.serve(given),
        ):
            pass
    assert milvus_server.process(given) is None


def test_a_server_that_was_started_ahead_is_the_one_that_is_used(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    with ahead(given):
        pid = comes(given)
        with milvus_server.serve(given) as uri:
            assert server_pid(given) == pid
        assert alive(pid)
        with milvus_server.serve(given) as again:
            assert again == uri
    assert not alive(pid)


def test_collections_are_read_ahead(tmp_path: Path) -> None:
    """A server that was started again has read none, until somebody asks for one."""
    from pymilvus import MilvusClient

    given = make_settings(tmp_path)
    with open_index(given) as index:
        index.ensure("text", "model1")
        index.upsert("text", ["a"], unit(np.random.default_rng(0), 1))
    with ahead(given), milvus_server.serve(given) as uri:
        client, until = MilvusClient(uri), time.monotonic() + 60
        while client.get_load_state("listings_text")["state"].name != "Loaded" and time.monotonic() < until:
            time.sleep(0.05)
        assert client.get_load_state("listings_text")["state"].name == "Loaded"
        client.close()


def test_a_server_that_cannot_start_ahead_leaves_it_to_who_needs_it_to_say_so(tmp_path: Path) -> None:
    given = make_settings(tmp_path)
    (tmp_path / "milvus").write_text("no folder")
    went_on = False
    with ahead(given):
        went_on = True
    assert went_on
    with pytest.raises(OSError), milvus_server.serve(given):
        pass


def test_a_milvus_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    given = make_settings(tmp_path, milvus_uri="http://127.0.0.1:9", milvus_timeout_seconds=1)
    with milvus_server.serve(given) as uri:
        assert uri == "http://127.0.0.1:9"
    assert not (tmp_path / "milvus").exists()
    with pytest.raises(IndexUnavailable, match=r"No Milvus answers at http://127\.0\.0\.1:9"), open_index(given):
        pass


def test_a_server_that_went_away_is_unavailable(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymilvus.exceptions import MilvusUnavailableException

    def unreachable(*_: object, **__: object) -> None:
        raise MilvusUnavailableException(message="server unavailable")

    index.ensure("text", "model1")
    monkeypatch.setattr(index._milvus._client, "query", unreachable)
    with pytest.raises(IndexUnavailable, match=r"failed 3 times at (.|\n)*server unavailable"):
        index.count("text")


def test_a_node_that_was_replaced_is_unavailable_for_a_while(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Milvus 2.3.5 tells of a flush just after its start, while it waits for the data node of before."""
    from pymilvus.exceptions import MilvusException

    where = "/go/internal/datacoord/session_manager.go:323 github.com/milvus-io/milvus/internal/datacoord.FlushChannels"
    reason = "attempt #0: rpc error: code = Unknown desc = node not match[expectedNodeID=1][actualNodeID=2]"
    told = [MilvusException(65535, f"attempt #0: stack trace: {where}\n{where}: {reason}") for _ in range(3)]

    def flush(*_: object, **__: object) -> None:
        raise told.pop()

    with closing(MilvusCalls(index._milvus.uri)) as calls:
        monkeypatch.setattr(calls._client, "flush", flush)
        with pytest.raises(IndexUnavailable, match=r"failed 3 times at flush \(attempt #0: rpc error.*node not match"):
            calls.call("flush", "listings_text_v1")
        told.append(MilvusException(65535, "metric type not match: expected=COSINE, actual=L2"))
        with pytest.raises(TerminalError, match="refused flush: metric type not match"):
            calls.call("flush", "listings_text_v1")
