"""All that a DAG file takes from Sosie: Airflow's SDK and the standard library here, a step where a task runs it.

A DAG file is parsed again and again by a process that does nothing else, so whatever it imports is paid for each time.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.sdk import (  # type: ignore[attr-defined]  # its stub leaves out what came with 3.1
    Asset,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    RetryDecision,
    RetryPolicy,
    SyncCallback,
    get_current_context,
)
from airflow.sdk.configuration import conf

from sosie import hours
from sosie.airflow import INDEX_POOL as INDEX_POOL
from sosie.airflow import environment
from sosie.errors import SosieError, TerminalError, TransientError, store_fault

log = logging.getLogger(__name__)

LISTINGS = Asset("sosie_listings", uri="sosie://listings")
EMBEDDINGS = Asset("sosie_embeddings", uri="sosie://embeddings")
PAIRS = Asset("sosie_pairs", uri="sosie://pairs")
CLUSTERS = Asset("sosie_clusters", uri="sosie://clusters")
DECISIONS = Asset("sosie_decisions", uri="sosie://decisions")

PARAMS = {
    "hour": Param(
        None,
        type=["null", "string"],
        pattern=r"^\d{4}-\d{2}-\d{2}T([01]\d|2[0-3])$",
        title="Hour",
        description="The logical hour to process (UTC), such as 2026-11-20T09. Empty: the run's own data interval.",
    ),
    "landing": Param(
        None,
        type=["null", "string"],
        title="Landing folder",
        description="Folder with the hour's files, as the worker sees it. Empty: the `landing` setting.",
    ),
}


# --- when and how often ---------------------------------------------------------------------------------------------


def schedule() -> CronDataIntervalTimetable | None:
    """`SOSIE_SCHEDULE`: a cron expression or preset (default `@hourly`), or `none` for runs triggered by hand only.

    A data-interval timetable: the run that starts at ten o'clock works on the files of nine to ten, which are complete.
    """
    cron = environment.cron("SOSIE_SCHEDULE", "@hourly")
    return None if cron is None else CronDataIntervalTimetable(cron, timezone="UTC")


_RUN_CALLBACKS = ("LocalExecutor", "CeleryExecutor")


def deadline(minutes: float | None = None) -> DeadlineAlert | None:
    """Alerts once when a run isn't finished `minutes` (`SOSIE_DEADLINE_MINUTES`, default 50) after it was queued.

    The scheduler notices and the default executor runs the callback, so this needs no triggerer. None where that
    executor runs no callbacks, as on Kubernetes: the scheduler would die of the first late run, each time it starts.
    """
    default = str(conf.get("core", "executor")).split(",")[0].strip()
    if not default.endswith(_RUN_CALLBACKS):
        return None
    minutes = environment.number("SOSIE_DEADLINE_MINUTES", 50) if minutes is None else minutes
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=SyncCallback(alert_missed_deadline, kwargs={"minutes": minutes}),
        name="hourly deadline",
    )


# --- retries --------------------------------------------------------------------------------------------------------

RETRIES = 3


class RetryTransient(RetryPolicy):  # type: ignore[misc]
    """Terminal errors fail at once, transient ones use the retries and backoff, unexpected ones get one more try."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        exception = store_fault(exception) or exception
        if isinstance(exception, TerminalError):
            return RetryDecision.fail(reason=_sentence(exception))
        if isinstance(exception, TransientError):
            return RetryDecision(reason=_sentence(exception))
        # Clearing a task raises max_tries, so tries are counted since the task was last cleared.
        tries = try_number - (max_tries - RETRIES)
        reason = f"Unexpected {_sentence(exception)}"
        return RetryDecision.retry(reason=reason) if tries <= 1 else RetryDecision.fail(reason=reason)

    def serialize(self) -> dict[str, Any]:
        return {"__type": f"{type(self).__module__}.{type(self).__qualname__}"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "RetryTransient":
        return cls()


def _sentence(exception: BaseException | str) -> str:
    text = " ".join(str(exception).split())
    if isinstance(exception, str):
        return text
    if text and isinstance(exception, SosieError):
        return text
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__


# --- what a task does -----------------------------------------------------------------------------------------------


def step(name: str, **arguments: Any) -> dict[str, int]:
    """Run one step of `sosie.pipeline` for this task's hour and return its counts, which also go to the task's log."""
    from sosie import pipeline
    from sosie.airflow import datasets

    run = _run()
    with datasets.told(run, name):
        counts = {str(key): int(value) for key, value in getattr(pipeline, name)(run, **arguments).items()}
    log.info("%s of %s: %s", name, run.id, ", ".join(f"{key} {value}" for key, value in counts.items()) or "nothing")
    return counts


def shards() -> list[dict[str, str | int]]:
    """What is left to embed in this task's hour, as arguments for one `embed` task each."""
    from sosie import pipeline

    return [
        {"modality": str(part["modality"]), "shard": int(part["shard"]), "shards": int(part["shards"])}
        for part in pipeline.shards(_run())
    ]


def _run() -> Any:
    from sosie import pipeline

    context = get_current_context()
    landing = context["params"].get("landing")
    return pipeline.Run.of(run_id(context), landing=Path(landing) if landing else None)


def run_id(context: Mapping[str, Any]) -> str:
    """The logical hour that a DAG run works on.

    `hour` where it was given, else the last hour of the data interval, as a run takes the files of hours before it too;
    else (triggered without a date) the last full hour before the run was asked for. None of them changes when the run
    is repeated.
    """
    dag_run = context.get("dag_run")
    conf = _field(dag_run, "conf") or {}
    hour = conf.get("hour") or (context.get("params") or {}).get("hour")
    if hour:
        return str(hour)
    start = _time(_field(dag_run, "data_interval_start") or _field(dag_run, "logical_date"))
    if start is None:
        asked = _time(_field(dag_run, "run_after"))
        if asked is None:
            return "unknown"
        start = asked - timedelta(hours=1)
    end = _time(_field(dag_run, "data_interval_end"))
    last = start if end is None else max(start, end - timedelta(hours=1))
    return hours.name(last)


def _field(dag_run: Any, name: str) -> Any:
    return dag_run.get(name) if isinstance(dag_run, Mapping) else getattr(dag_run, name, None)


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


# --- when something goes wrong --------------------------------------------------------------------------------------


def alert_task_failure(context: Mapping[str, Any]) -> None:
    """A task failed for good. Called in the task's own process, or by the DAG processor where that one was killed."""
    ti, exception = context["ti"], context.get("exception")
    message = _sentence(exception) if exception else _KILLED
    try:
        kind = type(exception).__name__ if isinstance(exception, BaseException) else ""
        _alert(context, dag_id=ti.dag_id, task_id=_task_name(ti), message=message, log_url=ti.log_url, kind=kind)
    finally:
        log.error("%s", message)  # the log's last line is what a person came for


def alert_run_failure(context: Mapping[str, Any]) -> None:
    """The run failed. Called by the DAG processor, with the task that failed last, if any.

    A task that could raise has alerted by itself, by whichever rule, and isn't told of again. One that was killed may
    not have.
    """
    ti, reason = context.get("ti"), str(context.get("reason") or "no reason given")
    if ti is not None and reason == "task_failure":
        _alert(
            context,
            dag_id=ti.dag_id,
            task_id=_task_name(ti),
            message=_KILLED,
            log_url=ti.log_url,
            unless_told=True,
        )
        return
    dag_id = ti.dag_id if ti is not None else context["dag"].dag_id
    log_url = ti.log_url if ti is not None else ""
    _alert(context, dag_id=dag_id, task_id="", message=f"The run failed: {reason}.", log_url=log_url)


def alert_missed_deadline(context: Mapping[str, Any], minutes: float) -> None:
    """A run is not finished by its deadline. Called by the executor; `context` holds the run as plain values.

    Those of a backfill are queued together and wait for each other, so nobody is told that one of them is late.
    """
    if _field(context["dag_run"], "run_type") == "backfill":
        log.info("A backfill's run is not finished after %g minutes", minutes)
        return
    from sosie import pipeline
    from sosie.settings import settings

    pipeline.alert_deadline(settings(), run_id=run_id(context), minutes=minutes, run_url=_url(context["dag_run"]))


def run_url() -> str:
    """Where people see this task's run; empty where nobody said at which address Airflow is served."""
    return _url(get_current_context()["dag_run"])


def _url(dag_run: Any) -> str:
    base = str(conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    id_ = _field(dag_run, "dag_run_id") or _field(dag_run, "run_id")
    return f"{base}/dags/{_field(dag_run, 'dag_id')}/runs/{quote(str(id_))}" if base else ""


_KILLED = (
    "The task's process was ended from outside before it could say why: killed, or out of memory. "
    "Give it more memory or a smaller embedding.shard_size, then clear the task."
)


def _task_name(ti: Any) -> str:
    return str(ti.task_id) if getattr(ti, "map_index", -1) in (None, -1) else f"{ti.task_id}[{ti.map_index}]"


def _alert(context: Mapping[str, Any], **told: Any) -> None:
    """`told` as `pipeline.alert_failure` takes it."""
    from sosie import pipeline
    from sosie.settings import settings

    pipeline.alert_failure(settings(), run_id=run_id(context), **told)


TASK_DEFAULTS: dict[str, Any] = {
    "owner": "sosie",
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=environment.number("SOSIE_RETRY_SECONDS", 30)),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RetryTransient(),
    "execution_timeout": timedelta(
        hours=6
    ),  # a first load of millions is slow; a task that hangs must still free its slot
    "on_failure_callback": alert_task_failure,
}
