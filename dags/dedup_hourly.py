"""# Find duplicate listings, every hour

Reads the files that landed in one hour and brings the catalogue's duplicates up to date. Models, index
writes and decisions follow what changed in the hour, not how large the catalogue is. A run is named by its **logical hour** (UTC, `2026-11-20T09`), the
last hour of its data interval: the run that starts at ten works on the files of nine to ten.

Every task can be run again and again: with the same hour and the same files it changes nothing the second time.

## Tasks, what stops them, and what to do

| task | does | when it fails |
|---|---|---|
| `validate` | checks files and rows; bad rows go to *quarantine* with the rule they broke | *The batch is refused* (a file is no Parquet or CSV, a column is missing, too many bad rows): no table was changed. Have the files sent again, then clear this task. |
| `detect_changes` | compares content hashes with the lake, writes listings and deletes, plans the shards to embed | A busy table is retried. Clear the task otherwise. |
| `embed` | vectors for changed titles and pictures, one mapped task a shard | Only the failed shard needs clearing; what the others wrote stays. *A model is missing or damaged*: restore it (`git checkout -- models`), then clear. |
| `upsert_vectors` | index writes and deletes, counted afterwards | *Milvus is away* is retried with growing pauses. If it stays away, start it and clear this task: keys are stable, nothing doubles. |
| `match` | candidate pairs, decided with reasons | As above where Milvus is yours, as it asks it; the embedded one is not asked. |
| `cluster` | groups, canonical listings, splits and merges | Clear the task. |
| `publish_features` | decisions and embeddings to the online store | Clear the task. The storefront keeps the answers of the hour before until then. |
| `follow` | the hour's changes under a second embedding version, while one is built (`dedup_rebuild`) or was live until lately | Clear the task. Duplicates are already published; there is no report, no alert of a rule, and the next hour takes these files over, until it succeeds. *A model of that version is missing or damaged*: restore its folder, or give that version up, by `sosie rebuild --abandon` where it is being built and `SOSIE_REBUILD__FOLLOW_HOURS=0` where it was live until lately; then clear. |
| `report` | manifest and page of the run | Clear the task. Duplicates are already published. |
| `alert` | sends what a person must know, each once | An alert that could not be delivered is kept and sent by the next run. |

A **terminal** error (bad input, bad setting) fails a task at once. A **transient** one (a store is away or busy) is retried
three times with growing pauses. Anything unexpected is tried once more. The last line of a failed task's log says what is
wrong, where, and what to do; the same sentence is alerted with a link to the log. A run that isn't finished 50 minutes after
it was queued is alerted too (`SOSIE_DEADLINE_MINUTES`), unless a backfill queued it.

No task after `embed` is skipped when nothing has to be embedded: an hour of deletes and price changes goes all the way.

## Run an hour again
*Clear* the first failed task with its downstream tasks: Runs → the run → the task → Clear. Or trigger the DAG with
`hour` = the hour; it is safe while the hour was done before.

## Run hours that were missed
Run the newest hour: it takes the files of all hours before it that no run took. The next scheduled run does so by itself;
to have it now, trigger the DAG.

A run for each hour is needed only where each is to have a report of its own:
`airflow backfill create --dag-id dedup_hourly --max-active-runs 1 --from-date 2026-11-20T00:00 --to-date 2026-11-20T12:00`.
A backfill counts its runs apart from the DAG's, and without `--max-active-runs 1` starts ten at a time, which wait for each
other. Order doesn't matter for correctness: a row with an older `updated_at` than the catalogue holds is counted as stale and
left.

## Run it from another folder
Trigger with `landing` = a folder that workers can read.
"""  # noqa: E501 a table row is one line

from datetime import UTC, datetime

from airflow.sdk import TriggerRule, chain, dag, task

from sosie.airflow import bridge


@dag(
    schedule=bridge.schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=bridge.PARAMS,
    default_args=bridge.TASK_DEFAULTS,
    deadline=bridge.deadline(),
    on_failure_callback=bridge.alert_run_failure,
    doc_md=__doc__,
    tags=["sosie"],
)
def dedup_hourly() -> None:
    @task
    def validate() -> dict[str, int]:
        """Check the hour's files and rows; quarantine bad rows, refuse a bad batch."""
        return bridge.step("validate")

    @task(outlets=[bridge.LISTINGS])
    def detect_changes() -> list[dict[str, str | int]]:
        """Write what is new, changed or deleted, and plan what must be embedded."""
        bridge.step("detect_changes")
        return bridge.shards()

    # Airflow takes no docstring from a mapped task.
    @task(doc_md="Embed one shard of the changed titles or pictures.")
    def embed(modality: str, shard: int, shards: int) -> dict[str, int]:
        return bridge.step("embed", modality=modality, shard=shard, shards=shards)

    # An hour without anything to embed skips `embed`; deletes must still reach the index.
    @task(pool=bridge.INDEX_POOL, trigger_rule=TriggerRule.NONE_FAILED, outlets=[bridge.EMBEDDINGS])
    def upsert_vectors() -> dict[str, int]:
        """Bring the nearest-neighbour index up to date, and count it."""
        return bridge.step("upsert_vectors")

    @task(pool=bridge.INDEX_POOL, outlets=[bridge.PAIRS])
    def match() -> dict[str, int]:
        """Find candidate pairs of the changed listings and decide them."""
        return bridge.step("match")

    @task(outlets=[bridge.CLUSTERS])
    def cluster() -> dict[str, int]:
        """Regroup listings where an edge appeared or vanished."""
        return bridge.step("cluster")

    @task(outlets=[bridge.DECISIONS])
    def publish_features() -> dict[str, int]:
        """Write decisions and embeddings to the feature store."""
        return bridge.step("publish_features")

    @task(pool=bridge.INDEX_POOL)
    def follow() -> dict[str, int]:
        """Write what changed under a second embedding version too, where there is one."""
        return bridge.step("follow")

    @task
    def report() -> dict[str, int]:
        """Write the manifest and the page of this run."""
        return bridge.step("report")

    @task
    def alert() -> dict[str, int]:
        """Send what a person must know."""
        return bridge.step("alert", run_url=bridge.run_url())

    plan = detect_changes()
    chain(
        validate(),
        plan,
        embed.expand_kwargs(plan),
        upsert_vectors(),
        match(),
        cluster(),
        publish_features(),
        follow(),
        report(),
        alert(),
    )


dedup_hourly()
