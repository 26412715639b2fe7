"""Clusters of duplicates: components of matching pairs, cut where the evidence is thin.

A component that hangs together by a chain of single matches is no cluster: inside each component, average-link
clustering joins two groups only while the mean probability over *all* pairs between them reaches a limit (a pair that
was never a candidate counts 0). So one wrong match can't swallow a neighbour. What a person judged is never overruled:
"same" joins before anything else, and no cluster ever holds both listings of a "different".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

_JUDGED = {"different": 1e9, "same": -1e4}
"""Distances that no average over a component (16 million pairs at most) can hide; where judgements clash, no join."""

_DENSE = 4_000
"""Listings that one distance matrix may hold (64 MB); a larger component is thinned out first."""


_SIDES = ["left_id", "right_id"]


@dataclass(frozen=True)
class Grouping:
    """`groups`: listing_id, group (a dense number). `held`: left_id, right_id, cause of the matches not joined."""

    groups: pl.DataFrame
    held: pl.DataFrame


class _Edges(NamedTuple):
    left: np.ndarray
    right: np.ndarray
    distance: np.ndarray
    match: np.ndarray

    def where(self, mask: np.ndarray) -> "_Edges":
        return _Edges(*(column[mask] for column in self))


def resolve(
    pairs: pl.DataFrame,
    judged: pl.DataFrame,
    *,
    min_mean_link: float,
    max_size: int,
    listings: Iterable[str] = (),
) -> Grouping:
    """Group listings by scored pairs.

    `pairs` has left_id, right_id, score in [0, 1] and verdict; `match` pairs join, others only weigh in. `judged` has
    left_id, right_id and verdict (same, different), each pair once. Every listing of a match, and every one in
    `listings`, comes out in exactly one group of at most `max_size`. The result does not depend on the rows' order.
    """
    same = judged.filter(pl.col("verdict") == "same")
    joining = pl.concat([pairs.filter(pl.col("verdict") == "match").select(_SIDES), same.select(_SIDES)])
    ids = pl.concat([*joining.iter_columns(), pl.Series(list(listings), dtype=pl.String)]).unique().sort()
    numbers = pl.DataFrame({"id": ids}).with_row_index("number")
    ruled = judged.with_columns(
        score=1 - pl.col("verdict").replace_strict(_JUDGED, return_dtype=pl.Float64),
        verdict=pl.when(pl.col("verdict") == "same").then(pl.lit("match")).otherwise(pl.lit("no_match")),
    )
    # What was judged overrules the score of its pair.
    scored = pairs.select(*_SIDES, pl.col("score").cast(pl.Float64), "verdict").join(ruled, on=_SIDES, how="anti")
    every = _numbered(pl.concat([scored, ruled.select(scored.columns)]), numbers)

    component = _components(every, len(ids))
    inside = component[every.left] == component[every.right]
    groups, crowded = np.empty(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
    taken = 0
    for members, own in _split(component, every.where(inside)):
        cut, crowded[members] = _average_link(members, own, 1 - min_mean_link, max_size)
        groups[members] = cut + taken
        taken += int(cut.max()) + 1
    grouped = pl.DataFrame({"listing_id": ids, "group": groups}, schema={"listing_id": pl.String, "group": pl.Int64})
    held = _held(joining.unique(), judged, grouped.with_columns(crowded=crowded))
    return Grouping(grouped, held)


def _numbered(pairs: pl.DataFrame, numbers: pl.DataFrame) -> _Edges:
    """Edges between known listings, in one order whatever the rows' order."""
    known = (
        pairs.sort("left_id", "right_id")
        .join(numbers.rename({"id": "left_id", "number": "left"}), on="left_id", maintain_order="left")
        .join(numbers.rename({"id": "right_id", "number": "right"}), on="right_id", maintain_order="left")
    )
    return _Edges(
        known["left"].to_numpy(),
        known["right"].to_numpy(),
        1 - known["score"].cast(pl.Float64).to_numpy(),
        (known["verdict"] == "match").to_numpy(),
    )


