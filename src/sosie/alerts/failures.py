"""Alerts of a run that did not get to its end, where no manifest tells anything."""

import hashlib
from dataclasses import replace
from typing import Any

from sosie.alerts import rules
from sosie.alerts.model import Alert
from sosie.errors import PATH_REMEDY, BatchRejected, SettingsError, SosieError, TransientError, names_path
from sosie.settings import Settings

RULES = ("run_failed", "batch_rejected", "deadline_missed")
"""Rules that follow from an event; the others from what a run left."""


def run_failed(settings: Settings, run_id: str, error: BaseException) -> Alert:
    """The alert for a run that stopped by an error. What it says to do depends on the kind of error."""
    kind = type(error).__name__
    # The same fault of the same hour is told once; another fault of that hour is another alert.
    subject = _digest(f"{kind}:{error}")
    facts = {"what_failed": "The run", "message": f"{kind}: {error}", "todo": _todo(error)}
    name = "batch_rejected" if isinstance(error, BatchRejected) else "run_failed"
    return _render(name, facts, settings, run_id, subject=subject)


def task_failed(settings: Settings, run_id: str, where: str, message: str, *, kind: str, run_url: str) -> Alert:
    """The alert for a task of an orchestrator that failed for good, with its error's class name where it had one."""
    todo = "The log's last line says what is wrong; mend it, then clear the task."
    facts = {"what_failed": where, "message": message, "todo": todo}
    name = "batch_rejected" if kind == BatchRejected.__name__ else "run_failed"
    return _render(name, facts, settings, run_id, subject=task_subject(where, run_url), run_url=run_url)


def task_subject(where: str, run_url: str) -> str:
    """How the keys of a failed task's alerts end, whichever rule tells of it.

    The log's address names the run and the try: one fault is told once, the hour failing again is told again.
    """
    return f"{where}:{_digest(run_url)}"


def deadline_missed(settings: Settings, run_id: str, minutes: float, *, run_url: str) -> Alert:
    """The alert for a run that is not finished so many minutes after it was queued."""
    return _render(
        "deadline_missed",
        {"minutes": minutes},
        settings,
        run_id,
        subject=_digest(run_url),
        run_url=run_url,
    )


def _render(
    name: str, facts: dict[str, Any], settings: Settings, run_id: str, *, subject: str, run_url: str = ""
) -> Alert:
    """By the rules in use, or where these are broken by those that came with the program: a failure is always told."""
    try:
        return rules.render(name, facts, settings, run_id, subject=subject, run_url=run_url, report=False)
    except SettingsError as error:
        own = settings.alerts.model_copy(update={"rules": None, "thresholds": {}})
        shipped = settings.model_copy(update={"alerts": own})
        told = rules.render(name, facts, shipped, run_id, subject=subject, run_url=run_url, report=False)
        return replace(told, text=f"{told.text}\nThe alert rules in use can't be used: {error}")


def _todo(error: BaseException) -> str:
    if isinstance(error, TransientError):
        return (
            "It was tried again and the fault stayed: check that the store it names is up, or that the process it "
            "waits for comes to its end, then run the hour again."
        )
    if isinstance(error, SosieError):
        return "Trying again gives the same answer: mend the cause, then run the hour again."
    if names_path(error):
        return f"{PATH_REMEDY}, then run the hour again."
    return "This is a fault that the program did not foresee: read the log, then run the hour again."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
