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
        try:
            measured = list(MEASURES[name](look, rule.threshold, rule.fewest))
        except Exception as error:  # one rule that breaks must not keep the others quiet
            log.exception("An alert rule can't be measured", rule=name)
            broken = {"broken": name, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            told.append(render("rule_broken", broken, settings, look.run_id, subject=name, run_url=run_url))
            continue
        for one in measured:
            if one.cases >= rule.fewest and one.value > rule.threshold:
                facts = {"value": one.value, **one.facts}
                told.append(render(name, facts, settings, look.run_id, subject=one.subject, run_url=run_url))
    return told
