"""The `large` index profile in FAISS: bytes a vector in RAM and on disk, and what is found, beside exact search.

    python benchmarks/large_index.py [--rows 200000] [--queries 2000] [--threads 2]

One bit a dimension in RAM (IVF, RaBitQ: 16 bytes, two factors, a row number), eight bits a dimension in a
memory-mapped file (SQ8) that rank what the first pass brings. A cluster of Milvus 2.6 has both as IVF_RABITQ with
`refine_type: SQ8` and mmap; neither Milvus Lite nor the server packaged for tests has, so FAISS stands in with the same
parameters. Peers in the same run: float32 in RAM (the first paper's layout), IVF_SQ8, and HNSW over SQ8.

Vectors are simulated: 128 numbers of unit length around centres, 50 a centre, as offers lie around kinds of products.
Each query is a planted duplicate: a row turned until its cosine to the original is 0.95, 0.85 or 0.75. `found` is the
share of queries whose original is among the ten nearest, `recall_at_10` the share of the ten exact ones. Prints JSON;
`ram` is the size of the index as FAISS writes it, less what is memory-mapped. Seconds are ratios to exact search.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DIM, TOP, AROUND, COSINES = 128, 10, 50, (0.95, 0.85, 0.75)
SPREAD = 0.08
"""Of a row around its centre, a dimension: neighbours of one centre have a cosine of about 0.55."""

LISTINGS, MODALITIES = 200_000_000, 2


@dataclass(frozen=True)
class Profile:
    """`search` gives row numbers [queries, 10]; `ram` and `disk` are bytes of the whole index."""

    search: Callable[[Floats], Ints]
    ram: int
    disk: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    random = np.random.default_rng(7)
    rows = simulated(options.rows, random)
    asked, original = planted(rows, options.queries, random)

    started = time.perf_counter()
    exact = flat(rows).search(asked)
    plain = time.perf_counter() - started
    table = {"float32": {"ram_a_vector": 4.0 * DIM, "disk_a_vector": 0.0, **found(exact, exact, original)}}
    with tempfile.TemporaryDirectory() as folder:
        lists = int(2 ** np.round(np.log2(4 * np.sqrt(options.rows))))
        for name, build in {
            "ivf_sq8": lambda: of_factory(rows, f"IVF{lists},SQ8", nprobe=32),
            "hnsw_sq8": lambda: of_factory(rows, "HNSW16_SQ8"),
            "rabitq+sq8 on disk, 200": lambda: rabitq(rows, lists, 32, 200, Path(folder) / "codes"),
            "rabitq+sq8 on disk, 600": lambda: rabitq(rows, lists, 64, 600, Path(folder) / "codes"),
        }.items():
            started = time.perf_counter()
            profile = build()
            built = time.perf_counter() - started
            started = time.perf_counter()
            got = profile.search(asked)
            table[name] = {
                "ram_a_vector": round(profile.ram / options.rows, 1),
                "disk_a_vector": round(profile.disk / options.rows, 1),
                **found(got, exact, original),
                "search_seconds_to_exact": round((time.perf_counter() - started) / plain, 3),
                "build_seconds_to_exact_search": round(built / plain, 2),
            }
    print(json.dumps({"rows": options.rows, "queries": options.queries, "profiles": table,
                      f"ram_gb_of_{LISTINGS:,}_listings": extrapolated(table)}, indent=2))  # fmt: skip


def extrapolated(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """Bytes a vector × two modalities × 200 million; centres of the lists weigh less there than here."""
    return {name: round(row["ram_a_vector"] * MODALITIES * LISTINGS / 1e9, 1) for name, row in table.items()}


def simulated(rows: int, random: np.random.Generator) -> Floats:
    centres = units(random.standard_normal((max(rows // AROUND, 1), DIM), dtype=np.float32))
    noise = random.standard_normal((rows, DIM), dtype=np.float32)
    return units(centres[random.integers(len(centres), size=rows)] + SPREAD * noise)


def planted(rows: Floats, queries: int, random: np.random.Generator) -> tuple[Floats, Ints]:
    original = random.choice(len(rows), queries, replace=False)
    base, noise = rows[original], random.standard_normal((queries, DIM), dtype=np.float32)
    across = units(noise - (noise * base).sum(1, keepdims=True) * base)
    cosine = np.resize(np.array(COSINES, np.float32), queries)[:, None]
    return cosine * base + np.sqrt(1 - cosine**2) * across, original


def units(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def flat(rows: Floats) -> Profile:
    return of_factory(rows, "Flat")


def of_factory(rows: Floats, kind: str, nprobe: int = 0) -> Profile:
    index = faiss.index_factory(DIM, kind)
    index.train(rows)
    index.add(rows)
    if nprobe:
        index.nprobe = nprobe
    return Profile(lambda asked: index.search(asked, TOP)[1], faiss.serialize_index(index).nbytes, 0)


def rabitq(rows: Floats, lists: int, nprobe: int, rerank: int, file: Path) -> Profile:
    index = faiss.index_factory(DIM, f"IVF{lists},RaBitQ")
    index.train(rows[:: max(len(rows) // (lists * 64), 1)])
    index.add(rows)
    index.nprobe = nprobe
    scalar = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit)
    scalar.train(rows)
    scalar.sa_encode(rows).tofile(file)
    codes = np.memmap(file, np.uint8, "r", shape=(len(rows), scalar.sa_code_size()))

    def search(asked: Floats) -> Ints:
        first = index.search(asked, rerank)[1]
        best = np.empty((len(asked), TOP), np.int64)
        for place, near in enumerate(first):
            near = np.sort(near[near >= 0])
            score = scalar.sa_decode(np.ascontiguousarray(codes[near])) @ asked[place]
            best[place] = np.resize(near[np.argsort(-score)[:TOP]], TOP)
        return best

    return Profile(search, faiss.serialize_index(index).nbytes, file.stat().st_size)


def found(got: Ints, exact: Ints, original: Ints) -> dict[str, float]:
    hits = (got == original[:, None]).any(1)
    kept = np.mean([len(np.intersect1d(*each)) / TOP for each in zip(got, exact, strict=True)])
    each = {f"found_at_{cosine}": round(float(hits[at :: len(COSINES)].mean()), 4) for at, cosine in enumerate(COSINES)}
    return {"recall_at_10": round(float(kept), 4), "found": round(float(hits.mean()), 4), **each}


if __name__ == "__main__":
    main()
