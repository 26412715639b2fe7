"""Prometheus metrics, worked out from the lake whenever somebody asks: no process keeps a counter of its own.

Names and labels are a contract with `docker/prometheus` and `docker/grafana`. Every family is always there, so that a
dashboard can tell "none" from "not measured".
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sosie import __version__, hours, judgements, tables
from sosie.alerts import rule_of
from sosie.alerts.silences import active as silenced
from sosie.lake import Lake
from sosie.report.counts import Counts
from sosie.settings import Settings

RUN_BUCKETS = (30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3000.0, 7200.0)
"""Seconds."""

_HOUR = re.compile(hours.PATTERN)


def text(settings: Settings, *, now: float | None = None) -> str:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families(settings, time.time() if now is None else now)))
    return generate_latest(registry).decode()


class _Collected(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = list(found)

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def families(settings: Settings, now: float) -> Iterator[Metric]:
    """Every metric family, with what the lake says now (`now` in seconds since 1970)."""
    lake = Lake(settings.lake_uri)
    yield InfoMetricFamily("sosie_build", "Version of the program.", value={"version": __version__})
    runs = lake.read(tables.RUNS).sort("run_id")
    yield from _of_runs(runs, now)
    yield from _of_newest(runs)
    yield from _of_tables(lake)
    yield from _of_catalogue(lake)
    yield from _of_queues(lake, settings, runs)
    yield from _of_alerts(lake, now)


def gauge(name: str, help_: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    """A family with a sample for each key of `values`, a tuple of label values."""
    family = GaugeMetricFamily(name, help_, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, float(value))
    return family


def _of_runs(runs: pl.DataFrame, now: float) -> Iterator[Metric]:
    yield gauge("sosie_runs", "Runs that the lake knows, by how they ended.", _counted(runs, "state"), "state")
    done = runs.filter(pl.col("state") == "succeeded")
    newest = done.tail(1)
    hour = hours.start(newest["run_id"][0]).timestamp() + 3600 if done.height else None
    finished = newest["finished_at"][0].timestamp() if done.height and newest["finished_at"][0] else None
    yield gauge("sosie_newest_hour_end_timestamp_seconds", "End of the newest hour that is done.", _one(hour))
    yield gauge("sosie_last_finished_timestamp_seconds", "When that hour's run finished.", _one(finished))
    yield gauge(
        "sosie_freshness_seconds",
        "Age of the newest data that is decided: time since the end of the newest hour that is done.",
        _one(None if hour is None else now - hour),
    )
    seconds = done["seconds"].drop_nulls()
    buckets = [(str(limit), float((seconds <= limit).sum())) for limit in RUN_BUCKETS]
    family = HistogramMetricFamily("sosie_run_duration_seconds", "Time that the steps of each run took.")
    family.add_metric([], [*buckets, ("+Inf", float(len(seconds)))], sum_value=float(seconds.sum() or 0.0))
    yield family


def _of_newest(runs: pl.DataFrame) -> Iterator[Metric]:
    """The newest hour, done or refused; upkeep and switches of models sort after it and have other steps."""
    hours = runs.filter(pl.col("state").is_in(["succeeded", "refused"]))
    newest: Mapping[str, Any] = next(hours.tail(1).iter_rows(named=True), {})
    steps = newest.get("steps") or ()
    yield gauge("sosie_step_seconds", "Time of each step in the newest hour.",
                {(step["name"],): step["seconds"] or 0.0 for step in steps}, "step")  # fmt: skip
    yield gauge("sosie_step_peak_memory_bytes", "Peak memory of each step's process in the newest hour.",
                {(step["name"],): step["peak_memory_bytes"] or 0 for step in steps}, "step")  # fmt: skip
    counts = {(step["name"], one["name"]): one["value"] or 0 for step in steps for one in step["counts"] or ()}
    yield gauge("sosie_step_count", "What each step of the newest hour counted.", counts, "step", "count")
    count = Counts(newest)
    yield gauge(
        "sosie_changed_listings", "Listings that the newest hour made, changed or deleted.", _one(count.changed)
    )
    unbalanced = sum(not balance.holds for balance in count.balances)
    yield gauge("sosie_unbalanced_counts", "Sums of the newest hour that don't add up; 0 is right.", _one(unbalanced))
    versions = {
        (name, newest[f"{name}_version"]): 1 for name in ("text", "image", "decider") if newest.get(f"{name}_version")
    }
    yield gauge("sosie_model_info", "Version of each model in the newest hour; always 1.", versions, "model", "version")


def _of_tables(lake: Lake) -> Iterator[Metric]:
    rows = {(table.name,): lake.scan(table).select(pl.len()).collect().item() for table in tables.ALL}
    yield gauge("sosie_table_rows", "Rows of each table of the lake.", rows, "table")
    versions = {(table.name,): lake.version(table) for table in tables.ALL}
    yield gauge("sosie_table_version", "Delta version of each table; -1 where it isn't there yet.", versions, "table")


def _of_catalogue(lake: Lake) -> Iterator[Metric]:
    listings = lake.scan(tables.LISTINGS)
    live = listings.filter(~pl.col("is_deleted"))
    told = live.select(
        pl.len().alias("live"), text=pl.col("text_hash").count(), image=pl.col("image_hash").count()
    ).collect()  # fmt: skip
    deleted = listings.filter(pl.col("is_deleted")).select(pl.len()).collect().item()
    yield gauge("sosie_listings", "Listings of the catalogue.",
                {("live",): told["live"][0], ("deleted",): deleted}, "state")  # fmt: skip
    yield gauge("sosie_listings_with", "Live listings that have a title, or a picture.",
                {("text",): told["text"][0], ("image",): told["image"][0]}, "modality")  # fmt: skip
    clusters = lake.scan(tables.CLUSTERS).select(
        clusters=pl.col("cluster_id").n_unique(), members=pl.len(), largest=pl.col("size").max()
    ).collect()  # fmt: skip
    yield gauge("sosie_clusters", "Clusters of duplicates.", _one(clusters["clusters"][0]))
    yield gauge("sosie_cluster_members", "Listings that are in a cluster.", _one(clusters["members"][0]))
    yield gauge("sosie_largest_cluster", "Listings of the largest cluster.", _one(clusters["largest"][0] or 0))
    yield gauge(
        "sosie_pairs", "Pairs that are kept, by verdict.", _counted(lake.scan(tables.PAIRS), "verdict"), "verdict"
    )
    judged = judgements.active(lake)
    yield gauge("sosie_judgements", "Judgements in force, by verdict.", _counted(judged, "verdict"), "verdict")


def _of_queues(lake: Lake, settings: Settings, runs: pl.DataFrame) -> Iterator[Metric]:
    yield gauge(
        "sosie_review_queue",
        "Pairs that the decider is not sure of and nobody judged.",
        _one(judgements.waiting(lake).height),
    )
    waiting = lake.read(tables.QUARANTINE, pl.col("replayed_run").is_null(), columns=["rule"])
    yield gauge(
        "sosie_quarantine_rows", "Rows in quarantine that were not replayed.", _counted(waiting, "rule"), "rule"
    )
    files = runs["files"].explode().struct.field("path").drop_nulls()  # one run catches up on several hours
    taken = {*runs["run_id"], *files.str.split("/").list.first()}
    landed = {path.name for path in settings.landing.glob("*T*") if path.is_dir() and _HOUR.fullmatch(path.name)}
    yield gauge("sosie_landing_hours_waiting", "Hours in the landing folder that no run has taken.",
                _one(len(landed - taken)))  # fmt: skip


def _of_alerts(lake: Lake, now: float) -> Iterator[Metric]:
    held = lake.read(tables.ALERTS, columns=["key", "severity", "state"])
    rows = held.with_columns(rule=pl.col("key").map_elements(rule_of, return_dtype=pl.String))
    counted = _counted(rows, "rule", "severity", "state")
    yield gauge("sosie_alerts", "Alerts by rule, severity and state of delivery, one for each channel.",
                counted, "rule", "severity", "state")  # fmt: skip
    quiet = silenced(lake, datetime.fromtimestamp(now, UTC))
    yield gauge(
        "sosie_silenced_rules", "Alert rules that are silenced; always 1.", {(rule,): 1 for rule in quiet}, "rule"
    )


def _counted(rows: pl.DataFrame | pl.LazyFrame, *columns: str) -> dict[tuple[str, ...], float]:
    counted = rows.lazy().group_by(*columns).len().collect()
    return {tuple(map(str, row[:-1])): row[-1] for row in counted.iter_rows()}


def _one(value: float | None) -> dict[tuple[str, ...], float]:
    return {} if value is None else {(): value}
