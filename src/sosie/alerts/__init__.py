"""Alerts: what a person should know of a run, by the rules of one file, handed to each channel once, through Apprise.

rules.yaml ─┐
manifest ───┼─ measures ─ evaluate ─▶ Alert ─▶ outbox (table `alerts`) ─▶ channels
lake ───────┘                                     silences
failures ────────────────────▶ Alert ─▶ tell ─▶ outbox, or straight to the channels where that can't be used
"""

from sosie.alerts.channels import Channel, channels, send_by_apprise
from sosie.alerts.evaluate import found
from sosie.alerts.failures import deadline_missed, run_failed, task_failed, task_subject
from sosie.alerts.model import Alert, Severity, rule_of
from sosie.alerts.outbox import deliver
from sosie.alerts.tell import tell

__all__ = [
    "Alert",
    "Channel",
    "Severity",
    "channels",
    "deadline_missed",
    "deliver",
    "found",
    "rule_of",
    "run_failed",
    "send_by_apprise",
    "task_failed",
    "task_subject",
    "tell",
]
