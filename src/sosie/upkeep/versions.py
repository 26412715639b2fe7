"""Embedding versions that nobody uses any more."""

from datetime import UTC, datetime, timedelta

import polars as pl

from sosie import registry
from sosie.index import open_index
from sosie.lake import Lake
from sosie.pipeline.embed import version
from sosie.pipeline.run import Run, Tally, log, step
from sosie.settings import Settings
from sosie.tables import EMBEDDINGS, MODALITIES, RUNS, Modality

_NEVER = datetime.min.replace(tzinfo=UTC)


@step
def drop_versions(run: Run, tally: Tally) -> None:
    """Drop collections `upkeep.grace_hours` after their last use, and vectors in the lake `…vectors_days` after.

    What is live, being built, or kept in step for a rollback is in use.
    """
    from sosie.rebuild import second

    settings, now = run.settings, datetime.now(UTC)
    rules = settings.upkeep
    beside = second(settings)
    tally(collections=0, collections_dropped=0, partitions_dropped=0)
    counts = tally.counts
    with open_index(settings) as index:
        for modality in MODALITIES:
            needed = {version(settings, modality), *([beside.versions[modality]] if beside else [])}
            held = index.versions(modality)
            counts["collections"] += len(held)
            stored = (
                run.lake.scan(EMBEDDINGS[modality]).select(pl.col("embedding_version").unique()).collect().to_series()
            )
            for stamp in sorted({*held, *stored} - needed):
                idle = now - last_use(settings, run.lake, modality, stamp)
                if stamp in held and idle > timedelta(hours=rules.grace_hours) and index.version(modality) != stamp:
                    index.drop(modality, stamp)
                    counts["collections_dropped"] += 1
                    log.info("collection dropped", modality=modality, version=stamp)
                if rules.vectors_days is not None and stamp in stored and idle > timedelta(days=rules.vectors_days):
                    gone = pl.DataFrame({"embedding_version": [stamp]})
                    run.lake.delete(EMBEDDINGS[modality], gone, run_id=run.id)
                    counts["partitions_dropped"] += 1
    tally.wrote = counts["collections_dropped"] + counts["partitions_dropped"]


def last_use(settings: Settings, lake: Lake, modality: Modality, stamp: str) -> datetime:
    """When a run last worked by this version, it stopped being live, or a vector of it was written."""
    ran = lake.scan(RUNS).filter(pl.col(f"{modality}_version") == stamp, pl.col("state") != "upkeep")
    wrote = lake.scan(EMBEDDINGS[modality]).filter(pl.col("embedding_version") == stamp)
    times = [
        ran.select(pl.col("finished_at").max()).collect().item(),
        wrote.select(pl.col("created_timestamp").max()).collect().item(),
        registry.retired_at(settings, modality, stamp),
    ]
    return max((at for at in times if at is not None), default=_NEVER)
