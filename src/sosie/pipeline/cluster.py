"""Clusters brought in step with the pairs, only where something moved."""

import polars as pl

from sosie import canonical, judgements
from sosie.lineage import KINDS
from sosie.pairs import ends
from sosie.pipeline.ingest import changes
from sosie.pipeline.regroup import amiss, regroup
from sosie.pipeline.run import Run, Tally, step
from sosie.pipeline.veto import settle
from sosie.tables import CLUSTER_EVENTS, CLUSTERS, JUDGEMENTS, REGROUP, SIDES


@step
def cluster(run: Run, tally: Tally) -> None:
    """Regroup every component that a changed listing, a changed pair or a new judgement touches."""
    settle(run.settings)
    judged = judgements.active(run.lake)
    held = run.lake.read(CLUSTERS)
    waiting = run.lake.read(REGROUP)
    unheeded = _unheeded(run, judged, held), canonical.unheeded(run.lake, held)
    seeds = pl.concat([changes(run)["listing_id"], waiting["listing_id"], *unheeded]).unique()
    regroup(run, tally, seeds, judged, held)
    tally.written(run.lake.delete(REGROUP, waiting.select("listing_id"), run_id=run.id))
    now = run.lake.scan(CLUSTERS)
    told = run.lake.read(CLUSTER_EVENTS, pl.col("run_id") == run.id)
    tally(
        clusters=now.select(pl.col("cluster_id").n_unique()).collect().item(),
        duplicates=now.select((pl.col("listing_id") != pl.col("canonical_id")).sum()).collect().item(),
        **(dict.fromkeys(KINDS, 0) | dict(told.group_by("kind").len().iter_rows())),
    )


def _unheeded(run: Run, judged: pl.DataFrame, held: pl.DataFrame) -> pl.Series:
    """Listings of judgements that the clusters don't show yet, and of all that were taken back."""
    withdrawn = run.lake.read(JUDGEMENTS, pl.col("retracted_at").is_not_null(), columns=SIDES)
    return ends(amiss(judged, held), withdrawn)
