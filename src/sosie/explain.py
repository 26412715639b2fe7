"""Why a listing stands where it stands: all that the lake knows of it, in the order in which it happened."""

from typing import Any

import polars as pl

from sosie import hours
from sosie.errors import UnknownListing
from sosie.lake import Lake
from sosie.runs import last_end
from sosie.tables import (
    CHANGES,
    CLUSTER_EVENTS,
    CLUSTERS,
    DECISIONS,
    HELD_MERGES,
    JUDGEMENTS,
    LISTINGS,
    PAIRS,
    QUARANTINE,
)
from sosie.validation.rules import EMPTYING

Facts = dict[str, Any]

_NAMED = 6
"""Of many ids, those that are spelled out."""

_CHANGED = {
    "new": "came into the catalogue",
    "text": "got another title",
    "image": "got another picture",
    "text_and_image": "got another title and picture",
    "attributes": "got other attributes; title and picture stayed",
    "deleted": "was deleted",
}
_HELD = {
    "weak_link": "too few of the pairs between the two groups match",
    "cluster_too_large": "the cluster would grow beyond its limit",
    "judged_different": "a person judged listings of the two groups different",
}


def explain(lake: Lake, listing: str) -> Facts:
    """Everything of one listing, ready for JSON: `now`, `cluster`, `pairs` (best first), `held` and `history`.

    `history` is a list of {hour, what, …}: changes, quarantined rows, cluster events, what the storefront was told and
    judgements, oldest first. Raises `UnknownListing` for an id that is neither held nor was ever refused.
    """
    now = lake.lookup(LISTINGS, "listing_id", [listing])
    refused = _quarantined(lake, listing)
    if now.is_empty() and not refused:
        raise UnknownListing(f"No listing {listing!r} in {lake.uri}, nor among its quarantined rows; check the id.")
    judged = _judgements(lake, listing)
    told = lake.lookup(DECISIONS, "listing_id", [listing]).sort("event_timestamp", "created_timestamp")
    history = [
        *_changes(lake, listing),
        *refused,
        *_events(lake, listing, told["cluster_id"]),
        *_decisions(lake, told),
        *judged,
    ]
    return {
        "listing_id": listing,
        "now": now.drop("listing_id").row(0, named=True) if now.height else None,
        "cluster": _cluster(lake, listing),
        "pairs": _pairs(lake, listing, judged),
        "held": _held(lake, listing),
        "history": sorted(history, key=lambda fact: fact["hour"]),
    }


def _of(lake: Lake, table: Any, listing: str) -> pl.DataFrame:
    """Rows of a table of pairs with the listing on one side; `other` is the other side."""
    either = (pl.col("left_id") == listing) | (pl.col("right_id") == listing)
    other = pl.when(pl.col("left_id") == listing).then("right_id").otherwise("left_id")
    return lake.read(table, either).with_columns(other=other)


def _changes(lake: Lake, listing: str) -> list[Facts]:
    rows = lake.read(CHANGES, pl.col("listing_id") == listing).iter_rows(named=True)
    return [{"hour": row["run_id"], "what": "changed", "kind": row["kind"]} for row in rows]


def _quarantined(lake: Lake, listing: str) -> list[Facts]:
    rows = lake.read(QUARANTINE, pl.col("listing_id") == listing).sort("run_id", "source_file", "row_number", "rule")
    wanted = ("rule", "detail", "source_file", "row_number", "row", "replayed_run")
    return [
        {"hour": row["run_id"], "what": "quarantined", **{name: row[name] for name in wanted}}
        for row in rows.iter_rows(named=True)
    ]


def _events(lake: Lake, listing: str, clusters: pl.Series) -> list[Facts]:
    """What happened to the clusters that the listing was in, and where it joined or left."""
    mine = pl.Series(clusters.drop_nulls().unique(), dtype=pl.String).implode()
    touched = (
        pl.col("joined").list.contains(listing)
        | pl.col("left").list.contains(listing)
        | pl.col("cluster_id").is_in(mine)
    )
    rows = lake.read(CLUSTER_EVENTS, touched).sort("run_id", "kind", "cluster_id").iter_rows(named=True)
    return [
        {"hour": row["run_id"], "what": "cluster", **{key: value for key, value in row.items() if key != "run_id"}}
        for row in rows
    ]


def _decisions(lake: Lake, told: pl.DataFrame) -> list[Facts]:
    """`published` is false where the next hour is still to tell the storefront."""
    until = last_end(lake)
    return [
        {
            "hour": row["run_id"],
            "what": "told",
            "published": until is not None and row["created_timestamp"] <= until,
            **{name: row[name] for name in ("is_duplicate", "cluster_id", "canonical_id", "score")},
        }
        for row in told.iter_rows(named=True)
    ]


def _judgements(lake: Lake, listing: str) -> list[Facts]:
    rows = _of(lake, JUDGEMENTS, listing).sort("when").iter_rows(named=True)
    return [
        {
            "hour": hours.name(row["when"]),
            "what": "judged",
            **{name: row[name] for name in ("other", "verdict", "who", "when", "note", "retracted_at")},
        }
        for row in rows
    ]


