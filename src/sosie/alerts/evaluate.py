"""The alerts that follow from a finished run: every measure held against its rule."""

from collections.abc import Mapping
from typing import Any

import structlog

from sosie.alerts.look import Look
from sosie.alerts.measures import MEASURES
from sosie.alerts.model import Alert
from sosie.alerts.rules import load, render
from sosie.lake import Lake
from sosie.settings import Settings

log = structlog.get_logger(__name__)


def found(lake: Lake, manifest: Mapping[str, Any], settings: Settings, *, run_url: str = "") -> list[Alert]:
    """Alerts of a run, from its manifest and the lake as it is now. Changes nothing.

    Raises `SettingsError` where the rules can't be used.
    """
    look, told = Look(lake, manifest, settings), []
    for name, rule in load(settings).items():
        if name not in MEASURES or rule.threshold is None:
            continue
        for measured in MEASURES[name](look, rule.threshold, rule.fewest):
            if measured.cases >= rule.fewest and measured.value > rule.threshold:
                facts = {"value": measured.value, **measured.facts}
                told.append(render(name, facts, settings, look.run_id, subject=measured.subject, run_url=run_url))
    return told
