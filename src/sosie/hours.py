"""Hours of the clock, in UTC: what a run is named by, and a feed's folder, as 2026-01-05T09."""

from datetime import UTC, datetime

FORMAT = "%Y-%m-%dT%H"
PATTERN = r"\d{4}-\d{2}-\d{2}T\d{2}"
"""What a name looks like; not every one that does is of an hour there is."""


def name(moment: datetime) -> str:
    """The hour that a moment, which has a zone, lies in."""
    return moment.astimezone(UTC).strftime(FORMAT)


def start(name: str) -> datetime:
    """When an hour begins. Raises `ValueError` for what names none."""
    return datetime.strptime(name, FORMAT).replace(tzinfo=UTC)
