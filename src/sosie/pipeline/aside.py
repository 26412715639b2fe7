"""Names for runs that are no hour."""

from datetime import UTC, datetime

from sosie import hours
from sosie.lake import Lake
from sosie.tables import RUNS

MARK = "~"
"""Parts the hour from the rest: such an id sorts after its hour and before the next."""


def aside(lake: Lake, what: str, now: datetime | None = None) -> str:
    """The id of a run of `what` (promote, rollback, upkeep, veto) that begins now, after the newest hour there is."""
    now = now or datetime.now(UTC)
    known = lake.read(RUNS, columns=["run_id"])["run_id"].str.slice(0, 13).sort().to_list()
    return f"{known[-1] if known else hours.name(now)}{MARK}{what}-{now:%Y%m%dT%H%M%S%f}"
