"""What a catalogue of 200 million listings takes: RAM, disk, core hours, money, by formulas over measured constants.

    python benchmarks/plan.py [--listings 200000000] [--new 300000] [--updates 1200000] [--cores 64]
    python benchmarks/plan.py --core-hour 0.04 --ram-gb-month 3 --disk-gb-month 0.1 --store-gb-month 0.023

Constants are measured here in a few minutes, each as *CPU seconds of one core*, which other load on the machine does
not stretch as it does wall time: the shipped encoders over a generated marketplace, the shipped decider over its
candidate pairs, FAISS over simulated vectors, and the lake's own tables. --hours takes what an hour reads of the
catalogue from the JSON of `benchmarks/million.py` (without it, that line is left out). Prices have no default: without
them there is no cost. Prints a table; --json FILE writes constants, formulas and values.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import large_index
import numpy as np
import polars as pl

from sosie import blocking, neighbours
from sosie.decider.model import Decider
from sosie.embedding.image import ImageEncoder
from sosie.embedding.text import TextEncoder
from sosie.evaluate import datasets
from sosie.index.profiles import PROFILES
from sosie.lake import Lake
from sosie.listings import clean_titles, with_hashes
from sosie.settings import load
from sosie.simulate import Marketplace, write
from sosie.tables import DIM, FEED, LISTINGS, NEIGHBOURS, TEXT_EMBEDDINGS, VECTOR, Table

PROBED = PROFILES["large"].search["nprobe"] / int(PROFILES["large"].build["nlist"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=float, default=200e6)
    parser.add_argument("--new", type=float, default=300e3, help="new listings a day")
    parser.add_argument("--updates", type=float, default=1.2e6, help="changed listings a day")
    parser.add_argument("--retitled", type=float, default=0.2, help="share of the updates with another title")
    parser.add_argument("--repictured", type=float, default=0.05, help="share of the updates with another picture")
    parser.add_argument("--pictured", type=float, default=0.9, help="share of listings with a picture")
    parser.add_argument("--pairs", type=float, default=40, help="candidate pairs a listing")
    parser.add_argument("--probed", type=float, default=PROBED, help="share of the index that a search looks at")
    parser.add_argument("--cores", type=float, default=64)
    parser.add_argument("--core-hour", type=float, help="price of a core for an hour")
    parser.add_argument("--ram-gb-month", type=float, help="price of a GB of RAM for a month")
    parser.add_argument("--disk-gb-month", type=float, help="price of a GB of local disk for a month")
    parser.add_argument("--store-gb-month", type=float, help="price of a GB in the object store for a month")
    parser.add_argument("--sample", type=int, default=1_500, help="listings of the generated marketplace")
    parser.add_argument("--vectors", type=int, default=100_000, help="simulated vectors of the index")
    parser.add_argument("--hours", type=Path, help="JSON of benchmarks/million.py")
    parser.add_argument("--constants", type=Path, help="constants of an earlier --json instead of measuring")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    constants = (
        json.loads(options.constants.read_text())["constants"] if options.constants else measured(options)
    )  # fmt: skip
    lines = planned(constants, options)
    print("constants (CPU seconds are of one core)")
    for name, value in constants.items():
        print(f"  {name:34} {value:,.3g}")
    for part in dict.fromkeys(line["part"] for line in lines):
        print(f"\n{part}")
        for line in lines:
            if line["part"] == part:
                print(f"  {line['what']:34} {line['value']:>12,.1f} {line['unit']:<11} = {line['formula']}")
    if options.json:
        asked = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
        options.json.write_text(json.dumps({"asked": asked, "constants": constants, "plan": lines}, indent=2) + "\n")


# --- the plan --------------------------------------------------------------------------------------------------------


def planned(measured: dict[str, float], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lines of part, what, value, unit, formula. A formula is evaluated as it is shown, so that it can't be another."""
    known: dict[str, float] = {
        **measured, "N": options.listings, "new": options.new, "updates": options.updates,
        "retitled": options.retitled, "repictured": options.repictured, "pictured": options.pictured,
        "pairs": options.pairs, "probed": options.probed, "cores": options.cores,
    }  # fmt: skip
    lines: list[dict[str, Any]] = []

    def line(part: str, what: str, unit: str, formula: str, name: str = "") -> None:
        value = float(eval(formula, {"__builtins__": {}}, known))  # the formulas below, over numbers
        lines.append({"part": part, "what": what, "value": value, "unit": unit, "formula": formula})
        if name:
            known[name] = value

    store, build, hour, cost = "stores", "full build", "an hour", "cost a month"
    line(store, "vectors", "million", "N * (1 + pictured) / 1e6")
    line(store, "index, RAM", "GB", "N * (1 + pictured) * index_ram_bytes / 1e9", "ram")
    line(store, "index, disk", "GB", "N * (1 + pictured) * index_disk_bytes / 1e9", "disk")
    line(store, "the same in float32, RAM", "GB", "N * (1 + pictured) * 512 / 1e9")
    line(store, "lake: listings", "GB", "N * listing_bytes / 1e9", "l1")
    line(store, "lake: vectors", "GB", "N * (1 + pictured) * vector_bytes / 1e9", "l2")
    line(store, "lake: neighbour lists", "GB", "N * neighbours_bytes / 1e9", "l3")
    line(store, "small pictures", "GB", "N * pictured * picture_bytes / 1e9", "l4")

    line(build, "titles", "core hours", "N * text_seconds / 3600", "b1")
    line(build, "pictures", "core hours", "N * pictured * image_seconds / 3600", "b2")
    line(build, "search", "core hours", "N * (1 + pictured) * N * probed * scan_seconds / 3600", "b3")
    line(build, "decisions", "core hours", "N * pairs / 2 * pair_seconds / 3600", "b4")
    line(build, "all", "core hours", "b1 + b2 + b3 + b4", "whole")
    line(build, "all, on the cores given", "hours", "whole / cores")

    line(hour, "rows", "rows", "(new + updates) / 24", "rows")
    line(hour, "titles", "core minutes", "(new + updates * retitled) / 24 * text_seconds / 60", "h1")
    line(
        hour, "pictures", "core minutes",
        "(new * pictured + updates * repictured) / 24 * image_seconds / 60", "h2",
    )  # fmt: skip
    line(
        hour, "search", "core minutes",
        "(new * (1 + pictured) + updates * (retitled + repictured)) / 24 * N * probed * scan_seconds / 60", "h3",
    )  # fmt: skip
    line(hour, "decisions", "core minutes", "rows * pairs * pair_seconds / 60", "h4")
    line(hour, "all that follows changes", "core minutes", "h1 + h2 + h3 + h4", "changes")
    line(hour, "the same, on the cores given", "minutes", "changes / cores")
    if "catalogue_seconds" in known:
        line(hour, "reads of the whole catalogue", "minutes", "N * catalogue_seconds / 60")

    prices = {"core": options.core_hour, "memory": options.ram_gb_month, "local": options.disk_gb_month,
              "stored": options.store_gb_month}  # fmt: skip
    known |= {name: price for name, price in prices.items() if price is not None}
    if options.core_hour is not None:
        line(cost, "hours of a month", "", "changes / 60 * 730 * core")
        line(cost, "a full build, once", "", "whole * core")
    if options.ram_gb_month is not None:
        line(cost, "index, RAM", "", "ram * memory")
    if options.disk_gb_month is not None:
        line(cost, "index, disk", "", "disk * local")
    if options.store_gb_month is not None:
        line(cost, "lake and pictures", "", "(l1 + l2 + l3 + l4) * stored")
    return lines


