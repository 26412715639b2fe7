"""# A new embedding version, blue/green

Embeds the whole catalogue under other models into second collections, while hourly runs go on and write both; compares
the two; and, where that was asked for, switches. Triggered by hand with `models` = an id that `sosie models` lists.

| param | |
|---|---|
| `models` | a registered candidate, or `packaged` for what came with the repository |
| `promote` | `never` (default) leaves the switch to a person; `without_concerns` switches where the comparison has none; `always` |

## Tasks, what stops them, and what to do

| task | does | when it fails |
|---|---|---|
| `build` | embeds what has no vector yet, loads the second collections, fills the online store | Clear the task: it goes on where it was, nothing is doubled. *Another build is at work* is retried. |
| `compare` | neighbours, known duplicates, decisions, scores and counts of both versions | Clear the task. It changes nothing. |
| `promote` | switches models and index in one step and decides all pairs again; skipped unless asked for | *Steps of an hour left no gap* is retried. Clear the task: a switch that was broken off is ended. |

The page of `compare` is `reports/rebuild/<models>/index.html`, its numbers are in `comparison.json` beside it.

## While it runs
Hours take a little longer: their task `follow` embeds and writes each change a second time. `sosie rebuild --status` tells
how far the second index is, `sosie rebuild --abandon` has hours stop writing it.

## The switch, and back
During the switch hours wait (`rebuild.wait_seconds`); it takes as long as deciding all pairs again. `sosie rollback` goes
back. For `rebuild.follow_hours` after a switch hours keep writing the version before, so that going back embeds nothing;
afterwards a rollback embeds what changed since. Old collections are dropped by `dedup_upkeep`.

What a crash leaves, at any moment, is the one version or the other as a whole: `live.json` is renamed into place, and
whoever opens the index next moves its aliases after it; the next hour decides the pairs that are left.
"""  # noqa: E501 a table row is one line

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, task

from sosie.airflow import bridge, rebuilding, training


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=rebuilding.PARAMS,
    default_args=bridge.TASK_DEFAULTS,
    on_failure_callback=bridge.alert_run_failure,
    doc_md=__doc__,
    tags=["sosie"],
)
def dedup_rebuild() -> None:
    # No place in the index's pool: hours must go on meanwhile, and who writes the index holds its lock for each write.
    @task(execution_timeout=training.LONG)
    def build(params: dict[str, Any] | None = None) -> dict[str, int]:
        """Embed the catalogue under other models and load it into second collections."""
        return rebuilding.build(params["models"])

    @task
    def compare(params: dict[str, Any] | None = None) -> list[str]:
        """Tell how the two versions differ, and what speaks against the new one."""
        return rebuilding.compare(params["models"])

    @task(execution_timeout=training.LONG)
    def promote(concerns: list[str], params: dict[str, Any] | None = None, run_id: str | None = None) -> dict[str, int]:
        """Serve the new version, where that was asked for."""
        return rebuilding.promote(params["models"], params["promote"], who=run_id, concerns=concerns)

    concerns = compare()
    build() >> concerns
    promote(concerns)


dedup_rebuild()
