"""A "different" takes effect at once: its cluster is regrouped between two steps of an hour, as the hour would.

It is recorded first (`sosie.judgements`). What dies half-way then is settled before the next hour changes anything:
under the same id, so with the same events and cluster ids. What met a run at work is settled where that run, or the
next one, clusters.
"""

from collections.abc import Iterable
from typing import Literal

import polars as pl

from sosie import fence, judgements
from sosie.errors import StoreBusy
from sosie.lake import Lake
from sosie.pairs import ends
from sosie.pipeline.aside import aside
from sosie.pipeline.regroup import amiss, regroup
from sosie.pipeline.run import Run, Tally, log, run_alone
from sosie.runs import last_end
from sosie.settings import Settings
from sosie.tables import CLUSTERS, JUDGEMENTS, SIDES

PATIENCE = 2.0
"""Seconds that a veto waits for a run at work."""

Effect = Literal["apart", "split", "waits"]
"""No cluster held both; it did and is split now; the next run splits it."""


def part(settings: Settings, pairs: Iterable[tuple[str, str]]) -> Effect:
    """Split the clusters that hold both listings of one of `pairs`, which were judged different just now."""
    if together(Lake(settings.lake_uri), pairs).is_empty():
        return "apart"
    return "split" if heed(settings) else "waits"


def together(lake: Lake, pairs: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Those of `pairs` whose listings are in one cluster."""
    return _together(lake, pl.DataFrame(list(pairs), schema=dict.fromkeys(SIDES, pl.String), orient="row"))


def _together(lake: Lake, pairs: pl.DataFrame) -> pl.DataFrame:
    held = lake.lookup(CLUSTERS, "listing_id", ends(pairs))
    return amiss(pairs.select(*SIDES, verdict=pl.lit("different")), held).select(SIDES)


def heed(settings: Settings) -> bool:
    """`settle` now, or say that a run or a switch of models is at work, after which the next run does."""
    patience = {"run_lock_seconds": PATIENCE, "rebuild": settings.rebuild.model_copy(update={"wait_seconds": PATIENCE})}
    hurried = settings.model_copy(update=patience)
    try:
        with run_alone(hurried), fence.sharing(hurried):
            settle(settings)
    except StoreBusy as busy:
        log.warning("a veto waits for the next run", why=str(busy))
        return False
    return True


def settle(settings: Settings) -> None:
    """Split every cluster that holds both listings of a *different*; undo that for what was taken back since."""
    lake = Lake(settings.lake_uri)
    judged, every = judgements.active(lake), lake.read(JUDGEMENTS)
    vetoed = every.join(_together(lake, judged.filter(pl.col("verdict") == "different")), on=SIDES, how="semi")
    withdrawn = every.filter(pl.col("verdict") == "different", pl.col("retracted_at") > pl.lit(last_end(lake)))
    unheeded = pl.concat([vetoed, withdrawn])
    if unheeded.is_empty():
        return
    # Named after what is settled, so that what died goes by the same name however much else was said meanwhile.
    newest = unheeded.select(pl.max_horizontal(pl.col("when", "retracted_at").max())).item()
    regroup(Run(aside(lake, "veto", newest), settings), Tally(), ends(unheeded), judged, lake.read(CLUSTERS))
