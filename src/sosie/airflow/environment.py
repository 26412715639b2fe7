"""What DAGs are told by variables of their own, and not by `sosie.settings`, which costs a parse too much to import.

`SOSIE_SCHEDULE`, `SOSIE_UPKEEP_SCHEDULE`, `SOSIE_TRAIN_SCHEDULE`, `SOSIE_DEADLINE_MINUTES`, `SOSIE_RETRY_SECONDS`.
"""

import os

from airflow.sdk import CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

from sosie.errors import SettingsError

_MOST = 1e9


def cron(name: str, default: str) -> str | None:
    """A cron expression or preset; None for `none`, which is runs by hand only. Raises `SettingsError`."""
    told = os.environ.get(name, default).strip()
    if told.lower() == "none":
        return None
    try:
        CronDataIntervalTimetable(told, timezone="UTC").validate()
    except AirflowTimetableInvalid:
        raise SettingsError(
            f"{name} is {told!r}, which is no cron expression: write one such as '30 3 * * *', a preset such as "
            "@hourly, or none for runs by hand only."
        ) from None
    return told


def number(name: str, default: float) -> float:
    """A number from 0 on. Raises `SettingsError`."""
    told = os.environ.get(name, f"{default:g}").strip()
    try:
        value = float(told)
    except ValueError:
        value = -1
    if not 0 <= value <= _MOST:
        raise SettingsError(
            f"{name} is {told!r}, which is no number from 0 to {_MOST:,.0f}: write one such as {default:g}."
        )
    return value
