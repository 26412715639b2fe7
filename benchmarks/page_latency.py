"""How long the page's answers take over a lake of many listings: median and 95th percentile, also of each kind of page.

    python benchmarks/page_latency.py [--listings 100000] [--rounds 30] [--json FILE]

The lake is written to a temporary folder, as hourly runs would leave it: in many commits. Requests go through the whole
app in process, by several reviewers in turn. The goal is for all of them together; what each kind takes is only told.
Its first answer is left out and told apart: it opens the tables. None is written to meanwhile, so what a page takes
after somebody judged, or an hour ended, is not measured.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image

from sosie.bench import Figure, Size
from sosie.decider.neighbourhood import FLOOR
from sosie.lake import Lake
from sosie.page import Person, build
from sosie.pictures import Thumbnails
from sosie.settings import load
from sosie.tables import CLUSTER_EVENTS, CLUSTERS, JUDGEMENTS, LISTINGS, PAIRS, RUNS, Table

GOAL_MS = 200
COMMITS = 24
WORDS = [
    a + b
    for a in ("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "su", "ta")
    for b in ("ran", "lex", "mor", "tis", "vel")
]
START = datetime(2026, 1, 5, tzinfo=UTC)


def write(lake: Lake, listings: int, rng: np.random.Generator, hashes: list[str]) -> dict[str, int]:
    """Listings in groups of one to five, pairs inside and between them, 2 % of all pairs for a person."""
    sizes = rng.choice([1, 2, 3, 4, 5], p=[0.4, 0.3, 0.15, 0.1, 0.05], size=listings)
    group = np.repeat(np.arange(len(sizes)), sizes)[:listings]
    ids = np.array([f"l{number:08d}" for number in rng.permutation(listings)])
    hour = [
        f"2026-01-{5 + place * COMMITS // listings // 24:02d}T{place * COMMITS // listings % 24:02d}"
        for place in range(listings)
    ]
    frame = pl.DataFrame(
        {
            "listing_id": ids,
            "title": [" ".join(rng.choice(WORDS, 8)) for _ in range(listings)],
            "seller_id": [f"seller-{one}" for one in rng.integers(0, 5_000, listings)],
            "price": rng.uniform(1, 500, listings),
            "image_hash": rng.choice(hashes, listings),
            "content_hash": ids,
            "first_seen_run": hour,
            "group": group,
        }
    )
    written = [
        _append(lake, LISTINGS, frame.with_columns(currency=pl.lit("EUR"), updated_at=pl.lit(START), is_deleted=False))
    ]
    heads = frame.with_columns(
        size=pl.len().over("group").cast(pl.Int64), canonical_id=pl.col("listing_id").min().over("group")
    )
    members = heads.filter(pl.col("size") > 1).with_columns(
        cluster_id="c" + pl.col("canonical_id"), changed_run="first_seen_run"
    )
    written.append(_append(lake, CLUSTERS, members))
    events = (
        members.group_by("cluster_id")
        .agg(run_id=pl.col("changed_run").first(), joined="listing_id")
        .with_columns(
            kind=pl.lit("formed"), before=pl.lit([], dtype=pl.List(pl.String)), after=pl.concat_list("cluster_id")
        )
    )
    written.append(_append(lake, CLUSTER_EVENTS, events))
    inside = members.select("group", left_id="listing_id").join(
        members.select("group", right_id="listing_id"), on="group"
    )
    between = pl.DataFrame({"left_id": rng.choice(ids, 3 * listings), "right_id": rng.choice(ids, 3 * listings)})
    reason = [
        {"feature": "text_cosine", "value": 0.9, "contribution": 2.0},
        {"feature": "price_ratio", "value": 1.5, "contribution": -0.5},
    ]
    pairs = pl.concat(
        [inside.select("left_id", "right_id", score=pl.lit(0.9)), between.with_columns(score=pl.lit(0.1))]
    )
    pairs = pairs.filter(pl.col("left_id") < pl.col("right_id")).unique(
        ["left_id", "right_id"], keep="first", maintain_order=True
    )
    noise = pl.Series(rng.uniform(-0.1, 0.1, pairs.height))
    doubt = pl.Series(rng.random(pairs.height) < 0.02)
    by_themselves = pl.Series(rng.uniform(-0.05, 0.05, pairs.height))
    pairs = pairs.with_columns(
        score=pl.when(doubt).then(0.35 + noise).otherwise(pl.col("score") + noise / 2),
        reasons=pl.lit([reason], dtype=pl.List(PAIRS.columns["reasons"])).list.first(),
        blocked_by=pl.lit(["text"], dtype=pl.List(pl.String)),
    ).with_columns(
        first_score=(pl.col("score") + by_themselves).clip(FLOOR, 1),
        verdict=pl.when(pl.col("score") > 0.5)
        .then(pl.lit("match"))
        .when(doubt)
        .then(pl.lit("review"))
        .otherwise(pl.lit("no_match")),
    )
    written.append(_append(lake, PAIRS, pairs))
    counts = [
        {"name": "rows_read", "value": 4_000},
        {"name": "rows_accepted", "value": 3_990},
        {"name": "rows_quarantined", "value": 10},
    ]
    steps = [{"name": "validate", "seconds": 4.0, "peak_memory_bytes": 1, "counts": counts}]
    runs = [{**dict.fromkeys(RUNS.columns), "run_id": f"2026-01-{day:02d}T{hour:02d}", "state": "succeeded",
             "seconds": 60.0, "started_at": START, "finished_at": START + timedelta(minutes=1), "files": [],
             "steps": steps}
            for day in range(5, 7) for hour in range(24)]  # fmt: skip
    lake.append(RUNS, pl.DataFrame(runs, schema=RUNS.schema))
    judged = (
        pairs.filter(pl.col("verdict") == "review").head(500).select("left_id", "right_id", verdict=pl.lit("different"))
    )
    written.append(
        _append(lake, JUDGEMENTS, judged.with_columns(who=pl.lit("ada"), when=pl.lit(START - timedelta(days=1))))
    )
    return dict(zip(("listings", "clustered", "events", "pairs", "judgements"), written, strict=True)) | {
        "clusters": events.height, "review": int((pairs["verdict"] == "review").sum())
    }  # fmt: skip


def _append(lake: Lake, table: Table, rows: pl.DataFrame) -> int:
    """In as many commits as a day has hours."""
    rows = rows.with_columns(pl.lit(None).alias(name) for name in table.columns if name not in rows.columns)
    rows = rows.select(*table.columns)
    step = -(-rows.height // COMMITS)
    for start in range(0, rows.height, step):
        lake.checked(table, rows.slice(start, step)).write_delta(lake.path(table), mode="append")
    return rows.height


def requests(lake: Lake, rounds: int, seed: int) -> list[tuple[str, str]]:
    """Kind and path of each request, in a mixed order."""
    rng = random.Random(seed)
    clusters = lake.read(CLUSTERS, columns=["cluster_id"])["cluster_id"].unique().sort().to_list()
    review = lake.read(PAIRS, pl.col("verdict") == "review", columns=["left_id", "right_id"]).sort("left_id").rows()
    listings = lake.read(LISTINGS, columns=["listing_id"])["listing_id"].sort().to_list()
    found = []
    for number in range(rounds):
        left, right = rng.choice(review)
        found += [
            ("queue", "/review"),
            ("queue, filtered, far page", f"/review?cause=unsure&page={rng.randrange(1, 100)}"),
            ("one pair", f"/review?left={left}&right={right}"),
            ("clusters", f"/clusters?page={rng.randrange(1, 500)}&order={'latest' if number % 2 else 'largest'}"),
            ("search by words", f"/clusters?q={rng.choice(WORDS)}+{rng.choice(WORDS)}"),
            ("search by listing id", f"/clusters?q={rng.choice(listings)}"),
            ("search by seller", f"/clusters?seller=seller-{rng.randrange(5_000)}"),
            ("one cluster", f"/clusters/{rng.choice(clusters)}"),
            ("runs", f"/runs?page={rng.randrange(1, 3)}"),
            ("one run", f"/runs/2026-01-05T{rng.randrange(24):02d}"),
            ("models", "/models"),
        ]
    rng.shuffle(found)
    return found


def measure(size: Size) -> list[Figure]:
    listings, rounds = {"small": (300, 1), "standard": (20_000, 10), "large": (100_000, 30)}[size]
    with tempfile.TemporaryDirectory() as home:
        found = answered(Path(home), listings, rounds, 7)
    every = {"all pages": found["all_pages"], **found["pages"]}
    note = f"95th percentile over a lake of {listings:,} listings"
    return [
        Figure(kind, each["p95_ms"], "ms", "limit", GOAL_MS, 1.0 if kind == "all pages" else None, True, note)
        for kind, each in every.items()
    ]


def answered(home: Path, listings: int, rounds: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    settings = load(home=home)
    thumbnails, hashes = Thumbnails(f"{settings.lake_uri}/pictures"), [f"{number:064x}" for number in range(200)]
    for image_hash in hashes:
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        thumbnails.put(image_hash, Image.fromarray(pixels).resize((256, 256)))
    lake = Lake(settings.lake_uri)
    held = write(lake, listings, rng, hashes)

    def who(request: Request) -> Person:
        return Person(request.headers["x-reviewer"], may_judge=True)

    client = TestClient(build(settings, who), headers={"sec-fetch-site": "same-origin"})
    cold: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    wanted = requests(lake, rounds, seed)
    wanted += [("picture", f"/picture/{hashes[number % 200]}?side=96") for number in range(rounds * 10)]
    for number, (kind, path) in enumerate(wanted):
        began = time.perf_counter()
        answer = client.get(path, headers={"x-reviewer": f"reviewer-{number % 3}"})
        taken = 1000 * (time.perf_counter() - began)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-300:])
        if kind in cold:
            times.setdefault(kind, []).append(taken)
        else:
            cold[kind] = taken
    pages = [taken for kind, own in times.items() if kind != "picture" for taken in own]
    told = {kind: {"first_ms": round(cold[kind], 1), **_percentiles(own)} for kind, own in sorted(times.items())}
    overall = _percentiles(pages)
    return {"lake": held, "pages": told, "all_pages": overall, "goal_ms": GOAL_MS, "met": overall["p95_ms"] < GOAL_MS}


def _percentiles(taken: list[float]) -> dict[str, float]:
    return {
        "requests": len(taken),
        "p50_ms": round(float(np.percentile(taken, 50)), 1),
        "p95_ms": round(float(np.percentile(taken, 95)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = answered(Path(home), given.listings, given.rounds, given.seed)
    print(*(f"{name} {value:,}" for name, value in found["lake"].items()), sep=", ")
    print(f"{'page':28}{'first':>9}{'median':>9}{'95th':>9}  ms")
    for kind, own in found["pages"].items():
        print(f"{kind:28}{own['first_ms']:9.1f}{own['p50_ms']:9.1f}{own['p95_ms']:9.1f}")
    overall, verdict = found["all_pages"], "met" if found["met"] else "missed"
    print(f"{'all pages':37}{overall['p50_ms']:9.1f}{overall['p95_ms']:9.1f}  goal {GOAL_MS}: {verdict}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
