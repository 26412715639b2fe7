"""Hours over a large catalogue: stores and steps are real, vectors are simulated, the state before is written directly.

    python benchmarks/million.py [--listings 50000] [--new 500] [--updates 2000] [--hours 2] [--json FILE]
    python benchmarks/million.py --keep DIR                  # keeps the filled stores, which take longest to make
    python benchmarks/million.py --listings 1000000
    python benchmarks/million.py --listings 5000000 --against 100000
    python benchmarks/million.py --milvus standalone         # over Milvus' standalone server (sosie.bench.standalone)
    python benchmarks/million.py --airflow                   # each hour a run of dedup_hourly, by Airflow's scheduler
    python benchmarks/million.py --upkeep                    # then `sosie upkeep`, which fills the online store as well

Runs the same hours over a catalogue of --listings and over one of --against, by default a tenth. What is O(changed) has
a ratio of 1 between them, what reads the catalogue one of up to theirs; that is the figure of each step in the last
hour. `middle_seconds` is of all hours but the first, which pays for imports and what is not loaded yet. `found` is the
share of new listings of a product that was there before which the hour puts into that product's cluster. An hour's
seconds are those of its steps in this process; with --airflow those from the start of its DAG run to the end.

The catalogue has titles, one in three a GTIN, no pictures; every fifth listing is one more of a product that is there.
Its state is what a first load leaves, but for three things: neighbour lists are found by an approximate index (IVF, 16
of its lists) and written in pieces, and `pairs` holds the planted duplicates alone, no near misses. Retrieval by
spelling is off, as it is joined over all titles. Of --updates a fifth change the title, the others the price. Prints
JSON.
"""

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import psutil  # type: ignore[import-untyped,unused-ignore]

from sosie import blocking, neighbours, pipeline, spellings
from sosie.bench import standalone
from sosie.decider import mlp
from sosie.index import open_index, server
from sosie.lake import Lake
from sosie.listings import detect
from sosie.pipeline.embed import version
from sosie.pipeline.match import recipe
from sosie.settings import PROJECT, Settings, load
from sosie.tables import CLUSTERS, DIM, FEED, LISTINGS, NEIGHBOURS, PAIRS, RECIPES, TEXT_EMBEDDINGS, VECTOR

Floats = npt.NDArray[np.float32]
Work = Callable[[pipeline.Run], float]
"""Runs an hour whose rows have landed, and tells its seconds."""

FIRST = datetime(2026, 1, 5, tzinfo=UTC)
CHUNK, AROUND, SPREAD, SAME = 100_000, 50, 0.08, 0.95
BRANDS = ("Acme", "Borealis", "Corvus", "Deltona", "Eiger", "Fjordan", "Gantry", "Helix")
NOUNS = ("kettle", "lamp", "drill", "backpack", "router", "mixer", "saddle", "tent", "printer", "blender", "jacket")
COLOURS = ("black", "white", "red", "blue", "green", "silver")


