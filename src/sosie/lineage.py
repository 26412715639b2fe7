"""How clusters live on from hour to hour: ids that stay, events that tell what happened, one canonical listing each.

A cluster keeps its id for as long as it keeps its oldest members. When clusters merge, the one with the oldest listing
keeps its id; when one splits, the part that holds its oldest listing does, and every other part gets a new id.
"""

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import polars as pl

from sosie.tables import CLUSTER_EVENTS, CLUSTERS

KINDS = ("formed", "grew", "shrank", "merged", "split", "dissolved")

Age = tuple[str, str]
"""Run in which a listing was first seen, then its id: who is older."""


@dataclass(frozen=True)
class Lineage:
    """`rows` fits tables.CLUSTERS, `events` fits tables.CLUSTER_EVENTS; `gone`: listing_id of rows to delete."""

    rows: pl.DataFrame
    gone: pl.DataFrame
    events: pl.DataFrame


_NEVER = datetime.min.replace(tzinfo=UTC)


def evolve(
    held: pl.DataFrame,
    groups: pl.DataFrame,
    listings: pl.DataFrame,
    run_id: str,
    taken: Iterable[str],
    chosen: Mapping[str, datetime] = MappingProxyType({}),
) -> Lineage:
    """Carry ids over from the clusters that are held to the groups found now.

    `held` is every row of each affected cluster; `groups` (listing_id, group) says where each of their living members
    and every newly matched listing belongs now, a group of one meaning "in no cluster". `listings` has listing_id,
    first_seen_run and the columns that `canonical` reads, for all of them. `taken` are the ids of all clusters that are
    held, affected or not: an hour that runs again may have given one that lives on elsewhere. `chosen` tells when a
    person chose a listing as the canonical one; the newest choice in a cluster holds.
    """
    age: dict[str, Age] = {
        row[0]: (row[1], row[0]) for row in listings.select("listing_id", "first_seen_run").iter_rows()
    }
    members_before = _members(held, "cluster_id")
    parts = sorted(members for members in _members(groups, "group").values() if len(members) > 1)
    # Members that are gone for good are older than any that lived on, whoever they were: they claim nothing.
    lives = {cluster: [m for m in members if m in age] for cluster, members in members_before.items()}
    part_of = {member: number for number, part in enumerate(parts) for member in part}

    claims: dict[int, list[str]] = defaultdict(list)
    for cluster, members in lives.items():
        heirs = [member for member in members if member in part_of]
        if heirs:
            claims[part_of[min(heirs, key=age.__getitem__)]].append(cluster)
    ids = {
        number: min(claimed, key=lambda cluster: min(age[m] for m in lives[cluster]))
        for number, claimed in claims.items()
    }
    used = set(taken)
    for number, part in enumerate(parts):
        if number not in ids:
            ids[number] = _new_id(part, run_id, used)
            used.add(ids[number])

    canonical = _canonical(listings)
    rows = [
        (member, ids[number], head, len(part), run_id)
        for number, part in enumerate(parts)
        for head in [max(sorted(part, key=canonical.__getitem__), key=lambda one: chosen.get(one, _NEVER))]
        for member in part
    ]
    rows_frame = pl.DataFrame(rows, schema=CLUSTERS.schema, orient="row")
    return Lineage(
        rows=rows_frame,
        gone=held.select("listing_id").join(rows_frame, on="listing_id", how="anti"),
        events=_events(members_before, {ids[n]: part for n, part in enumerate(parts)}, run_id),
    )


def _members(frame: pl.DataFrame, by: str) -> dict[str, list[str]]:
    grouped = frame.group_by(by).agg(pl.col("listing_id").sort())
    return {str(key): list(members) for key, members in grouped.iter_rows()}


def _new_id(part: list[str], run_id: str, taken: Container[str]) -> str:
    """The same for the same hour and listings, and none that is taken: an hour may run again after a merge."""
    digest = hashlib.sha256(f"{run_id}\0{min(part)}".encode())
    while (new := f"c{digest.hexdigest()[:15]}") in taken:
        digest.update(b"\0")
    return new


def _canonical(listings: pl.DataFrame) -> Mapping[str, tuple[object, ...]]:
    """Sort key of each listing: most complete first, then the longest known, then by id."""
    filled = sum(
        (pl.col(name).is_not_null().cast(pl.Int32) for name in ("image_hash", "gtin", "brand", "description", "price")),
        start=pl.lit(0),
    )
    ranked = listings.select("listing_id", filled=filled, seen="first_seen_run")
    return {row[0]: (-row[1], row[2], row[0]) for row in ranked.iter_rows()}


def _events(before: dict[str, list[str]], after: dict[str, list[str]], run_id: str) -> pl.DataFrame:
    was = {member: cluster for cluster, members in before.items() for member in members}
    now = {member: cluster for cluster, members in after.items() for member in members}
    events = []
    for cluster, members in after.items():
        sources = sorted({was[m] for m in members if m in was})
        joined = sorted(set(members) - set(before.get(cluster, ())))
        left = sorted(set(before.get(cluster, ())) - set(members))
        if len(sources) > 1:
            events.append(("merged", cluster, sources, [cluster], joined, left))
        elif not sources:
            events.append(("formed", cluster, [], [cluster], joined, []))
        elif joined and cluster in before:
            events.append(("grew", cluster, [cluster], [cluster], joined, left))
        elif left and not any(now.get(m) not in (None, cluster) for m in left):
            events.append(("shrank", cluster, [cluster], [cluster], [], left))
    for cluster, members in before.items():
        targets = sorted({now[m] for m in members if m in now})
        if len(targets) > 1:
            events.append(("split", cluster, [cluster], targets, [], []))
        elif not targets:
            events.append(("dissolved", cluster, [cluster], [], [], sorted(members)))
    return pl.DataFrame(
        [(run_id, *event) for event in events],
        schema={
            name: CLUSTER_EVENTS.schema[name]
            for name in ("run_id", "kind", "cluster_id", "before", "after", "joined", "left")
        },
        orient="row",
    ).sort("kind", "cluster_id")