# --- the constants ---------------------------------------------------------------------------------------------------


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Seconds are of one core's time, bytes a listing, vector or picture."""
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder) / "market"
        write(market, Marketplace(listings=options.sample, hours=1))
        found = {**models(market), **lake(market, Lake(f"{folder}/lake")), **index(options, Path(folder))}
    if options.hours:
        told = json.loads(options.hours.read_text())
        large, small = told["large"], told["small"]
        more = large["hours"][-1]["seconds"] - small["hours"][-1]["seconds"]
        found["catalogue_seconds"] = max(more, 0.0) / (large["listings"] - small["listings"])
    return found


def seconds(work: Callable[[], Any], of: float) -> float:
    """CPU seconds of one piece of `of`, after a first round that loads and warms."""
    started = time.process_time()
    work()
    return (time.process_time() - started) / of


def models(market: Path) -> dict[str, float]:
    settings, dataset = load(), datasets.load(market)
    listings = with_hashes(dataset.listings.with_columns(image_hash=pl.lit(None, pl.String)))
    titles = listings.select(clean_titles(pl.col("title")))["title"].to_list()
    text = TextEncoder.load(settings.text_model, threads=1)
    vectors = text.encode(titles, 32)
    pictures = [path.read_bytes() for path in sorted(market.rglob("*.jpg"))[:200]]
    image = ImageEncoder.load(settings.image_model, threads=1)
    image.encode(pictures[:32], 32)
    held = pl.DataFrame({"listing_id": listings["listing_id"], "vector": pl.Series(vectors).cast(VECTOR)})
    near = blocking.join_frame(held["listing_id"], held, 20, 0.0)
    pairs = (
        near.select(
            left_id=pl.min_horizontal("query_id", "listing_id"), right_id=pl.max_horizontal("query_id", "listing_id")
        )
        .unique()
        .sort("left_id", "right_id")
    )
    decider = Decider.load(settings.decider_model, threads=1).in_catalogue(listings.height)
    none = held.clear()

    def decide() -> None:
        decider.decide(pairs, listings, held, none)

    decide()
    return {
        "text_seconds": seconds(lambda: text.encode(titles, 32), len(set(titles))),
        "image_seconds": seconds(lambda: image.encode(pictures, 32), len(pictures)),
        "pair_seconds": seconds(decide, pairs.height),
        "picture_bytes": float(np.mean([small(data) for data in pictures])),
    }


