"""The rules as `rules.yaml` has them, and the alert that one of them makes of what was measured."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sosie.alerts.model import Alert, Severity
from sosie.errors import SettingsError
from sosie.settings import Settings

SHIPPED = Path(__file__).with_name("rules.yaml")


class Rule(BaseModel):
    """One rule. `threshold` None: it speaks whenever what it is about happened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    severity: Severity
    title: str
    what: str
    do: str
    threshold: float | None = None
    each: Literal["run", "day"] = "run"
    fewest: int = 0


Rules = Mapping[str, Rule]


def load(settings: Settings) -> Rules:
    """The rules, with the thresholds that settings move. Raises `SettingsError` naming the file and the fault."""
    rules = _read(settings.alerts.rules or SHIPPED)
    unknown = settings.alerts.thresholds.keys() - {name for name, rule in rules.items() if rule.threshold is not None}
    if unknown:
        raise SettingsError(
            f"alerts.thresholds names {', '.join(sorted(unknown))}, which is no rule with a threshold. "
            f"Those of {settings.alerts.rules or SHIPPED} are "
            f"{', '.join(name for name, rule in rules.items() if rule.threshold is not None)}."
        )
    return {
        name: rule.model_copy(update={"threshold": settings.alerts.thresholds.get(name, rule.threshold)})
        for name, rule in rules.items()
    }


@lru_cache(maxsize=4)
def _read(file: Path) -> Rules:
    try:
        return TypeAdapter(dict[str, Rule]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"The alert rules {file} can't be read ({error.strerror}); mend alerts.rules.") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"The alert rules {file} are no YAML: {error}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"The alert rules {file} can't be used: {faults}.") from None


def render(
    name: str,
    facts: Mapping[str, Any],
    settings: Settings,
    run_id: str,
    *,
    subject: str = "",
    run_url: str = "",
    report: bool = True,
) -> Alert:
    """The alert of a rule for one run: what happened, what to do, whose it is, and where to look.

    `subject` tells alerts of one rule and run apart; `report`: the run got as far as to write one. Raises
    `SettingsError` where the rule is not there or its text asks for a fact that nobody measured.
    """
    rules = load(settings)
    if name not in rules:
        raise SettingsError(f"There is no alert rule {name} in {settings.alerts.rules or SHIPPED}; add it.")
    rule = rules[name]
    known = {**facts, "threshold": rule.threshold}
    try:
        title, what, do = (text.format_map(known) for text in (rule.title, rule.what, rule.do))
    except (KeyError, ValueError) as error:
        raise SettingsError(
            f"The text of alert rule {name} can't be filled in ({error}); it may name {', '.join(sorted(known))}."
        ) from None
    lines = [
        what,
        f"What to do: {do}",
        f"Owner: {rule.owner} · {rule.severity}",
        f"Report: {page_url(settings, run_id)}" if report else "",
        f"Run: {run_url}" if run_url else "",
        f"Runbook: {runbook_url(settings, name)}",
    ]
    day = run_id.partition("T")[0]
    key = ":".join(filter(None, (name, day if rule.each == "day" else run_id, subject)))
    return Alert(key, rule.severity, f"{' '.join(title.split())} · hour {run_id}", "\n".join(filter(None, lines)))


def page_url(settings: Settings, run_id: str) -> str:
    """The run's report: inside Airflow where `alerts.base_url` says where that is, else the file."""
    if settings.alerts.base_url:
        return f"{settings.alerts.base_url.rstrip('/')}/sosie/{run_id}/index.html"
    return (settings.reports / run_id / "index.html").as_uri()


def runbook_url(settings: Settings, name: str) -> str:
    base = settings.alerts.docs_url.rstrip("/")
    return f"{base}/runbooks/{name}/" if base else f"docs/runbooks/{name}.md"
