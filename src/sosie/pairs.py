"""Pairs of listings: the two of one in order, and the listings of many."""

import polars as pl

from sosie.errors import TerminalError
from sosie.tables import SIDES


def ordered(one: str, other: str) -> tuple[str, str]:
    """The pair as every table holds it. Raises `TerminalError` for a listing with itself."""
    if one == other:
        raise TerminalError(f"A pair needs two listings; {one!r} was given twice.")
    return min(one, other), max(one, other)


def ends(*pairs: pl.DataFrame) -> pl.Series:
    """listing_id: every listing of some pairs, once."""
    return pl.concat([each[side].alias("listing_id") for each in pairs for side in SIDES]).unique()


def of_either(pairs: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Those of some pairs that have one end or both among `ids`."""
    return pairs.filter(pl.any_horizontal(pl.col(SIDES).is_in(ids.unique().implode())))
