"""History that is older than anybody asked to keep."""

from datetime import UTC, datetime, timedelta

import polars as pl

from sosie import hours, spellings
from sosie.lake import Lake
from sosie.pipeline.run import Run, Tally, step
from sosie.tables import CHANGES, DECISIONS, EMBEDDINGS, LISTINGS, MODALITIES, RUNS, Table


@step
def forget_history(run: Run, tally: Tally) -> None:
    """Delete change sets of finished hours after `upkeep.records_days`, and history after `upkeep.history_days`.

    Spellings of titles that nobody has any more go at once: they can be made again.

    History is a vector or decision that a later one of the same listing took the place of that long ago, and all of a
    listing that was deleted that long ago. What is known of a listing now is never old.
    """
    rules, now = run.settings.upkeep, datetime.now(UTC)
    tally(change_sets=_old_changes(run, now - timedelta(days=rules.records_days)))
    tally(vectors=0, decisions=0, listings=0, spellings=spellings.forget(run.lake, run.id))
    if rules.history_days is not None:
        before = now - timedelta(days=rules.history_days)
        # A feed may date a delete long before the hour that hears of it.
        long_ago = pl.col("updated_at") < before, pl.col("last_changed_run") < hours.name(before)
        dead = run.lake.read(LISTINGS, pl.col("is_deleted"), *long_ago, columns=["listing_id"])
        tally(
            vectors=sum(_old_rows(run.lake, EMBEDDINGS[one], before, dead, run.id) for one in MODALITIES),
            decisions=_old_rows(run.lake, DECISIONS, before, dead, run.id),
            listings=run.lake.delete(LISTINGS, dead, run_id=run.id).deleted,
        )
    tally.wrote = sum(tally.counts.values())


def _old_changes(run: Run, before: datetime) -> int:
    done = run.lake.read(RUNS, pl.col("state") == "succeeded", pl.col("finished_at") < before, columns=["run_id"])
    held = run.lake.scan(CHANGES).select("run_id").unique().collect().join(done, on="run_id", how="semi")
    run.lake.delete(CHANGES, held, run_id=run.id)
    return held.height


def _old_rows(lake: Lake, table: Table, before: datetime, dead: pl.DataFrame, run_id: str) -> int:
    """Delete rows that were superseded before a time, in what was known by then, and those of dead listings."""
    by = ["listing_id", *(["embedding_version"] if "embedding_version" in table.columns else [])]
    times = ["event_timestamp", "created_timestamp"]
    rows = lake.scan(table).select(*table.key, *(name for name in (*by, *times) if name not in table.key)).collect()
    # A row that two writers put there at once is no successor of itself.
    each = rows.unique(table.key).sort(*by, *times)
    superseded = each.with_columns(successor=pl.col("created_timestamp").shift(-1).over(by))
    old = superseded.filter(pl.col("successor") < before)
    gone = pl.concat([old.select(table.key), rows.join(dead, on="listing_id", how="semi").select(table.key)]).unique()
    return lake.delete(table, gone, run_id=run_id).deleted
