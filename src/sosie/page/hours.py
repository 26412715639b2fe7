"""Hours told: how rows and pairs flowed, how long each step took, and whether it is as usual."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import polars as pl

from sosie.page.people import Refused
from sosie.page.store import Store
from sosie.report.counts import Counts
from sosie.runs import last_end, succeeded_before
from sosie.tables import LISTINGS, RUNS
from sosie.validation import docs

PER_PAGE = 24
USUAL = 48
"""Hours before that one is held against."""
ENOUGH = 6
UNUSUAL = 4.0
"""Robust standard deviations (1.4826 · median absolute deviation) from the usual that are worth a word."""

MEASURES = {
    "changed": "Listings changed",
    "quarantined": "Rows quarantined, share",
    "match": "Candidates that match, share",
    "review": "Candidates for a person, share",
    "seconds": "Seconds",
}


@dataclass(frozen=True)
class Hour:
    """A row of `runs` with its counts."""

    row: dict[str, Any]
    count: Counts

    @property
    def run_id(self) -> str:
        return str(self.row["run_id"])

    @property
    def measures(self) -> dict[str, float]:
        """The figures of `MEASURES`, those whose denominator is not 0."""
        count, found = self.count, {"changed": float(self.count.changed)}
        if read := count("validate.rows_read"):
            found["quarantined"] = count("validate.rows_quarantined") / read
        if candidates := count("match.candidates"):
            found |= {name: count(f"match.{name}") / candidates for name in ("match", "review")}
        if self.row["seconds"] is not None:
            found["seconds"] = self.row["seconds"]
        return found


@dataclass(frozen=True)
class Drift:
    """One measure of an hour beside those before it, oldest first.

    `distance` is in robust standard deviations: infinite for another figure than hours had that were all alike, None
    where fewer than `ENOUGH` came before.
    """

    name: str
    label: str
    now: float
    before: tuple[float, ...]
    distance: float | None

    @property
    def unusual(self) -> bool:
        return self.distance is not None and abs(self.distance) > UNUSUAL


@dataclass(frozen=True)
class Fresh:
    """How old what we know is. `newest` is the newest `updated_at` of any listing."""

    finished: datetime | None
    newest: datetime | None
    now: datetime


def page(store: Store, number: int) -> tuple[list[Hour], int]:
    """Hours, newest first, and how many there are. Pages from 1."""
    rows = store.lake.scan(RUNS).select("run_id").collect()["run_id"].sort(descending=True)
    wanted = rows.slice((number - 1) * PER_PAGE, PER_PAGE)
    found = store.lake.read(RUNS, pl.col("run_id").is_in(wanted.implode())).sort("run_id", descending=True)
    return [_hour(row) for row in found.iter_rows(named=True)], len(rows)


def one(store: Store, run_id: str) -> Hour:
    """Raises `Refused` where the hour never ran."""
    rows = store.lake.read(RUNS, pl.col("run_id") == run_id)
    if rows.is_empty():
        raise Refused(404, f"Hour {run_id!r} has not run, or is not at its end yet.", "/runs")
    return _hour(rows.row(0, named=True))


def _hour(row: dict[str, Any]) -> Hour:
    row["steps"] = row["steps"] or []
    return Hour(row, Counts(row))


def fresh(store: Store) -> Fresh:
    newest = store.lake.scan(LISTINGS).select(pl.col("updated_at").max())
    return Fresh(last_end(store.lake), newest.collect().item(), datetime.now(UTC))


def drift(store: Store, hour: Hour) -> list[Drift]:
    """Each measure of the hour against the hours before it."""
    earlier = succeeded_before(store.lake, hour.run_id, USUAL)
    before = [_hour(row).measures for row in earlier.iter_rows(named=True)]
    return [
        _held(name, MEASURES[name], now, tuple(own[name] for own in before if name in own))
        for name, now in hour.measures.items()
    ]


def _held(name: str, label: str, now: float, before: tuple[float, ...]) -> Drift:
    distance = None
    if len(before) >= ENOUGH:
        middle = median(before)
        spread = 1.4826 * median(abs(value - middle) for value in before)
        if spread > 0:
            distance = (now - middle) / spread
        else:  # as good as all were alike: any other figure is news
            distance = 0.0 if now == middle else math.copysign(math.inf, now - middle)
    return Drift(name, label, now, before, distance)


def report_of(store: Store, run_id: str) -> tuple[bool, str | None]:
    """Whether the hour has a report, and the path of its Data Docs below that."""
    root = store.settings.reports
    return (root / run_id / "index.html").is_file(), docs.page_of(root, run_id)
