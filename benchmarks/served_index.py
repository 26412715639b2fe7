"""Both servers with two vectors a listing: bytes in RAM and on disk, what is found, and how soon, by index profile.

    python benchmarks/served_index.py [--size small|standard|large] [--json FILE]   # 5,000, 100,000, 1,000,000 rows

Milvus Lite by the profile that it gets at that size, Milvus' standalone server (`sosie.bench.standalone`) by `exact`,
`compressed` and `graph`. What only a newer cluster has is `benchmarks/large_index.py`'s, and so are the vectors, the
planted duplicates and exact search by FAISS, which stands beside each.

RAM is what the server's processes have for themselves (USS) once both collections are loaded and searched, less what
an empty server has; it was started anew in between, so nothing is left of loading rows. Disk is all of its data after a
flush, with its log of writes and segments that others took the place of, which the standalone server removes hours
later. Indexing is what `sosie upkeep` waits for where a collection outgrew its profile; beside it stands how many
vectors `sosie.index` wrote there.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]
from large_index import COSINES, DIM, QUERIES, ROWS, TOP, Floats, Ints, Profile, flat, found, planted, simulated, timed
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from sosie.bench import Figure, Size, against, script, standalone
from sosie.errors import IndexUnavailable
from sosie.index import VectorIndex, open_index, server
from sosie.index.profiles import profile_for
from sosie.settings import Settings, load
from sosie.tables import MODALITIES, Modality

VERSION, CHUNK = "bench", 100_000
SECONDS = 1_800.0

Serve = Callable[[Path, str], AbstractContextManager[Settings]]


def measure(size: Size) -> list[Figure]:
    count, random = ROWS[size], np.random.default_rng(7)
    vectors: dict[Modality, Floats] = {modality: simulated(count, random) for modality in MODALITIES}
    asked, original = planted(vectors["text"], QUERIES[size], random)
    exact, plain = timed(flat(vectors["text"]), asked)
    servers: dict[str, tuple[Serve, Sequence[str]]] = {"Milvus Lite": (embedded, (profile_for(count),))}
    if why := standalone.missing():
        print(f"Milvus' standalone server is left out: {why}.", file=sys.stderr)
    else:
        servers["Milvus 2.3.5"] = (proper, ("exact", "compressed", "graph"))
    figures = []
    for name, (serve, profiles) in servers.items():
        with tempfile.TemporaryDirectory(prefix="sosie-served-") as folder:
            with serve(Path(folder), profiles[0]) as settings, open_index(settings) as index:
                empty = private()
                started = time.perf_counter()
                fill(index, vectors)
                filling = time.perf_counter() - started
            for profile in profiles:
                with serve(Path(folder), profile) as settings, open_index(settings) as index:
                    started = time.perf_counter()
                    built = [index.fit(modality, VERSION, count) for modality in MODALITIES]
                    building = time.perf_counter() - started
                    for modality in MODALITIES:
                        compact(index, modality)
                with serve(Path(folder), profile) as settings, open_index(settings) as index:
                    served = loaded(index, Path(folder), asked)
                    got, seconds = timed(served, asked)
                figures += told(f"{name}, {profile}", served, empty, count, found(got, exact, original))
                if all(built):  # a collection begins exact
                    both = count * len(MODALITIES)
                    figures.append(
                        against(f"{name}, {profile}: indexing", both, "vectors", building, "writing them", filling)
                    )
                figures.append(
                    against(f"{name}, {profile}: search", len(asked), "queries", seconds, "FAISS, exact", plain)
                )
                print(f"{name}, {profile}: measured", file=sys.stderr, flush=True)
    return figures


@contextmanager
def embedded(folder: Path, profile: str) -> Iterator[Settings]:
    settings = load(home=folder, milvus_timeout_seconds=SECONDS, milvus_profile=profile)
    with server.serve(settings):
        yield settings


@contextmanager
def proper(folder: Path, profile: str) -> Iterator[Settings]:
    with standalone.serve(folder) as uri:
        yield load(home=folder / "home", milvus_uri=uri, milvus_timeout_seconds=SECONDS, milvus_profile=profile)


def fill(index: VectorIndex, vectors: dict[Modality, Floats]) -> None:
    for modality in MODALITIES:
        index.ensure(modality, VERSION)
        for start in range(0, len(vectors[modality]), CHUNK):
            some = vectors[modality][start : start + CHUNK]
            index.upsert(modality, [f"listing-{start + place:08d}" for place in range(len(some))], some)


@retry(retry=retry_if_exception_type(IndexUnavailable), wait=wait_fixed(5), stop=stop_after_delay(120), reraise=True)
def compact(index: VectorIndex, modality: Modality) -> None:
    """The standalone server can't just after its start: it waits for the data node of before."""
    index.compact(modality, VERSION)


def loaded(index: VectorIndex, folder: Path, asked: Floats) -> Profile:
    """The index as `large_index` sees one, of both modalities; its `ram` is all that the server has."""
    names = [f"asked-{place}" for place in range(len(asked))]

    def search(queries: Floats) -> Ints:
        near = index.search("text", names, queries, TOP)
        got = np.full((len(queries), TOP), -1, np.int64)
        places = near["query_id"].str.strip_prefix("asked-").cast(int).to_numpy()
        turns = np.arange(near.height) - np.searchsorted(places, places)
        got[places, turns] = near["listing_id"].str.strip_prefix("listing-").cast(int).to_numpy()
        return got

    for modality in MODALITIES:
        index.load(modality)
        index.search(modality, names[:100], asked[:100], TOP)
    data = [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.relative_to(folder).parts[0] not in ("bin", "logs")
    ]
    disk = sum(file.stat().st_size for file in data)
    return Profile(search, private(), disk)


def private() -> int:
    """Bytes that the processes below this one share with nobody: the server's."""
    return sum(process.memory_full_info().uss for process in psutil.Process().children(recursive=True))


def told(name: str, served: Profile, empty: int, rows: int, share: dict[str, float]) -> list[Figure]:
    at = ", ".join(f"{share[f'found_at_{cosine}']:.3f} at {cosine}" for cosine in COSINES)
    floats = float(len(MODALITIES) * DIM * 4)
    ram, note = (served.ram - empty) / rows, f"{rows:,} listings; the server has {served.ram / 2**30:.2f} GiB in all"
    return [
        Figure(f"{name}: RAM of a listing", ram, "bytes", "its vectors as float32", floats, note=note),
        Figure(f"{name}: disk of a listing", served.disk / rows, "bytes", "its vectors as float32", floats),
        Figure(f"{name}: duplicates found", share["found"], "share", "FAISS, exact", 1.0, note=at),
        Figure(f"{name}: recall of ten", share["recall_at_10"], "share", "FAISS, exact", 1.0),
    ]


if __name__ == "__main__":
    script(measure, __doc__)
