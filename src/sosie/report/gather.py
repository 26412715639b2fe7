"""Read from the lake what one run touched, and choose what a person should see of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import polars as pl
import structlog

from sosie.errors import SosieError
from sosie.lake import Lake
from sosie.report.counts import Counts
from sosie.report.data import (
    TREND,
    BrokenRule,
    Cluster,
    Listing,
    Pair,
    QuarantinedRow,
    Reason,
    ReportData,
    listings,
)
from sosie.runs import succeeded_before
from sosie.tables import CLUSTER_EVENTS, CLUSTERS, PAIRS, QUARANTINE

log = structlog.get_logger(__name__)

Pictures = Callable[[str], bytes | None]
"""Encoded thumbnail of an image hash; None, or a `SosieError`, where there is none. Called from several threads."""

CLUSTERS_SHOWN = 24
MEMBERS_SHOWN = 8
ROWS_SHOWN_PER_RULE = 5
PAIRS_PER_LISTING = 2
SCORE_BINS = 20
RUNS_SHOWN = 24
PICTURES_AT_ONCE = 8

# What a reader should look at first: a merge or split is the likeliest to be wrong.
_KINDS = ("merged", "split", "dissolved", "shrank", "grew", "formed")


def gather(
    lake: Lake,
    run_id: str,
    manifest: Mapping[str, Any],
    *,
    pictures: Pictures = lambda _: None,
    example_pairs: int = 40,
    data_docs: str | None = None,
) -> ReportData:
    """The report of `run_id`. Rows are read by run id and by the ids found in them, never the whole catalogue.

    `data_docs` is the link to the validation's Data Docs, relative to the report's folder.
    """
    pairs = lake.read(PAIRS, pl.col("run_id") == run_id, pl.col("verdict") != "no_match")
    shown = choose(pairs, example_pairs)
    events = lake.read(CLUSTER_EVENTS, pl.col("run_id") == run_id)
    cards = _cards(events, lake)
    wanted = {*shown["left_id"], *shown["right_id"], *(member for card in cards for member in card["members"])}
    found = _listings(lake, wanted, pictures)
    return ReportData(
        manifest=manifest,
        pairs=tuple(_pair(row, found) for row in shown.iter_rows(named=True)),
        pairs_found=dict(pairs.group_by("verdict").len().iter_rows()),
        clusters=tuple(
            Cluster(**{**card, "members": tuple(found[member] for member in card["members"])}) for card in cards
        ),
        clusters_found=events["cluster_id"].n_unique(),
        broken_rules=broken_rules(lake, run_id),
        score_bins=_bins(pairs),
        trend=_trend(lake, run_id, manifest),
        data_docs=data_docs,
    )


def choose(pairs: pl.DataFrame, limit: int) -> pl.DataFrame:
    """At most `limit` pairs worth showing: half of them for review, the rest matches from doubtful to certain.

    Evenly spaced over the sorted scores, so that the page is neither all easy nor all hard, and no listing is in more
    than two of them where there are others.
    """
    ordered = pairs.sort("score", "left_id", "right_id", descending=[True, False, False])
    review = ordered.filter(pl.col("verdict") == "review")
    match = ordered.filter(pl.col("verdict") == "match")
    for_review = min(review.height, max(limit // 2, limit - match.height))
    return pl.concat([_spread(review, for_review), _spread(match, limit - for_review)])


def _spread(pairs: pl.DataFrame, limit: int) -> pl.DataFrame:
    if pairs.height <= limit:
        return pairs
    seen: defaultdict[str, int] = defaultdict(int)
    varied: list[int] = []
    others: list[int] = []
    for place, (left, right) in enumerate(pairs.select("left_id", "right_id").iter_rows()):
        fresh = seen[left] < PAIRS_PER_LISTING and seen[right] < PAIRS_PER_LISTING
        (varied if fresh else others).append(place)
        if fresh:
            seen[left] += 1
            seen[right] += 1
    pool = varied if len(varied) >= limit else sorted(varied + others[: limit - len(varied)])
    return pairs[[pool[step * len(pool) // limit] for step in range(limit)]] if limit else pairs.clear()


def _pair(row: Mapping[str, Any], listings: Mapping[str, Listing]) -> Pair:
    reasons = sorted(row["reasons"] or (), key=lambda reason: -abs(reason["contribution"] or 0.0))
    return Pair(
        left=listings[row["left_id"]],
        right=listings[row["right_id"]],
        score=row["score"],
        verdict=row["verdict"],
        reasons=tuple(Reason(r["feature"], r["value"], r["contribution"] or 0.0) for r in reasons),
        blocked_by=tuple(row["blocked_by"] or ()),
    )


def _cards(events: pl.DataFrame, lake: Lake) -> list[dict[str, Any]]:
    """One card a cluster, most worth a look first: fields of `Cluster`, its members still as ids."""
    now = lake.lookup(CLUSTERS, "cluster_id", events["cluster_id"].unique())
    members: dict[str, list[str]] = defaultdict(list)
    canonical: dict[str, str] = {}
    for row in now.sort("listing_id").iter_rows(named=True):
        canonical[row["cluster_id"]] = row["canonical_id"]
        members[row["cluster_id"]].append(row["listing_id"])
    cards: list[dict[str, Any]] = []
    for (cluster_id,), own in events.sort("kind").group_by(["cluster_id"], maintain_order=True):
        joined, gone = _ids(own["joined"]), _ids(own["left"])
        head = canonical.get(str(cluster_id))
        held = members.get(str(cluster_id), [])
        # The canonical one first, then who came, then the others; of a cluster that is no more, who left it.
        order = sorted(held or gone, key=lambda member: (member != head, member not in joined, member))
        cards.append(
            {
                "cluster_id": str(cluster_id),
                "kinds": tuple(sorted(own["kind"].unique(), key=_rank)),
                "size": len(held),
                "canonical_id": head,
                "members": tuple(order[:MEMBERS_SHOWN]),
                "joined": joined,
                "left": gone,
                "others": tuple(sorted((_ids(own["before"]) | _ids(own["after"])) - {str(cluster_id)})),
            }
        )
    cards.sort(key=lambda card: (_rank(card["kinds"][0]), -card["size"], card["cluster_id"]))
    return cards[:CLUSTERS_SHOWN]


def _rank(kind: str) -> int:
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _ids(lists: pl.Series) -> frozenset[str]:
    return frozenset(lists.explode().drop_nulls().to_list())


def _listings(lake: Lake, wanted: Iterable[str], pictures: Pictures) -> dict[str, Listing]:
    """Every wanted listing with its picture."""
    found = listings(lake, wanted)
    hashes = {one.image_hash for one in found.values()}
    with ThreadPoolExecutor(PICTURES_AT_ONCE) as pool:  # an object store answers slowly, but many at once
        shown = dict(pool.map(lambda image_hash: (image_hash, _picture(pictures, image_hash)), hashes))
    return {name: replace(one, picture=shown[one.image_hash]) for name, one in found.items()}


def _picture(pictures: Pictures, image_hash: str | None) -> bytes | None:
    """The thumbnail, or None with a word in the log: a page without one picture is better than no page."""
    try:
        return pictures(image_hash) if image_hash else None
    except SosieError as error:
        log.warning("The report leaves a picture out", image_hash=image_hash, error=str(error))
        return None


def broken_rules(lake: Lake, run_id: str) -> tuple[BrokenRule, ...]:
    """The run's quarantine by rule, the rule that was broken most first."""
    rows = lake.read(QUARANTINE, pl.col("run_id") == run_id).sort("source_file", "row_number")
    found = [
        BrokenRule(
            rule=str(rule),
            rows=own.height,
            examples=tuple(
                QuarantinedRow(
                    source_file=row["source_file"],
                    row_number=row["row_number"],
                    detail=row["detail"] or "",
                    listing_id=row["listing_id"],
                    row=row["row"],
                )
                for row in own.head(ROWS_SHOWN_PER_RULE).iter_rows(named=True)
            ),
        )
        for (rule,), own in rows.group_by(["rule"], maintain_order=True)
    ]
    return tuple(sorted(found, key=lambda broken: (-broken.rows, broken.rule)))


