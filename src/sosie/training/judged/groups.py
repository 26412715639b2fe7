"""Judgements that can be believed together, and which of them must stay on one side of a split."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from sosie.training.judged.data import Part

_SIDES = ["left_id", "right_id"]


def consistent(judged: pl.DataFrame) -> pl.DataFrame:
    """Without those that contradict each other: where a chain of *same* holds two listings that are *different*.

    Nobody can tell which of them is wrong, so all that was said among the listings of such a chain is left out.
    `judged` has left_id, right_id, label (True is the same).
    """
    product = components(judged.filter("label").select(_SIDES))
    sides = judged.select(*_SIDES, "label")
    for side in ("left", "right"):
        own = product.rename({"listing_id": f"{side}_id", "group": side})
        sides = sides.join(own, on=f"{side}_id", how="left", maintain_order="left")
    inside = sides["left"].eq(sides["right"]).fill_null(False)
    broken = sides.filter(inside & ~sides["label"])["left"].unique()
    return judged.filter(~(inside & sides["left"].is_in(broken.implode())))


def grouped(judged: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """`judged` with `group`: equal for judgements that a chain of judgements or clusters connects, so that no product
    is in two groups. `clusters` has listing_id, cluster_id. A group goes by its smallest listing id."""
    members = clusters.select(left_id="listing_id", right_id=pl.lit("cluster ") + pl.col("cluster_id"))
    group = components(pl.concat([judged.select(_SIDES), members]))
    named = group.join(judged.select(listing_id="left_id"), on="listing_id", how="semi")
    named = named.group_by("group").agg(name=pl.col("listing_id").min())
    own = group.join(named, on="group").select(left_id="listing_id", group="name")
    return judged.join(own, on="left_id", how="left", maintain_order="left")


def part_of(groups: Iterable[str], share: float) -> dict[str, Part]:
    """Who gets each group, by the digest of its name: about `share` of the groups are held back from training."""
    import hashlib

    def place(group: str) -> float:
        return int.from_bytes(hashlib.sha256(f"judged {group}".encode()).digest()[:4], "big") / 2**32

    return {group: "held" if place(group) < share else "learn" for group in groups}


def parted(judged: pl.DataFrame, share: float) -> dict[Part, pl.DataFrame]:
    """The judgements (with `group`) to learn from and those held back.

    A group that holds more than `share` of all judgements is learnt from: held back, it would be most of what
    everything else is measured on.
    """
    sizes = judged.group_by("group").len()
    large = sizes.filter(pl.col("len") > max(share * judged.height, 1))["group"]
    part = part_of(sizes["group"], share) | dict.fromkeys(large, "learn")
    of = judged["group"].replace_strict(part, return_dtype=pl.String) if part else judged["group"]
    return {name: judged.filter(of == name) for name in ("learn", "held")}


def components(edges: pl.DataFrame) -> pl.DataFrame:
    """listing_id, group (a number) of everything that `edges` (left_id, right_id) connects."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids = pl.concat([edges["left_id"], edges["right_id"].alias("left_id")]).unique().sort()
    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    left, right = (
        edges.select(id=side).join(rows, on="id", how="left", maintain_order="left")["row"].to_numpy()
        for side in _SIDES
    )
    if not len(ids):
        return pl.DataFrame(schema={"listing_id": pl.String, "group": pl.Int64})
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(ids), len(ids)))
    number = connected_components(graph, directed=False)[1].astype(np.int64)
    return pl.DataFrame({"listing_id": ids, "group": number})