def _cluster(lake: Lake, listing: str) -> Facts | None:
    held = lake.lookup(CLUSTERS, "listing_id", [listing])
    if held.is_empty():
        return None
    row = held.row(0, named=True)
    members = lake.lookup(CLUSTERS, "cluster_id", [row["cluster_id"]])["listing_id"].sort().to_list()
    return {**{name: row[name] for name in ("cluster_id", "canonical_id", "changed_run")}, "members": members}


def _pairs(lake: Lake, listing: str, judged: list[Facts]) -> list[Facts]:
    from sosie.report.words import reasons

    words = reasons()
    spoke = {fact["other"]: fact for fact in judged if fact["retracted_at"] is None}
    pairs = []
    for row in _of(lake, PAIRS, listing).sort("score", "other", descending=[True, False]).iter_rows(named=True):
        told = [{**reason, "words": words.get(reason["feature"], reason["feature"])} for reason in row["reasons"] or ()]
        by = spoke.get(row["other"])
        wanted = ("other", "score", "first_score", "verdict", "blocked_by", "decider_version", "embedding_version")
        pairs.append(
            {
                **{name: row[name] for name in wanted},
                "hour": row["run_id"],
                "reasons": told,
                "judged_by": by and by["who"],
            }
        )
    return pairs


def _held(lake: Lake, listing: str) -> list[Facts]:
    rows = _of(lake, HELD_MERGES, listing).sort("other").iter_rows(named=True)
    return [
        {"hour": row["run_id"], "other": row["other"], "cause": row["cause"], "clusters": row["clusters"]}
        for row in rows
    ]


def lines(facts: Facts) -> list[str]:
    """The same for a person, a line a fact."""
    now, cluster = facts["now"], facts["cluster"]
    told = [f"{facts['listing_id']}: {_state(now)}"]
    if cluster:
        others = [member for member in cluster["members"] if member != facts["listing_id"]]
        told.append(f"In cluster {cluster['cluster_id']} with {_some(others)}; canonical is {cluster['canonical_id']}.")
    elif now and not now["is_deleted"]:
        told.append("In no cluster: a duplicate of nothing that we know.")
    if facts["history"]:
        told += ["", "What happened"]
        told += [f"  {fact['hour']}  {_happened(fact)}" for fact in facts["history"]]
    if facts["pairs"]:
        told += ["", "Pairs, best first"]
        for pair in facts["pairs"]:
            told += _pair(pair)
    if facts["held"]:
        told += ["", "Matches that were not joined"]
        told += [f"  {one['hour']}  {one['other']}: {_HELD[one['cause']]}." for one in facts["held"]]
    return told


def _state(now: Facts | None) -> str:
    if now is None:
        return "never taken in."
    gone = "deleted; was " if now["is_deleted"] else ""
    return f"{gone}{now['title']!r}, first seen {now['first_seen_run']}, last changed {now['last_changed_run']}."


def _happened(fact: Facts) -> str:
    if fact["what"] == "changed":
        return _CHANGED[fact["kind"]]
    if fact["what"] == "quarantined":
        again = f"; replayed in {fact['replayed_run']}" if fact["replayed_run"] else ""
        how = "left out" if fact["rule"] in EMPTYING else "refused"
        return f"{how} by {fact['rule']}: {fact['detail']} ({fact['source_file']}, row {fact['row_number']}){again}"
    if fact["what"] == "judged":
        back = f"; taken back {fact['retracted_at']:%Y-%m-%d %H:%M}" if fact["retracted_at"] else ""
        note = f", saying {fact['note']!r}" if fact["note"] else ""
        return f"{fact['who']} judged it {fact['verdict']} {_than(fact['verdict'])} {fact['other']}{note}{back}"
    if fact["what"] == "told":
        which = f"a duplicate of {fact['canonical_id']}" if fact["is_duplicate"] else "no duplicate"
        when = "is told" if fact["published"] else "is told by the next hour at the latest"
        return f"the storefront {when}: {which}" + (f" (cluster {fact['cluster_id']})" if fact["cluster_id"] else "")
    moved = "".join(f"; {word} {_some(fact[side])}" for side, word in (("joined", "with"), ("left", "without"))
                    if fact[side])  # fmt: skip
    ways = f": {_some(fact['before'])} → {_some(fact['after'])}" if fact["kind"] in ("merged", "split") else ""
    return f"cluster {fact['cluster_id']} {fact['kind']}{ways}{moved}"


def _than(verdict: str) -> str:
    return "as" if verdict == "same" else "from"


def _pair(pair: Facts) -> list[str]:
    by = f", judged by {pair['judged_by']}" if pair["judged_by"] else ""
    proposed = f"proposed by {', '.join(pair['blocked_by'] or ['nothing any more'])}"
    head = f"  {pair['other']}  {pair['verdict']} at {pair['score']:.3f}{by} ({proposed}; decided in {pair['hour']} "
    told = [f"{head}by {pair['decider_version']} on {pair['embedding_version']})"]
    for reason in pair["reasons"]:
        side = "for" if (reason["contribution"] or 0) > 0 else "against"
        value = "unknown" if reason["value"] is None else f"{reason['value']:.3g}"
        told.append(f"      {side} ({reason['contribution']:+.2f}): {reason['words']} = {value}")
    return told


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
