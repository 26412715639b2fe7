"""What the incremental law speaks of, read from the stores of two homes and compared row by row."""

from typing import Any

import numpy as np
import polars as pl

from sosie import tables
from sosie.index import open_index
from sosie.lake import Lake
from sosie.neighbour_lists import NeighbourLists
from sosie.pipeline.retrieval import limits
from sosie.settings import Settings

_PAIR = ["left_id", "right_id"]
TOLERANCE = 1e-4
"""Of scores: two processes' last bits differ."""


def differences(hourly: Settings, full: Settings) -> dict[str, int]:
    """Rows of each store that only one of the two homes has, or has otherwise; ids of clusters and of runs aside."""
    one, other = Lake(hourly.lake_uri), Lake(full.lake_uri)
    told = {
        "listings": _rows(*(_listings(lake) for lake in (one, other))),
        "neighbour_lists": _rows(*(_lists(home) for home in (hourly, full))),
        "pairs": _pairs(one, other),
        "clusters": _rows(*(_clusters(lake) for lake in (one, other))),
        "canonical": _rows(*(lake.read(tables.CLUSTERS, columns=["listing_id", "size"]) for lake in (one, other))),
    }
    for modality in ("text", "image"):
        with open_index(hourly) as left, open_index(full) as right:
            told[f"index_{modality}"] = len(set(left.ids(modality)) ^ set(right.ids(modality)))
    return told


def _rows(one: pl.DataFrame, other: pl.DataFrame) -> int:
    """Keys (first columns, see callers) whose row is not the same in both."""
    names = one.columns
    only = pl.concat([a.join(b, on=names, how="anti", nulls_equal=True) for a, b in ((one, other), (other, one))])
    return only.select(names[0]).n_unique()


def _listings(lake: Lake) -> pl.DataFrame:
    return lake.read(tables.LISTINGS, ~pl.col("is_deleted")).drop("first_seen_run", "last_changed_run")


def _lists(home: Settings) -> pl.DataFrame:
    held, every = NeighbourLists.read(Lake(home.lake_uri)).where(), limits(home.blocking)
    parts = [
        held.filter(pl.col("source") == source).with_columns(
            pl.col("others").list.head(every[source][0] if source in every else 0)
        )
        for source in held["source"].unique()
    ]
    named = pl.concat_str("number", "source", separator=" ").alias("list")
    near = pl.col("others").cast(pl.List(pl.String)).list.join(" ")
    return pl.concat([held.clear(), *parts]).select(named, "content_hash", near=near)


def _clusters(lake: Lake) -> pl.DataFrame:
    held = lake.read(tables.CLUSTERS)
    return held.group_by("cluster_id").agg(members=pl.col("listing_id").sort()).select(pl.col("members").list.join(" "))


def _pairs(one: Lake, other: Lake) -> int:
    columns = [*_PAIR, "score", "first_score", "verdict", "blocked_by", "reasons"]
    named = pl.col("reasons").list.eval(pl.element().struct.field("feature")).list.sort().list.join(" ")
    left, right = (
        lake.read(tables.PAIRS, columns=columns).with_columns(pl.col("blocked_by").list.join(" "), reasons=named)
        for lake in (one, other)
    )
    both = left.join(right, on=_PAIR, how="inner", suffix="_full")
    same = pl.all_horizontal(
        pl.col("verdict") == pl.col("verdict_full"),
        pl.col("blocked_by") == pl.col("blocked_by_full"),
        pl.col("reasons").eq_missing(pl.col("reasons_full")),
        *((pl.col(name) - pl.col(f"{name}_full")).abs() <= TOLERANCE for name in ("score", "first_score")),
    )
    return left.height + right.height - both.height - both.filter(same).height


def quality(lake: Lake, sells: dict[str, int]) -> dict[str, Any]:
    """Clusters of the live catalogue against the products that listings sell: pairwise, and what was merged too far."""
    live = lake.read(tables.LISTINGS, ~pl.col("is_deleted"), columns=["listing_id"])
    product = pl.DataFrame({"listing_id": list(sells), "product": list(sells.values())})
    held = lake.read(tables.CLUSTERS, columns=["listing_id", "cluster_id", "size"]).join(product, on="listing_id")
    truth = live.join(product, on="listing_id")

    def pairs(frame: pl.DataFrame, *by: str) -> int:
        sizes = frame.group_by(by).len()["len"].to_numpy().astype(np.int64)
        return int((sizes * (sizes - 1) // 2).sum())

    right, found, wanted = pairs(held, "cluster_id", "product"), pairs(held, "cluster_id"), pairs(truth, "product")
    mixed = held.group_by("cluster_id").agg(products=pl.col("product").n_unique())
    return {
        "live": live.height,
        "clusters": held["cluster_id"].n_unique(),
        "largest_cluster": held["size"].max() or 0,
        "largest_product": truth.group_by("product").len()["len"].max(),
        "clusters_of_several_products": mixed.filter(pl.col("products") > 1).height,
        "most_products_in_a_cluster": mixed["products"].max() or 0,
        "pair_precision": round(right / max(found, 1), 4),
        "pair_recall": round(right / max(wanted, 1), 4),
    }
