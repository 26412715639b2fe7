"""Titles taken apart, kept in the lake: to parse one costs far more than to read what came of it.

A row depends on one title and on this code alone, so an hour parses only titles that were never there before.
"""

import hashlib
from collections.abc import Sequence
from functools import cache

import polars as pl

from sosie.decider.parsed import parsed
from sosie.lake import Lake
from sosie.tables import LISTINGS, PARSED, SPELLINGS

_PROBE = "Caf\u00e9 au lait T-shirt 2x500 ml, 1,000 pcs MQ8N2B/A (Men's) XL \u20141,5\u00a0kg"


@cache
def manner() -> str:
    """Says how titles are taken apart here: it is another one where they are parsed or hashed otherwise."""
    return hashlib.sha256(str(parsed(pl.Series([_PROBE])).to_dicts()).encode()).hexdigest()[:12]


def kept(lake: Lake, listings: pl.DataFrame, run_id: str, *, columns: Sequence[str] = tuple(PARSED)) -> pl.DataFrame:
    """`columns` of `tables.PARSED` for each listing's title, in order; those that are new are written to the lake.

    `listings` has title and text_hash, which says the same of a title as parsing needs to know; nulls where it is null.
    """
    wanted = ["text_hash", *columns]
    asked = pl.col("text_hash").is_in(listings["text_hash"].drop_nulls().unique().implode())
    found = lake.mapped(SPELLINGS, asked, columns=[*wanted, "manner"]).filter(asked)
    held = found.filter(pl.col("manner") == manner()).select(wanted)
    missing = (
        listings.drop_nulls("text_hash")
        .join(held, on="text_hash", how="anti")
        .unique("text_hash", keep="first", maintain_order=True)
    )
    if not missing.is_empty():
        new = missing.select("text_hash", manner=pl.lit(manner())).hstack(parsed(missing["title"]))
        # To replace rows is to write their files again, which nobody has to where all are new.
        (lake.append if held.height == found.height else lake.upsert)(SPELLINGS, new, run_id=run_id)
        held = pl.concat([held, new.select(wanted)])
    return listings.select("text_hash").join(held, on="text_hash", how="left", maintain_order="left").select(columns)


def forget(lake: Lake, run_id: str) -> int:
    """Delete the spellings of titles that no live listing has; returns how many there were."""
    live = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=["text_hash"])
    held = lake.read(SPELLINGS, columns=["text_hash"])
    return lake.delete(SPELLINGS, held.join(live, on="text_hash", how="anti"), run_id=run_id).deleted
