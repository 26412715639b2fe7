"""# Keep the stores small and in step, every night

Compares lake, index and online store row by row and mends the latter two from the lake; drops what nobody uses any more;
makes the lake's tables small again. Runs at 3:30 UTC (`SOSIE_UPKEEP_SCHEDULE`, a cron expression or `none`). Every task can
be run again. What it did stands in the table `runs`, state `upkeep`.

## Tasks, what stops them, and what to do

| task | does | when it fails |
|---|---|---|
| `begin` | names the run after the newest hour | Clear the task. |
| `check_stores` | counts and compares; embeds vectors that the lake lacks, mends index and online store, deletes orphaned pairs. Hours wait meanwhile (`rebuild.wait_seconds`) | *Steps of an hour left no gap* is retried. Clear the task: what was mended stays. |
| `drop_versions` | collections of embedding versions `upkeep.grace_hours` after their last use; their vectors in the lake after `upkeep.vectors_days`, where that is set | Clear the task. What is live, being built or kept for a rollback is never dropped. |
| `clear_staging` | scratch of hours after `upkeep.staging_hours`, records of their steps after `upkeep.records_days` | Clear the task. |
| `forget_history` | change sets of finished hours after `upkeep.records_days`; superseded vectors and decisions after `upkeep.history_days`, where that is set | Clear the task. |
| `forget_pictures` | pictures older than `upkeep.history_days`, where that is set, that no listing and no vector has | Clear the task. |
| `compact_tables` | removes files that no version of the last `upkeep.retention_hours` needs, and those that a writer left which died, after a day; then merges small ones | A table that hours keep writing is left for the next night and counted. *can't be written* is retried: all tables are vacuumed before any is compacted, which makes room. Clear the task. |
| `record` | leaves the manifest | Clear the task. |

Many rows `mended` night after night mean that something else writes to the index, or that it loses rows: look at its log
under `<home>/milvus/server.log`. A Delta reader that is older than `upkeep.retention_hours` finds its files gone.
"""  # noqa: E501 a table row is one line

from datetime import UTC, datetime

from airflow.sdk import chain, dag, task

from sosie.airflow import bridge, upkeeping


@dag(
    schedule=upkeeping.schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=bridge.TASK_DEFAULTS,
    on_failure_callback=bridge.alert_run_failure,
    doc_md=__doc__,
    tags=["sosie"],
)
def dedup_upkeep() -> None:
    @task
    def begin() -> str:
        """Name this upkeep."""
        return upkeeping.begin()

    @task(pool=bridge.INDEX_POOL)
    def check_stores(run_id: str) -> dict[str, int]:
        """Make index and online store what the lake says."""
        return upkeeping.part("check_stores", run_id)

    @task(pool=bridge.INDEX_POOL)
    def drop_versions(run_id: str) -> dict[str, int]:
        """Drop embedding versions that nobody uses any more."""
        return upkeeping.part("drop_versions", run_id)

    @task
    def clear_staging(run_id: str) -> dict[str, int]:
        """Delete the scratch of hours that are long over."""
        return upkeeping.part("clear_staging", run_id)

    @task
    def forget_history(run_id: str) -> dict[str, int]:
        """Delete history that is older than anybody asked to keep."""
        return upkeeping.part("forget_history", run_id)

    @task
    def forget_pictures(run_id: str) -> dict[str, int]:
        """Delete pictures that nothing in the lake tells of any more."""
        return upkeeping.part("forget_pictures", run_id)

    @task
    def compact_tables(run_id: str) -> dict[str, int]:
        """Compact and vacuum the lake's tables."""
        return upkeeping.part("compact_tables", run_id)

    @task
    def record(run_id: str) -> None:
        """Leave the manifest of this upkeep."""
        upkeeping.finish(run_id)

    run_id = begin()
    chain(
        check_stores(run_id),
        drop_versions(run_id),
        clear_staging(run_id),
        forget_history(run_id),
        forget_pictures(run_id),
        compact_tables(run_id),
        record(run_id),
    )


dedup_upkeep()
