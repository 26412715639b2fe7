"""# Train the models again, by hand

Brings a training profile up to date with `dvc repro`, measures the new models beside the live ones on listings that
neither saw, and, where that was asked for, lets them take over. It never runs by itself unless `SOSIE_TRAIN_SCHEDULE`
holds a cron expression, and never inside the hourly run: it takes hours of every core and DVC's lock on the repository.

**Trigger it with its defaults first**: a *dry run* tells which stages changed (they and all after them would run), and
changes nothing.

| param | |
|---|---|
| `profile` | `full` needs the public datasets under `data/`; `small` needs nothing and takes minutes, to see that all works |
| `judgements` | `pinned` (default; with a schedule `newest`) learns from what `judgements.yaml` pins, at first nothing; `newest` exports what people said until now and pins that |
| `promote` | `never` (default) leaves it to a person; `if_gate_passes` lets new models take over that pass the gate |
| `dry_run` | on by default; off by default where the DAG has a schedule |

## Tasks, what stops them, and what to do

| task | does | when it fails |
|---|---|---|
| `judgements` | exports the judgements of the lake where the newest are asked for; a dry run exports nothing | Clear the task. *judgements.yaml names no export*: run `sosie judgements export` in the repository. |
| `reproduce` | `dvc repro evaluate@<profile>`: the stages whose code, knobs or data changed, and all after them | *A stage failed*: the log above the last line says which and why. Mend it and clear this task: what is done is not run again, what was interrupted goes on from its checkpoint. *Another DVC is at work* is retried. |
| `register` | copies the models to the registry, with figures beside those of the live models on the same test data | Clear the task. |
| `gate` | no test dataset worse by more than a standard error of F1 (`gate.errors`), and one at least better; what was learnt from people made none worse | It does not fail: a gate that isn't passed only skips `promote`. `sosie models` shows the figures. |
| `promote` | builds a second index where the vectors differ, switches to the new models in one step, and decides all pairs again | *Steps of an hour left no gap* is retried; what was embedded is kept. Clear the task: it goes on where it was. |

A dry run skips all but itself; `promote` is skipped unless it was asked for and the gate passed.

## By hand
`make train PROFILE=full` does what `reproduce` does. `sosie models` lists what is registered, `sosie promote ID` and
`sosie rollback` switch; `dedup_rebuild` does it in steps, with a comparison to look at before the switch. Hours wait while
models are switched and all pairs are decided again. A task that was started before goes on by the new models when it is
retried.

## Where it runs
On a worker with a checkout of the repository (`SOSIE_REPOSITORY`, by default the one that Sosie was installed from) and
`pip install sosie[train]`. Trained models are shared by `dvc push` to a remote: `dvc remote add -d store s3://bucket/sosie`.
"""  # noqa: E501 a table row is one line

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, task

from sosie.airflow import bridge, training


@dag(
    schedule=training.schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=training.PARAMS,
    default_args=bridge.TASK_DEFAULTS,
    on_failure_callback=bridge.alert_run_failure,
    doc_md=__doc__,
    tags=["sosie"],
)
def dedup_train() -> None:
    @task
    def judgements(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Pin what the decider learns from people."""
        return training.judgements(params["judgements"], dry_run=params["dry_run"])

    @task(execution_timeout=training.LONG)
    def reproduce(params: dict[str, Any] | None = None) -> None:
        """Run the training stages that are not up to date."""
        training.reproduce(params["profile"], dry_run=params["dry_run"])

    @task
    def register(params: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """Put the trained models into the registry, measured beside the live ones."""
        return training.register(params["profile"], who=run_id)

    @task
    def gate(candidate: str) -> bool:
        """Tell whether the new models may take the place of the live ones."""
        return training.gate(candidate)

    # No place in the index's pool: hours must go on while the second index is built; the switch itself keeps them out.
    @task(execution_timeout=training.LONG)
    def promote(
        candidate: str, passed: bool, params: dict[str, Any] | None = None, run_id: str | None = None
    ) -> dict[str, int]:
        """Serve the new models, where that was asked for and the gate passed."""
        return training.promote(candidate, params["promote"], who=run_id, passed=passed)

    candidate = register()
    judgements() >> reproduce() >> candidate
    promote(candidate, gate(candidate))


dedup_train()
