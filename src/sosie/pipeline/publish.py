"""The end of the hour: features to the storefront, a manifest and a page for people, alerts for whoever must act."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sosie import alerts, faults
from sosie import report as page
from sosie.artifacts import Artifact
from sosie.errors import SettingsError
from sosie.lake import Lake
from sosie.pipeline.embed import in_parts, latest, newest, version
from sosie.pipeline.ingest import changes, thumbnails
from sosie.pipeline.run import Counts, Run, Tally, log, step
from sosie.runs import succeeded_before
from sosie.settings import Settings
from sosie.tables import DECISIONS, EMBEDDINGS, LISTINGS, MODALITIES, RUNS, Modality
from sosie.validation import docs

_LOOKED_BACK = 24
"""Hours; one is looked at where all after it died before they told."""


@step
def publish_features(run: Run, tally: Tally) -> None:
    """Write what is new to the online store: embeddings that changed this hour, decisions since the hour before began.

    Those decisions are this hour's, those of vetoes, and those of an hour that never came to its end: one that did has
    published what it had decided until then. The vector of a picture that a listing has no more is taken out.
    """
    from sosie import features

    moved = changes(run)
    text, image = (
        latest(run.lake, modality, version(run.settings, modality), moved.drop_nulls(f"{modality}_hash")["listing_id"])
        for modality in MODALITIES
    )
    others = pl.col("state") == "succeeded", pl.col("run_id") != run.id
    ended = run.lake.read(RUNS, *others, columns=["run_id", "started_at", "finished_at"])
    since = pl.lit(ended["started_at"].max(), dtype=DECISIONS.columns["created_timestamp"])
    # Where no hour has ended yet there is no such time, and everything counts.
    lately = (pl.col("created_timestamp") >= since).fill_null(True)
    recent = run.lake.read(DECISIONS, (pl.col("run_id") == run.id) | lately)
    until = recent.select("run_id").join(ended, on="run_id", how="left", maintain_order="left")["finished_at"]
    decisions = recent.filter((recent["created_timestamp"] > until).fill_null(True))
    published = features.publish(run.settings, text, image, decisions)
    lost = moved.filter(pl.col("kind").is_in(["image", "text_and_image"]), pl.col("image_hash").is_null())
    # As the catalogue is now: an hour that is run again may be an old one.
    now = run.lake.lookup(LISTINGS, "listing_id", lost["listing_id"], columns=["listing_id", "image_hash"])
    bare = now.filter(pl.col("image_hash").is_null())["listing_id"]
    removed = forget_vectors(run.settings, bare, ["image"])
    tally.wrote += published["text"] + published["image"] + published["decisions"] + removed
    tally(text_rows=published["text"], image_rows=published["image"], decision_rows=published["decisions"])


def publish_vectors(settings: Settings, lake: Lake, modality: Modality, stamp: str, listing_ids: pl.Series) -> int:
    """Write the newest vectors of one version to the online store, some at a time; returns how many it lacked."""
    from sosie import features

    written = 0
    rows = newest(lake, modality, stamp, listing_ids)
    for part in in_parts(lake, modality, stamp, rows, settings.rebuild.chunk):
        vectors = part.select(*EMBEDDINGS[modality].columns)
        text, image = (vectors if modality == name else vectors.clear() for name in MODALITIES)
        written += features.publish(settings, text, image, DECISIONS.schema.to_frame())[modality]
    return written


def forget_vectors(settings: Settings, listing_ids: pl.Series, modalities: Sequence[Modality] = MODALITIES) -> int:
    """Take vectors of what is gone out of the online store; returns how many rows went."""
    from sosie import features

    try:
        return features.forget(settings, listing_ids, modalities)
    except SettingsError as error:  # a store that we can't take single rows out of: no reason to stop
        log.warning("vectors of what is gone stay online", listings=len(listing_ids), reason=str(error))
        return 0


@step
def report(run: Run, tally: Tally) -> None:
    """Put the steps' records together as the run's manifest, and write its page."""
    pictures = thumbnails(run.settings)
    made = manifest(run)
    tally.written(run.lake.upsert(RUNS, pl.DataFrame([_row(made)], schema=RUNS.schema), run_id=run.id))
    with faults.around("report.page"):
        page.write(
            run.settings.reports,
            page.gather(
                run.lake,
                run.id,
                made,
                pictures=pictures.get,
                example_pairs=run.settings.report.example_pairs,
                data_docs=docs.page_of(run.settings.reports, run.id),
            ),
        )
    tally(pages=1)


def record(run: Run, state: str) -> None:
    """Leave the manifest of a run that is no hour, and so has no page."""
    row = _row(manifest(run) | {"state": state})
    run.lake.upsert(RUNS, pl.DataFrame([row], schema=RUNS.schema), run_id=run.id)


@step
def alert(run: Run, tally: Tally, *, run_url: str = "") -> None:
    """Send what follows from the manifest, and what earlier runs could not deliver or died before they told."""
    for hour in (*_untold(run), run):
        found = alerts.found(run.lake, manifest(hour), run.settings, run_url=run_url if hour is run else "")
        tally(**alerts.deliver(run.lake, found, settings=run.settings.alerts, run_id=hour.id))


def _untold(run: Run) -> Iterator[Run]:
    """The hours just before that came to their end, and died before their alerts were recorded."""
    for run_id in reversed(succeeded_before(run.lake, run.id, _LOOKED_BACK, ["run_id"])["run_id"]):
        earlier = Run(run_id, run.settings)
        done = {record["step"] for record in earlier.staging.records()}
        if "report" not in done or "alert" in done:
            return
        yield earlier


def alert_failure(
    settings: Settings,
    *,
    run_id: str,
    dag_id: str,
    task_id: str,
    message: str,
    log_url: str,
    kind: str = "",
    unless_told: bool = False,
) -> Counts:
    """Tell people that a run stopped. Called where no run could go on, so it needs nothing but the channels.

    `unless_told`: only where this try of the task has not been told of, by whichever rule. Raises what kept the alert
    from being recorded, after it was sent.
    """
    where = ".".join(filter(None, (dag_id, task_id)))
    failed = alerts.task_failed(settings, run_id, where, message, kind=kind, run_url=log_url)
    held = alerts.task_subject(where, log_url) if unless_told else ""
    return alerts.tell(Lake(settings.lake_uri), failed, settings=settings.alerts, run_id=run_id, unless_held=held)


def alert_deadline(settings: Settings, *, run_id: str, minutes: float, run_url: str) -> Counts:
    """Tell people that a run is late. Raises what kept the alert from being recorded, after it was sent."""
    late = alerts.deadline_missed(settings, run_id, minutes, run_url=run_url)
    return alerts.tell(Lake(settings.lake_uri), late, settings=settings.alerts, run_id=run_id)


_MEASURED_BEFORE = ("report", "alert")
"""Steps that read the manifest, and so can't be in it."""