@dataclass
class Market:
    """Products with simulated vectors, in a file; a listing's product stands in its title's model code."""

    listings: int
    folder: Path
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        products = self.listings * 2
        centres = units(self.random.standard_normal((max(self.listings // AROUND, 1), DIM), dtype=np.float32))
        self.vectors = stored(self.folder / "products.npy", products)
        for start in range(0, products, CHUNK):
            rows = min(CHUNK, products - start)
            noise = self.random.standard_normal((rows, DIM), dtype=np.float32)
            around = centres[self.random.integers(len(centres), size=rows)]
            self.vectors[start : start + rows] = units(around + np.float32(SPREAD) * noise)
        self.known = 0

    def products(self, rows: int) -> npt.NDArray[np.int64]:
        """Of that many new listings: four fifths a product of their own, the others one that is there."""
        own = self.random.random(rows) < 0.8
        own[0] |= self.known == 0
        numbers = self.known + np.cumsum(own) - 1
        self.known += int(own.sum())
        older = (self.random.random(rows) * np.maximum(numbers, 1)).astype(np.int64)
        return np.where(own, numbers, older)

    def rows(self, ids: list[str], products: npt.NDArray[np.int64], at: datetime) -> pl.DataFrame:
        """As a feed has them. Two listings of a product name it in another order, sometimes with another end."""
        ends = self.random.integers(4, size=len(ids))
        titles = []
        for product, end in zip(products.tolist(), ends.tolist(), strict=True):
            brand, noun, colour = BRANDS[product % 8], NOUNS[product % 11], COLOURS[product % 6]
            code = f"KX{product:08d}"
            words = (brand, noun, code, colour) if end % 2 else (noun, brand, code, colour)
            titles.append(" ".join(words) + (" new" if end == 3 else ""))
        frame = pl.DataFrame(
            {
                "listing_id": ids,
                "seller_id": [f"s{number}" for number in self.random.integers(self.listings, size=len(ids))],
                "title": titles,
                "gtin": [gtin(number) if number % 3 == 0 else None for number in products.tolist()],
                "price": (10 + products % 90).astype(np.float64),
                "currency": "EUR",
                "updated_at": at,
                "is_deleted": False,
            },
            schema_overrides={"gtin": pl.String, "updated_at": FEED["updated_at"]},
        )
        return frame.with_columns(pl.lit(None, dtype).alias(n) for n, dtype in FEED.items() if n not in frame.columns)


def embed(vectors: Floats, titles: pl.Series) -> Floats:
    """A title's vector: its product's, which is one of `vectors`, turned by what else the title says."""
    products = titles.str.extract(r"(?i)KX(\d{8})").cast(pl.Int64).to_numpy()
    base = vectors[products]
    noise = np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in titles.hash(7).to_list()])
    across = units((noise - (noise * base).sum(1, keepdims=True) * base).astype(np.float32))
    return units(np.float32(SAME) * base + np.float32(np.sqrt(1 - SAME**2)) * across)


def stored(file: Path, rows: int) -> Floats:
    """Vectors in a file, which the system may take out of memory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(file, "w+", np.float32, (rows, DIM))


def units(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def gtin(number: int) -> str:
    digits = f"{number:012d}"
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


def seed(run: pipeline.Run, market: Market) -> None:
    """The state that a first load leaves."""
    import faiss

    lake, stamp = run.lake, version(run.settings, "text")
    vectors = stored(market.folder / "vectors.npy", market.listings)
    with open_index(run.settings) as index:
        index.ensure("text", stamp)
        index.ensure("image", version(run.settings, "image"))
        for start in range(0, market.listings, CHUNK):
            ids = names(start, min(start + CHUNK, market.listings))
            fed = market.rows(ids, market.products(len(ids)), FIRST)
            rows = detect(
                fed.with_columns(image_hash=pl.lit(None, pl.String)), LISTINGS.schema.to_frame(), "2026-01-04T00"
            ).listings
            rows = rows.sort("listing_id")
            made = embed(market.vectors, rows["title"])
            vectors[start : start + len(ids)] = made
            lake.append(LISTINGS, rows)
            embedded = rows.select("listing_id", content_hash="text_hash", event_timestamp="updated_at").with_columns(
                vector=pl.Series(made).cast(VECTOR),
                embedding_version=pl.lit(stamp),
                created_timestamp=pl.lit(FIRST),
            )
            lake.append(TEXT_EMBEDDINGS, embedded.select(*TEXT_EMBEDDINGS.columns))
            index.upsert("text", rows["listing_id"].to_list(), made)
            spellings.kept(lake, rows, run.id, columns=["text"])
            told(f"{start + len(ids):,} listings stored")
        index.fit("text", stamp, market.listings)
    catalogue = lake.read(LISTINGS)
    groups(run, catalogue)

    rules = run.settings.blocking
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(market.listings))))
    nearest = faiss.index_factory(DIM, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    nearest.train(vectors[:: max(len(vectors) // (lists * 50), 1)])
    nearest.add(vectors)
    nearest.nprobe = 16
    places = neighbours.Places(pl.Series(names(0, market.listings)))
    catalogue = catalogue.sort("listing_id")
    long = rules.text_neighbours + math.ceil(rules.text_neighbours * rules.spare_neighbours)
    for start in range(0, market.listings, CHUNK):
        some = places.every[start : start + CHUNK]
        near, where = nearest.search(vectors[start : start + CHUNK], long + 1)
        kept = (where >= 0) & (near >= rules.min_text_similarity)
        found = pl.DataFrame(
            {"query_id": some.gather(np.nonzero(kept)[0]), "listing_id": where[kept], "similarity": near[kept]}
        ).cast(neighbours.NEAR)
        found = found.with_columns(pl.col("similarity").round(neighbours.DIGITS))
        placed = places.contents(catalogue, some, ["text"]).with_columns(reach=pl.lit(None, pl.Float32))
        placed = places.placed(placed, "listing_id", "number")
        lists = neighbours.rows(blocking.nearest(found, long), placed, places, "text", long)
        lake.append(NEIGHBOURS, lists.with_columns(turn=pl.lit(0)))
        told(f"{start + len(some):,} lists of neighbours made")
    keys = places.contents(catalogue, places.every, blocking.KEYS)
    nobody = {name: pl.lit([], NEIGHBOURS.columns[name]) for name in ("others", "similarities")}
    lake.append(NEIGHBOURS, keys.with_columns(turn=pl.lit(0), reach=pl.lit(None, pl.Float32), **nobody))


def groups(run: pipeline.Run, catalogue: pl.DataFrame) -> None:
    """Pairs, clusters and the recipe that they were made by."""
    decider = mlp.load(run.settings.decider_model).in_catalogue(catalogue.height)
    own = catalogue.select("listing_id", product=product_of("title"))
    pairs = (
        own.join(own, on="product")
        .filter(pl.col("listing_id") < pl.col("listing_id_right"))
        .select(
            left_id="listing_id", right_id="listing_id_right", score=pl.lit(0.97), first_score=pl.lit(0.95),
            verdict=pl.lit("match"), reasons=pl.lit([], PAIRS.columns["reasons"]), blocked_by=pl.lit(["text"]),
            decider_version=pl.lit(decider.version),
            embedding_version=pl.lit("+".join(version(run.settings, modality) for modality in ("text", "image"))),
            run_id=pl.lit("2026-01-04T00"),
        )
    )  # fmt: skip
    run.lake.append(PAIRS, pairs)
    first, size = pl.col("listing_id").min().over("product"), pl.len().over("product")
    clusters = own.with_columns(cluster_id=pl.lit("c-") + first, canonical_id=first, size=size.cast(pl.Int64))
    clusters = clusters.filter(pl.col("size") > 1).with_columns(changed_run=pl.lit("2026-01-04T00"))
    run.lake.append(CLUSTERS, clusters.select(*CLUSTERS.columns))
    run.lake.upsert(RECIPES, pl.DataFrame([{"name": PAIRS.name, "recipe": recipe(run, decider)}]))


def product_of(column: str) -> pl.Expr:
    return pl.col(column).str.extract(r"(?i)KX(\d{8})")


def names(start: int, end: int) -> list[str]:
    return [f"l{number:08d}" for number in range(start, end)]


def told(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def hour(run: pipeline.Run, market: Market, held: int, new: int, updates: int, work: Work) -> dict[str, Any]:
    """Land an hour's rows, have it run, and tell its steps' seconds and what it found."""
    ids, products = names(held, held + new), market.products(new)
    fresh = market.rows(ids, products, run.hour)
    chosen = market.random.choice(held, min(updates, held), replace=False)
    old = run.lake.lookup(LISTINGS, "listing_id", [f"l{number:08d}" for number in chosen]).select(*FEED)
    retitled = pl.int_range(pl.len()) % 5 == 0
    changed = old.with_columns(
        title=pl.when(retitled).then(pl.col("title") + " boxed").otherwise("title"),
        price=pl.when(retitled).then("price").otherwise(pl.col("price") + 1),
        updated_at=pl.lit(run.hour),
    )
    folder = run.settings.landing / run.id
    folder.mkdir(parents=True)
    pl.concat([fresh.select(*FEED), changed]).write_parquet(folder / "feed.parquet")
    seconds = work(run)
    steps = {step["name"]: round(step["seconds"], 2) for step in pipeline.manifest(run)["steps"]}
    listings = run.lake.scan(LISTINGS).select("listing_id", product=product_of("title"))
    clusters = run.lake.scan(CLUSTERS).select("listing_id", "cluster_id")
    placed = listings.join(clusters, on="listing_id").collect()
    before = placed.filter(pl.col("listing_id") < ids[0]).unique("product", keep="any")
    again = fresh.select("listing_id", product=product_of("title"))
    known = listings.filter(pl.col("listing_id") < ids[0]).select("product").unique().collect()
    again = again.join(known, on="product", how="semi")
    right = again.join(placed, on="listing_id").join(before, on="product").filter(
        pl.col("cluster_id") == pl.col("cluster_id_right")
    )  # fmt: skip
    return {
        "seconds": round(seconds, 1),
        "steps": steps,
        "duplicates_of_known_products": again.height,
        "found": round(right["listing_id"].n_unique() / max(again.height, 1), 3),
    }


@contextmanager
def stores(home: Path, milvus: str) -> Iterator[Settings]:
    """Settings of a home whose Milvus answers."""
    settings = load(
        home=home,
        landing=home / "landing",
        blocking={"lexical_neighbours": 0},
        alerts={"console": False},
        milvus_timeout_seconds=600,
    )
    if milvus == "embedded":
        with server.serve(settings):
            yield settings
    else:
        with standalone.serve(home / "standalone") as uri:
            yield settings.model_copy(update={"milvus_uri": uri})


@contextmanager
def here(_: Settings, market: Market) -> Iterator[Work]:
    """Steps in this process, which has its imports behind it after an hour."""
    sys.modules["sosie.pipeline.embed"].encode = lambda *given: embed(market.vectors, given[-1]["title"])  # type: ignore[attr-defined]

    def work(run: pipeline.Run) -> float:
        started = time.perf_counter()
        pipeline.run_all(run)
        return time.perf_counter() - started

    yield work


@contextmanager
def airflow(settings: Settings, market: Market) -> Iterator[Work]:
    """Runs of the DAG, from when the scheduler has one to its end: a process a task, as an installation has them."""
    from sosie.airflow.stack import DAG_ID, stack

    dags = market.folder / "dags"
    dags.mkdir(exist_ok=True)
    told = {"dag": PROJECT / "dags" / f"{DAG_ID}.py", "here": Path(__file__).parent, "vectors": market.vectors.filename}
    (dags / f"{DAG_ID}.py").write_text(DAG.format(**{name: str(value) for name, value in told.items()}))
    with stack(settings, dags=dags) as running:
        yield lambda run: running.wait(running.trigger(DAG_ID, run.id)).expect_success().seconds


DAG = '''
"""The DAG of Airflow as it is, with vectors that are simulated where a task embeds."""
import sys
from pathlib import Path

from wrapt import when_imported


@when_imported("sosie.pipeline.embed")
def simulate(module):
    def encode(settings, modality, contents):
        sys.path.append({here!r})
        import million
        import numpy as np

        return million.embed(np.load({vectors!r}, mmap_mode="r"), contents["title"])

    module.encode = encode


exec(compile(Path({dag!r}).read_text(), __file__, "exec"))
'''


def upkept(settings: Settings) -> dict[str, float]:
    """Seconds and peak memory, MiB, of `sosie upkeep` as a process of its own."""
    given: dict[str, object] = {
        "HOME": settings.home,
        "LANDING": settings.landing,
        "BLOCKING__LEXICAL_NEIGHBOURS": settings.blocking.lexical_neighbours,
        "MILVUS_TIMEOUT_SECONDS": settings.milvus_timeout_seconds,
    }
    if settings.milvus_uri:
        given["MILVUS_URI"] = settings.milvus_uri
    more = {f"SOSIE_{name}": str(value) for name, value in given.items()}
    command, started, peak = (str(Path(sys.executable).with_name("sosie")), "upkeep"), time.perf_counter(), 0
    with subprocess.Popen(command, env={**os.environ, **more}, stdout=sys.stderr) as process:
        about = psutil.Process(process.pid)
        # Looked at, as what the system says of a child's peak is at least its parent's.
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, about.memory_info().rss)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit("sosie upkeep failed: what it says stands above")
    return {"seconds": round(time.perf_counter() - started, 1), "peak_mib": peak >> 20}


def simulated(listings: int, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seed a catalogue, run the hours, tell the last hour and what the stores take."""
    home = (options.keep or scratch) / f"{listings}-{options.milvus}"
    market, filled = Market(listings, scratch), home / "known"
    started = time.perf_counter()
    if not filled.exists():
        with stores(home, options.milvus) as settings:
            seed(pipeline.Run("2026-01-04T00", settings), market)
        filled.write_text(str(market.known))
    seeded = time.perf_counter() - started
    if options.keep:
        home = scratch / "home"
        shutil.copytree(filled.parent, home, ignore=shutil.ignore_patterns("users", "logs"))
    # What hours bring is the same whether the stores were filled now or before, and the server starts anew as well.
    market.known, market.random = int(filled.read_text()), np.random.default_rng(8)
    hours = []
    worker = airflow if options.airflow else here
    with stores(home, options.milvus) as settings, worker(settings, market) as work:
        lake = Lake(settings.lake_uri)
        for number in range(options.hours):
            run = pipeline.Run.of(f"{FIRST + timedelta(hours=number):%Y-%m-%dT%H}", settings=settings)
            hours.append(hour(run, market, listings + number * options.new, options.new, options.updates, work))
            told(f"{listings:,} listings, hour {run.id}: {hours[-1]}")
        kept = {"upkeep": upkept(settings)} if options.upkeep else {}
    sizes = {
        table.name: sum(file.stat().st_size for file in Path(lake.path(table)).rglob("*") if file.is_file())
        for table in (LISTINGS, TEXT_EMBEDDINGS, NEIGHBOURS, PAIRS)
    }
    return {
        "listings": listings,
        "seed_seconds": round(seeded),
        "hours": hours,
        "middle_seconds": round(statistics.median(hour["seconds"] for hour in hours[1:]), 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "largest_child_peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        **kept,
        "bytes_a_listing": {name: round(size / listings, 1) for name, size in sizes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=50_000)
    parser.add_argument("--against", type=int, help="listings of the smaller catalogue (default: a tenth)")
    parser.add_argument("--new", type=int, default=500, help="new listings an hour")
    parser.add_argument("--updates", type=int, default=2_000, help="changed listings an hour")
    parser.add_argument("--hours", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="fill the stores here where they aren't yet, and run hours on a copy")
    parser.add_argument("--milvus", choices=("embedded", "standalone"), default="embedded", help="of both catalogues")
    parser.add_argument("--airflow", action="store_true", help="run the hours by Airflow's scheduler")
    parser.add_argument("--upkeep", action="store_true", help="tell what upkeep takes after the hours")
    parser.add_argument("--json", type=Path, help="also write it here")
    options = parser.parse_args()
    if options.hours < 2:
        parser.error("--hours is 2 at least: the last one is compared, and the first pays for imports")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    found: dict[str, Any] = {"options": {name: str(value) for name, value in vars(options).items()}}
    against = options.against or options.listings // 10
    for name, listings in (("small", against), ("large", options.listings)):
        with tempfile.TemporaryDirectory(prefix="sosie-million-") as folder:
            found[name] = simulated(listings, options, Path(folder))
    small, large = (found[name]["hours"][-1] for name in ("small", "large"))
    found["large_over_small"] = {
        "catalogue": round(options.listings / against, 2),
        "hour": round(large["seconds"] / small["seconds"], 2),
        "middle_hour": round(found["large"]["middle_seconds"] / found["small"]["middle_seconds"], 2),
        **{name: round(s / max(small["steps"][name], 0.01), 2) for name, s in large["steps"].items()},
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
