"""How titles are spelt, kept in the lake: taking a title apart costs far more than reading what came of it.

A row depends on one title and on this code alone, so an hour spells only titles that were never there before.
"""

import hashlib
from functools import cache

import polars as pl

from sosie import lexical
from sosie.lake import Lake
from sosie.tables import LISTINGS, SPELLINGS

_PROBE = "Caf\u00e9 au lait T-shirt 2x500 ml, 1,000 pcs MQ8N2B/A (Men's) XL \u20141,5\u00a0kg"


@cache
def manner() -> str:
    """Says how titles are spelt here: it is another one where they are parsed or hashed otherwise."""
    return hashlib.sha256(str(lexical.spell(pl.Series([_PROBE])).to_list()).encode()).hexdigest()[:12]


def kept(lake: Lake, catalogue: pl.DataFrame, run_id: str) -> pl.Series:
    """`lexical.spell` of each listing's title, those that are new written to the lake.

    `catalogue` has title and text_hash, which says the same of a title as its spelling needs to know.
    """
    held = lake.read(SPELLINGS, pl.col("manner") == manner(), columns=["text_hash", "spelling"])
    known = catalogue.select("text_hash").join(held, on="text_hash", how="left", maintain_order="left")
    missing = (
        catalogue.filter(known["spelling"].is_null())
        .drop_nulls("text_hash")
        .unique("text_hash", keep="first", maintain_order=True)
    )
    if missing.is_empty():
        return known["spelling"]
    new = missing.select("text_hash", spelling=lexical.spell(missing["title"]), manner=pl.lit(manner()))
    lake.upsert(SPELLINGS, new, run_id=run_id)
    found = pl.concat([held, new.drop("manner")])
    return catalogue.select("text_hash").join(found, on="text_hash", how="left", maintain_order="left")["spelling"]


def forget(lake: Lake, run_id: str) -> int:
    """Delete the spellings of titles that no live listing has; returns how many there were."""
    live = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=["text_hash"])
    held = lake.read(SPELLINGS, columns=["text_hash"])
    return lake.delete(SPELLINGS, held.join(live, on="text_hash", how="anti"), run_id=run_id).deleted
