"""Candidates: the first load's join in process, and loading and searching Milvus, beside the bare libraries.

    python benchmarks/candidates.py [--size small|standard|large] [--json FILE]

First load: every listing asks for its nearest by title and by picture (`sosie.blocking.join`, as the pipeline does it
where much of the catalogue asks); the bare library is FAISS's exact search of the same vectors with the same k, whose
answer nobody reads. Hourly: a batch of changed listings asks the index (`VectorIndex.search`); the bare library is
pymilvus with the same batches on the same server. Both on Milvus Lite and, where one can be started, on Milvus'
standalone server (`sosie.bench.standalone`). That is also loaded, beside pymilvus, which neither looks before it writes
nor reads back what it wrote. Vectors are simulated: 128 numbers of unit length in groups of five.
"""

import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie import blocking
from sosie.bench import Figure, Size, against, interleaved, script, standalone, within
from sosie.index import collection_name, open_index, server
from sosie.index.rows import BATCH, CLUSTER_BATCH
from sosie.settings import Settings, load, settings
from sosie.tables import DIM

ROWS: dict[Size, int] = {"small": 2_000, "standard": 100_000, "large": 300_000}
HELD: dict[Size, int] = {"small": 2_000, "standard": 20_000, "large": 100_000}
JOINS, SEARCHES = 1, 3
GROUP, SPREAD = 5, 0.05
JOIN_GOAL = 5_000

Floats = npt.NDArray[np.float32]


def measure(size: Size) -> list[Figure]:
    figures = [*first_load(ROWS[size]), *hourly(HELD[size])]
    if why := standalone.missing():
        print(f"Milvus' standalone server is left out: {why}.", file=sys.stderr)
        return figures
    return [*figures, *proper(HELD[size])]


def first_load(rows: int) -> list[Figure]:
    import faiss

    rules, random = settings().blocking, np.random.default_rng(7)
    ids = identifiers(rows)
    asks = [
        (simulated(rows, random), rules.text_neighbours, rules.min_text_similarity),
        (simulated(rows, random), rules.image_neighbours, rules.min_image_similarity),
    ]

    def ours() -> None:
        for vectors, k, floor in asks:
            blocking.join(ids, vectors, ids, vectors, k, floor)

    def bare() -> None:
        for vectors, k, _ in asks:
            index = faiss.IndexFlatIP(DIM)
            index.add(vectors)
            index.search(vectors, k + 1)

    blocking.join(ids[:100], asks[0][0][:100], ids[:100], asks[0][0][:100], 10, 0.0)  # imports, threads
    taken = interleaved(JOINS, {"ours": ours, "bare": bare}, warm=False)
    note = f"{rows:,} listings with title and picture ask for {asks[0][1]} and {asks[1][1]} neighbours"
    rate = rows / taken["ours"]
    return [
        within("first load's join", rate, "listings/s", JOIN_GOAL, at_most=False, note=note),
        against("first load's join", rows, "listings", taken["ours"], "FAISS alone, exact", taken["bare"], note=note),
    ]


def hourly(rows: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-candidates-") as home:
        given = load(home=Path(home), milvus_timeout_seconds=300.0)
        with server.serve(given) as uri:
            return [searched(given, uri, rows, "Milvus Lite on loopback")]


def proper(rows: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-candidates-") as home, standalone.serve(Path(home)) as uri:
        given = load(home=Path(home), milvus_uri=uri, milvus_timeout_seconds=300.0)
        return [*loaded(given, uri, rows), searched(given, uri, rows, "Milvus 2.3.5 standalone")]


def searched(given: Settings, uri: str, rows: int, where: str) -> Figure:
    random, k = np.random.default_rng(7), settings().blocking.text_neighbours
    ids, vectors = identifiers(rows), simulated(rows, random)
    asking = random.choice(rows, min(rows // 20, 2 * BATCH), replace=False)
    queries, names = vectors[asking], [ids[int(place)] for place in asking]
    with open_index(given) as index:
        index.ensure("text", "bench")
        index.upsert("text", ids.to_list(), vectors)
        bare = plain(uri, queries, k)
        taken = interleaved(SEARCHES, {"ours": lambda: index.search("text", names, queries, k), "bare": bare})
    note = f"{len(asking):,} of {rows:,} listings ask for {k} neighbours, one modality, {where}"
    return against("hourly search", len(asking), "queries", taken["ours"], "pymilvus alone", taken["bare"], note=note)


def loaded(given: Settings, uri: str, rows: int) -> list[Figure]:
    """New rows by `VectorIndex.upsert` and by pymilvus, in calls as large as those that ours makes."""
    from pymilvus import MilvusClient

    client, vectors, turns = MilvusClient(uri=uri), simulated(rows, np.random.default_rng(8)), count()

    def fresh() -> list[str]:
        return [f"{next(turns)}-{one}" for one in identifiers(rows)]

    with open_index(given) as index:
        index.create("text", "load")
        name = collection_name("text", "load")

        def bare() -> None:
            ids = fresh()
            for start in range(0, rows, CLUSTER_BATCH):
                some = slice(start, start + CLUSTER_BATCH)
                data = [{"listing_id": i, "vector": v} for i, v in zip(ids[some], vectors[some], strict=True)]
                client.upsert(name, data)

        def ours() -> None:
            index.upsert("text", fresh(), vectors, version="load")

        taken = interleaved(SEARCHES, {"ours": ours, "bare": bare})
    note = f"{rows:,} new vectors, read back and compared, Milvus 2.3.5 standalone"
    return [against("loading the index", rows, "rows", taken["ours"], "pymilvus alone", taken["bare"], note=note)]


def plain(uri: str, queries: Floats, k: int) -> Callable[[], None]:
    """The same search by pymilvus alone: same server, same batches, nothing done with the answer."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri=uri)

    def search() -> None:
        for start in range(0, len(queries), BATCH):
            client.search(
                collection_name("text", "bench"), data=list(queries[start : start + BATCH]), limit=k + 1,
                anns_field="vector", search_params={"metric_type": "COSINE"}, output_fields=["listing_id"],
                consistency_level="Strong",
            )  # fmt: skip

    return search


def identifiers(rows: int) -> pl.Series:
    return pl.Series("listing_id", [f"listing-{number:08d}" for number in range(rows)])


def simulated(rows: int, random: np.random.Generator) -> Floats:
    """float32 [rows, 128] of unit length, five around each centre."""
    centres = random.standard_normal((rows // GROUP + 1, DIM), dtype=np.float32)
    drawn = centres[np.arange(rows) // GROUP] + SPREAD * random.standard_normal((rows, DIM), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    script(measure, __doc__)
