"""Clusters found, and one cluster told: members, why each is in, and what became of it."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import polars as pl

from sosie.page.judging import between, fingerprint, members_of
from sosie.page.store import Store
from sosie.report.data import Listing
from sosie.tables import CANONICAL_CHOICES, CLUSTER_EVENTS, CLUSTERS, LISTINGS, PAIRS

PER_PAGE = 12
FACES = 5
LONERS = 12

ORDERS = {"largest": "Largest first", "latest": "Changed last"}


@dataclass(frozen=True)
class Card:
    """A cluster in a list: some of its members, the canonical one first, then those that were searched for."""

    cluster_id: str
    size: int
    changed_run: str | None
    canonical: Listing
    faces: tuple[Listing, ...]


@dataclass(frozen=True)
class Found:
    """A page of clusters, how many there are in all, and the first listings found that are in none."""

    cards: tuple[Card, ...]
    total: int
    loners: tuple[Listing, ...] = ()


@dataclass(frozen=True)
class Member:
    """`held_by` is the strongest pair with another member: its other end, score and reasons. None: none is held."""

    item: Listing
    held_by: dict[str, Any] | None


@dataclass(frozen=True)
class Cluster:
    cluster_id: str
    canonical_id: str
    size: int
    fingerprint: str
    members: tuple[Member, ...]
    history: tuple[dict[str, Any], ...]
    judged: tuple[dict[str, Any], ...]
    waits: int  # pairs of members that were judged different
    wanted: str | None  # a chosen canonical listing that the next run makes so


def search(store: Store, text: str = "", seller: str = "", order: str = "largest", page: int = 1) -> Found:
    """Clusters with a listing of this id, or with all these words in its title, and of this seller. Pages from 1."""
    heads = store.lake.scan(CLUSTERS).filter(pl.col("listing_id") == pl.col("canonical_id"))
    loners: tuple[Listing, ...] = ()
    hits = pl.DataFrame(schema={"listing_id": pl.String})
    if text.strip() or seller.strip():
        hits = _hits(store, text, seller)
        placed = (
            store.lake.scan(CLUSTERS).select("listing_id", "cluster_id").join(hits.lazy(), on="listing_id", how="semi")
        ).collect()
        alone = hits.join(placed, on="listing_id", how="anti").sort("listing_id").head(LONERS)
        loners = tuple(store.listings(alone["listing_id"]).values())
        heads = heads.join(placed.select("cluster_id").unique().lazy(), on="cluster_id", how="semi")
    by = ["changed_run", "size"] if order == "latest" else ["size", "changed_run"]
    all_heads = heads.sort(*by, "cluster_id", descending=[True, True, False], nulls_last=True).collect()
    shown = all_heads.slice((page - 1) * PER_PAGE, PER_PAGE)
    return Found(_cards(store, shown, hits["listing_id"]), all_heads.height, loners)


def _hits(store: Store, text: str, seller: str) -> pl.DataFrame:
    """listing_id of the live listings that are meant."""
    wanted = [~pl.col("is_deleted")]
    if text.strip():
        title = pl.col("title").str.to_lowercase()
        words = [title.str.contains(word, literal=True) for word in text.lower().split()[:12]]
        wanted.append((pl.col("listing_id") == text.strip()) | pl.all_horizontal(words))
    if seller.strip():
        wanted.append(pl.col("seller_id").str.to_lowercase() == seller.strip().lower())
    return store.lake.read(LISTINGS, *wanted, columns=["listing_id"])


def _cards(store: Store, heads: pl.DataFrame, hits: pl.Series) -> tuple[Card, ...]:
    members = (
        store.lake.scan(CLUSTERS)
        .filter(pl.col("cluster_id").is_in(heads["cluster_id"].implode()))
        .select("cluster_id", "listing_id")
        .sort("cluster_id", ~pl.col("listing_id").is_in(hits.implode()), "listing_id")
        .collect()
    )
    faces: dict[str, list[str]] = defaultdict(list)
    for cluster_id, listing_id in members.iter_rows():
        if len(faces[cluster_id]) < FACES:
            faces[cluster_id].append(listing_id)
    items = store.listings({*heads["canonical_id"], *(one for own in faces.values() for one in own)})
    cards = []
    for row in heads.iter_rows(named=True):
        head = row["canonical_id"]
        others = [one for one in faces[row["cluster_id"]] if one != head]
        cards.append(
            Card(
                row["cluster_id"],
                row["size"],
                row["changed_run"],
                items[head],
                tuple(items[one] for one in [head, *others][:FACES]),
            )
        )
    return tuple(cards)


def cluster(store: Store, cluster_id: str) -> Cluster:
    """One cluster in full: `clusters.max_size` bounds it. Raises `Refused` where there is none."""
    rows = members_of(store, cluster_id)
    ids, head = rows["listing_id"].to_list(), rows["canonical_id"][0]
    shown = [head, *(one for one in ids if one != head)]
    items = store.listings(shown)
    held = _strongest(store, ids)
    inside = pl.col("left_id").is_in(ids) | pl.col("right_id").is_in(ids)
    judged = store.standing().filter(inside).sort("when", descending=True)
    waits = between(store, ids).filter(verdict="different").height
    choices = store.lake.read(CANONICAL_CHOICES, pl.col("listing_id").is_in(ids)).sort("when")
    wanted = choices["listing_id"][-1] if choices.height else None
    return Cluster(
        cluster_id,
        head,
        rows.height,
        fingerprint(store, ids),
        tuple(Member(items[one], held.get(one)) for one in shown),
        tuple(_history(store, cluster_id)),
        tuple(judged.head(50).iter_rows(named=True)),
        waits,
        wanted if wanted != head else None,
    )


def _strongest(store: Store, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Of each member, its best pair with another one."""
    pairs = store.lake.read(
        PAIRS, pl.col("left_id").is_in(ids) & pl.col("right_id").is_in(ids), pl.col("verdict") != "no_match"
    ).sort("score")
    best: dict[str, dict[str, Any]] = {}
    for row in pairs.iter_rows(named=True):  # the last one written is the strongest
        best[row["left_id"]] = {**row, "other": row["right_id"]}
        best[row["right_id"]] = {**row, "other": row["left_id"]}
    return best


def _history(store: Store, cluster_id: str) -> list[dict[str, Any]]:
    """What happened to the cluster, newest first."""
    touched = (
        (pl.col("cluster_id") == cluster_id)
        | pl.col("before").list.contains(cluster_id)
        | pl.col("after").list.contains(cluster_id)
    )
    return store.lake.read(CLUSTER_EVENTS, touched).sort("run_id", "kind", descending=[True, False]).head(40).to_dicts()