def _bins(pairs: pl.DataFrame) -> tuple[tuple[int, int], ...]:
    """Pairs of each score bin by verdict (match, review)."""
    if pairs.is_empty():
        return ()
    place = (pl.col("score") * SCORE_BINS).floor().cast(pl.Int64).clip(0, SCORE_BINS - 1).alias("bin")
    held = {
        (row["bin"], row["verdict"]): row["len"] for row in pairs.group_by(place, "verdict").len().iter_rows(named=True)
    }
    return tuple((held.get((i, "match"), 0), held.get((i, "review"), 0)) for i in range(SCORE_BINS))


def _trend(lake: Lake, run_id: str, manifest: Mapping[str, Any]) -> pl.DataFrame:
    earlier = succeeded_before(lake, run_id, RUNS_SHOWN - 1, ["run_id", "seconds", "steps"])
    runs: Sequence[Mapping[str, Any]] = [*earlier.iter_rows(named=True), manifest]
    return pl.DataFrame([_trend_row(run) for run in runs], schema=TREND)


def _trend_row(manifest: Mapping[str, Any]) -> dict[str, object]:
    count = Counts(manifest)
    return {
        "run_id": manifest["run_id"],
        "changed": count.changed,
        "match": count("match.match"),
        "review": count("match.review"),
        "quarantined": count("validate.rows_quarantined"),
        "seconds": manifest.get("seconds"),
    }
