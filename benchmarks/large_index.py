"""The `large` index profile in FAISS: bytes a vector in RAM and on disk, and what is found, beside exact search.

    python benchmarks/large_index.py [--size small|standard|large] [--json FILE]      # 5,000, 100,000, 1,000,000 rows

One bit a dimension in RAM (IVF, RaBitQ: 16 bytes, two factors, a row number), eight bits a dimension in a
memory-mapped file (SQ8) that rank what the first pass brings. A cluster of Milvus 2.6 has both as IVF_RABITQ with
`refine_type: SQ8` and mmap; neither Milvus Lite nor the server packaged for tests has, so FAISS stands in with the same
parameters. Peers in the same run: exact search over float32 in RAM (the first paper's layout), and IVF_SQ8.

Vectors are simulated: 128 numbers of unit length around centres, 50 a centre, as offers lie around kinds of products.
Each query is a planted duplicate: a row turned until its cosine to the original is 0.95, 0.85 or 0.75. `found` is the
share of queries whose original is among the ten nearest, `recall` the share of the ten exact ones. Bytes of RAM are the
size of the index as FAISS writes it, less what is memory-mapped, for the two vectors of a listing.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from sosie.bench import Figure, Size, against, script

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DIM, TOP, AROUND, COSINES = 128, 10, 50, (0.95, 0.85, 0.75)
SPREAD = 0.08
"""Of a row around its centre, a dimension: neighbours of one centre have a cosine of about 0.55."""

ROWS: dict[Size, int] = {"small": 5_000, "standard": 100_000, "large": 1_000_000}
QUERIES: dict[Size, int] = {"small": 200, "standard": 2_000, "large": 2_000}
SHARE_ASKED = 8
"""One list in so many is searched: a duplicate at a cosine of 0.75 lies in another list than the query's own."""

MODALITIES, RAM_GOAL, FOUND_GOAL = 2, 70.0, 0.99
LARGE = "RaBitQ + SQ8 on disk"


@dataclass(frozen=True)
class Profile:
    """`search` gives row numbers [queries, 10]; `ram` and `disk` are bytes of the whole index."""

    search: Callable[[Floats], Ints]
    ram: int
    disk: int


def measure(size: Size) -> list[Figure]:
    count, random = ROWS[size], np.random.default_rng(7)
    rows = simulated(count, random)
    asked, original = planted(rows, QUERIES[size], random)
    index = flat(rows)
    exact, plain = timed(index, asked)
    lists = int(2 ** np.round(np.log2(2 * np.sqrt(count))))  # more of them weigh more than they save
    asked_lists = max(64, lists // SHARE_ASKED)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in {
            f"{LARGE}, 600 reranked": lambda: rabitq(rows, lists, asked_lists, 600, Path(folder) / "codes"),
            f"{LARGE}, 200 reranked": lambda: rabitq(rows, lists, asked_lists, 200, Path(folder) / "codes"),
            "IVF_SQ8": lambda: of_factory(rows, f"IVF{lists},SQ8", nprobe=asked_lists),
        }.items():
            profile = build()
            got, seconds = timed(profile, asked)
            figures += judged(name, profile, count, found(got, exact, original), QUERIES[size], seconds, plain)
    return figures


def judged(
    name: str, profile: Profile, rows: int, share: dict[str, float], queries: int, seconds: float, plain: float
) -> list[Figure]:
    """Limits are the large profile's; the others stand beside it."""
    ram, aim = profile.ram / rows * MODALITIES, 1.0 if name.startswith(LARGE) else None
    note = f"{rows:,} vectors; {profile.disk / rows * MODALITIES:.0f} bytes a listing on disk"
    at = ", ".join(f"{share[f'found_at_{cosine}']:.3f} at {cosine}" for cosine in COSINES)
    return [
        Figure(f"{name}: RAM of a listing", ram, "bytes", "limit", RAM_GOAL, aim, at_most=True, note=note),
        Figure(f"{name}: duplicates found", share["found"], "share", "limit", FOUND_GOAL, aim, note=at),
        Figure(f"{name}: recall of ten", share["recall_at_10"], "share", "FAISS, exact", 1.0),
        against(f"{name}: search", queries, "queries", seconds, "FAISS, exact", plain),
    ]


def timed(profile: Profile, asked: Floats) -> tuple[Ints, float]:
    started = time.perf_counter()
    return profile.search(asked), time.perf_counter() - started


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
    script(measure, __doc__)