def manifest(run: Run) -> dict[str, Any]:
    """What the run did: files, versions, and for each step its seconds, peak memory and counts, shards added up."""
    records = [record for record in run.staging.records() if record["step"] not in _MEASURED_BEFORE]
    steps: dict[str, dict[str, Any]] = {}
    for record in records:
        own = steps.setdefault(
            record["step"], {"name": record["step"], "seconds": 0.0, "peak_memory_bytes": 0, "counts": defaultdict(int)}
        )
        own["seconds"] += record["seconds"]
        own["peak_memory_bytes"] = max(own["peak_memory_bytes"], record["peak_memory_bytes"])
        for name, value in record["counts"].items():
            own["counts"][name] += value
    began = [(datetime.fromisoformat(record["started_at"]), record["seconds"]) for record in records]
    started = min(start for start, _ in began)
    finished = max(start + timedelta(seconds=seconds) for start, seconds in began)
    return {
        "run_id": run.id,
        "state": "succeeded",
        "started_at": started,
        "finished_at": finished,
        "seconds": _seconds_at_work(began),
        "files": [file for record in records for file in record.get("files", ())],
        "steps": [{**own, "counts": dict(own["counts"])} for own in steps.values()],
        **{f"{modality}_version": version(run.settings, modality) for modality in MODALITIES},
        "decider_version": Artifact.load(run.settings.decider_model, "decider").version,
    }


def _seconds_at_work(began: list[tuple[datetime, float]]) -> float:
    """How long at least one step was at work: side by side counts once, what lies between two tries not at all."""
    total, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, seconds in sorted(began):
        end = start + timedelta(seconds=seconds)
        total += max(0.0, (end - max(start, until)).total_seconds())
        until = max(until, end)
    return total


def _row(made: dict[str, Any]) -> dict[str, Any]:
    steps = [
        {**own, "counts": [{"name": name, "value": value} for name, value in own["counts"].items()]}
        for own in made["steps"]
    ]
    return {**made, "steps": steps}
