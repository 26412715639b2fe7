"""Rules that somebody asked to be quiet, until a time: their alerts are kept, marked `silenced`, and never sent."""

import re
from datetime import UTC, datetime, timedelta

import polars as pl

from sosie.errors import SettingsError, TerminalError
from sosie.lake import Lake
from sosie.tables import SILENCES

_SPAN = re.compile(r"(\d+)\s*([mhdw])")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def silence(lake: Lake, rule: str, until: datetime, *, who: str, note: str | None, now: datetime) -> None:
    """Keep a rule quiet until a time (with its zone). Raises `TerminalError` where that has passed."""
    if until <= now:
        raise TerminalError(f"{until:%Y-%m-%d %H:%M} UTC has passed; give a later time, or a span such as 4h.")
    row = {"rule": rule, "since": now, "until": until, "who": who, "note": note}
    lake.upsert(SILENCES, pl.DataFrame([row], schema=SILENCES.schema))


def end(lake: Lake, rule: str, *, now: datetime) -> int:
    """Let a rule speak again; returns how many silences ended."""
    held = in_force(lake, now).filter(pl.col("rule") == rule)
    lake.upsert(SILENCES, held.with_columns(until=pl.lit(now)))
    return held.height


def in_force(lake: Lake, now: datetime) -> pl.DataFrame:
    """Silences that have not expired: rule, since, until, who, note."""
    return lake.read(SILENCES, pl.col("until") > now).sort("until", "rule")


def active(lake: Lake, now: datetime) -> frozenset[str]:
    """The rules that are quiet now."""
    return frozenset(in_force(lake, now)["rule"])


def until(text: str, now: datetime) -> datetime:
    """A span from now (`30m`, `4h`, `2d`, `1w`) or a time (`2026-11-22`, `2026-11-22T09:00`, in UTC where it names no
    zone), in UTC. Raises `SettingsError`.
    """
    try:
        if span := _SPAN.fullmatch(text.strip().lower()):
            return now + timedelta(**{_UNIT[span[2]]: int(span[1])})
        given = datetime.fromisoformat(text)
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # Python's calendar ends with the year 9999
        raise SettingsError(f"--until {text!r} is no time: write 30m, 4h, 2d, 1w, or 2026-11-22T09:00 (UTC).") from None
