"""Milliseconds of one online lookup, "is it a duplicate, and of which one?", in a process that has Feast open.

    python benchmarks/online_lookup.py                       # 100,000 listings in SQLite
    python benchmarks/online_lookup.py --redis 127.0.0.1:6379

Prints median and 99th percentile for one id and for fifty, and beside them, as the peer, the same rows read from the
same SQLite file by a plain query: what is left is what Feast costs. Prints JSON with --json.
"""

import argparse
import json
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from sosie import features
from sosie.bench import Figure, Size
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings, load
from sosie.tables import DECISIONS, IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS

HOUR = datetime(2026, 1, 5, tzinfo=UTC)


def filled(home: Path, listings: int, redis: str | None) -> Settings:
    """A home whose lake and online store hold a decision on each listing; every third is a duplicate."""
    repo = home / "feature_repo"
    shutil.copytree(PROJECT / "feature_repo", repo)
    if redis:
        config = (repo / "feature_store.yaml").read_text()
        start = config.index("online_store:")
        text = f'{config[:start]}online_store:\n  type: redis\n  connection_string: "{redis}"\n'
        (repo / "feature_store.yaml").write_text(text)
    settings = load(home=home, feature_repo=repo)
    number = pl.int_range(listings, eager=True)
    decisions = pl.DataFrame({"number": number}).select(
        listing_id=pl.format("listing-{}", "number"),
        is_duplicate=pl.col("number") % 3 == 1,
        cluster_id=pl.when(pl.col("number") % 3 < 2).then(pl.format("c{}", pl.col("number") // 3)),
        canonical_id=pl.when(pl.col("number") % 3 < 2).then(pl.format("listing-{}", pl.col("number") // 3 * 3)),
        score=pl.when(pl.col("number") % 3 < 2).then(0.9),
        event_timestamp=pl.lit(HOUR),
        created_timestamp=pl.lit(HOUR),
        run_id=pl.lit("2026-01-05T00"),
    )
    Lake(settings.lake_uri).append(DECISIONS, decisions)
    none = TEXT_EMBEDDINGS.schema.to_frame(), IMAGE_EMBEDDINGS.schema.to_frame()
    features.publish(settings, *none, decisions)
    return settings


def times(call: Callable[[list[str]], object], listings: int, keys: int, calls: int) -> dict[str, float]:
    """Milliseconds of `call` with so many random ids, the first ten calls left out."""
    rng, taken = np.random.default_rng(7), []
    for _ in range(calls + 10):
        ids = [f"listing-{one}" for one in rng.choice(listings, keys, replace=False)]
        clock = time.perf_counter()
        call(ids)
        taken.append(1000 * (time.perf_counter() - clock))
    taken = taken[10:]
    return {"median_ms": round(statistics.median(taken), 2), "p99_ms": round(float(np.quantile(taken, 0.99)), 2)}


def plain(settings: Settings) -> Callable[[list[str]], object]:
    """The same answer by SQL alone, by keys that were made before."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    connection = sqlite3.connect(settings.home / "feast" / "online.db")

    def read(ids: list[str]) -> object:
        keys = [
            serialize_entity_key(EntityKey(join_keys=["listing_id"], entity_values=[Value(string_val=one)]), 3)
            for one in ids
        ]
        among = ",".join("?" * len(keys))
        return connection.execute(f"SELECT * FROM sosie_decisions WHERE entity_key IN ({among})", keys).fetchall()

    return read


def measure(size: Size) -> list[Figure]:
    listings, calls = {"small": (200, 5), "standard": (20_000, 100), "large": (100_000, 200)}[size]
    found = []
    with tempfile.TemporaryDirectory(prefix="sosie-lookup-") as folder:
        settings = filled(Path(folder), listings, None)
        for keys in (1, 50):
            ours = times(lambda ids: features.lookup(settings, ids), listings, keys, calls)
            peer = times(plain(settings), listings, keys, calls)
            note = f"median over {listings:,} listings; 99th percentile {ours['p99_ms']} ms"
            found.append(
                Figure(f"lookup of {keys}", ours["median_ms"], "ms", "SQL alone, same file", peer["median_ms"],
                       at_most=True, note=note)
            )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--redis", help="host:port of a Redis whose data may be written to, instead of SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sosie-lookup-") as folder:
        settings = filled(Path(folder), options.listings, options.redis)
        found: dict[str, object] = {"store": "redis" if options.redis else "sqlite", "listings": options.listings}
        for keys in (1, 50):
            ours = times(lambda ids: features.lookup(settings, ids), options.listings, keys, options.calls)
            found[f"{keys}_ids"] = ours
            if not options.redis:
                peer = times(plain(settings), options.listings, keys, options.calls)
                found[f"{keys}_ids_plain_sql"] = peer
                found[f"{keys}_ids_over_plain_sql"] = round(ours["median_ms"] / peer["median_ms"], 1)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