def _components(edges: _Edges, size: int) -> np.ndarray:
    """Component number of each listing; components too large for a matrix lose their weakest matches until they fit."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    limit = np.ones(size)  # matches above this distance don't join; one limit a listing, lowered where parts are large
    while True:
        joins = edges.where(edges.match & (edges.distance <= np.minimum(limit[edges.left], limit[edges.right])))
        graph = coo_matrix((np.ones(len(joins.left)), (joins.left, joins.right)), shape=(size, size))
        component = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
        large = np.flatnonzero(np.bincount(component, minlength=1) > _DENSE)
        if not len(large):
            return component
        within = np.isin(component, large)
        if limit[within].min() < 1e-3:  # nothing but near-certain matches left: cut by order, for a person to look at
            component[within] = component.max() + 1 + np.arange(within.sum()) // _DENSE
            return np.unique(component, return_inverse=True)[1]
        limit[within] *= 0.8


def _split(component: np.ndarray, edges: _Edges) -> Iterable[tuple[np.ndarray, _Edges]]:
    """Each component's members and the edges inside it."""
    members = np.argsort(component, kind="stable")
    bounds = np.searchsorted(component[members], np.arange(component.max() + 2 if len(component) else 1))
    order = np.argsort(component[edges.left], kind="stable")
    edges = edges.where(order)
    edge_bounds = np.searchsorted(component[edges.left], np.arange(len(bounds)))
    for number in range(len(bounds) - 1):
        own = slice(edge_bounds[number], edge_bounds[number + 1])
        yield members[bounds[number] : bounds[number + 1]], _Edges(*(column[own] for column in edges))


def _average_link(members: np.ndarray, edges: _Edges, limit: float, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster number 0.. of each member: average linkage, cut at `limit` and where one would grow too large.

    Also says of each member whether its cluster would have grown on but for its size.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    size = len(members)
    if size == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)
    left, right = np.searchsorted(members, edges.left), np.searchsorted(members, edges.right)
    distance = np.ones((size, size))
    np.fill_diagonal(distance, 0.0)
    distance[left, right] = edges.distance
    distance[right, left] = edges.distance
    tree = linkage(squareform(distance, checks=False), method="average")

    cluster = np.arange(size)  # of each node of the tree, its members' cluster while it is still whole
    crowded = np.zeros(size, dtype=bool)
    parts: list[list[int]] = [[place] for place in range(size)]
    for first, second, height, count in tree:
        a, b = parts[int(first)], parts[int(second)]
        # A mean of exactly the limit joins. Part of a cluster that was refused never joins another.
        joins = bool(a) and bool(b) and count <= max_size
        if height > limit + 1e-9:
            parts.append([])
            continue
        if not joins:
            crowded[a + b] = True
        parts.append(a + b if joins else [])
    for part in filter(None, parts):
        cluster[part] = part[0]
    return np.unique(cluster, return_inverse=True)[1], crowded


def _held(matches: pl.DataFrame, judged: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Matches that ended in two groups, and why: judged different, a group at its limit, or thin evidence."""
    left, right = (groups.select(pl.all().name.prefix(f"{side}_")) for side in ("left", "right"))
    barred = judged.filter(pl.col("verdict") == "different").select(*_SIDES, barred=True)
    return (
        matches.join(left, left_on="left_id", right_on="left_listing_id")
        .join(right, left_on="right_id", right_on="right_listing_id")
        .filter(pl.col("left_group") != pl.col("right_group"))
        .join(barred, on=["left_id", "right_id"], how="left")
        .select(
            "left_id",
            "right_id",
            cause=pl.when("barred")
            .then(pl.lit("judged_different"))
            .when(pl.col("left_crowded") & pl.col("right_crowded"))
            .then(pl.lit("cluster_too_large"))
            .otherwise(pl.lit("weak_link")),
        )
        .sort("left_id", "right_id")
    )