def small(data: bytes) -> int:
    from sosie.pictures import THUMBNAIL_SIDE, decode, shrunk

    return len(shrunk(decode(data), THUMBNAIL_SIDE))


def lake(market: Path, held: Lake) -> dict[str, float]:
    """Bytes of Parquet a row, as Delta's files lie there."""
    rows, random = 20_000, np.random.default_rng(7)
    own = datasets.load(market).listings
    ids = [f"listing-{number:09d}" for number in range(rows)]
    digests = [random.bytes(32).hex() for _ in range(rows)]
    many = pl.concat([own] * (rows // own.height + 1)).head(rows).select(*FEED)
    many = many.with_columns(
        listing_id=pl.Series(ids),
        title=pl.col("title") + pl.Series([f" {digest[:6]}" for digest in digests]),  # no title is there twice
        image_hash=pl.Series(digests),
        is_deleted=pl.lit(False),
    )
    listings = with_hashes(many).with_columns(first_seen_run=pl.lit("2026-01-05T00"), last_changed_run=pl.lit(None))
    made = large_index.simulated(rows, random)
    embedded = pl.DataFrame({"listing_id": ids, "vector": pl.Series(made).cast(VECTOR), "content_hash": digests})
    embedded = embedded.with_columns(
        embedding_version=pl.lit("0123456789ab"),
        event_timestamp=pl.lit(datetime(2026, 1, 5, tzinfo=UTC)),
        created_timestamp=pl.lit(datetime(2026, 1, 5, tzinfo=UTC)),
    )
    others = random.integers(rows, size=(rows, 40))
    places = neighbours.Places(pl.Series(ids).sort())
    lists = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(rows), 40),
            "listing_id": others.ravel(),
            "similarity": random.random(rows * 40).astype(np.float32),
        }
    ).cast(neighbours.NEAR)
    placed = pl.DataFrame({"listing_id": places.every, "content_hash": neighbours.numbers(pl.Series(digests))})
    placed = placed.with_columns(reach=pl.lit(None, pl.Float32))
    wanted: tuple[tuple[str, Table, pl.DataFrame], ...] = (
        ("listing_bytes", LISTINGS, listings),
        ("vector_bytes", TEXT_EMBEDDINGS, embedded),
        ("neighbours_bytes", NEIGHBOURS, neighbours.rows(lists, placed, places, "text", 40)),
    )
    found = {}
    for name, table, frame in wanted:
        if table is NEIGHBOURS:  # as they are written when all of them are
            held.rewrite(table, frame.with_columns(turn=pl.lit(0)), frame.height)
        else:
            held.append(table, frame.select(*table.columns))
        files = Path(held.path(table)).rglob("*.parquet")
        found[name] = sum(file.stat().st_size for file in files) / rows
    return found


def index(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Bytes a vector of the profile for large catalogues, and seconds for a code that a search looks at."""
    random = np.random.default_rng(7)
    rows = large_index.simulated(options.vectors, random)
    lists, probes, queries = 512, 32, 300
    flat = faiss.index_factory(DIM, f"IVF{lists},RaBitQ")
    flat.train(rows[:40_000])
    flat.add(rows)
    flat.nprobe = probes
    asked = rows[:queries]
    looked_at = queries * options.vectors * probes / lists
    found = {"scan_seconds": seconds(lambda: flat.search(asked, 200), looked_at)}
    profile = large_index.rabitq(rows, lists, probes, 200, folder / "codes")
    return {
        **found,
        "index_ram_bytes": profile.ram / options.vectors,
        "index_disk_bytes": profile.disk / options.vectors,
    }


if __name__ == "__main__":
    main()
