"""What an alert is."""

from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the quietest to the loudest."""


@dataclass(frozen=True)
class Alert:
    """One thing to know. Alerts of the same `key` are the same alert; it begins with the rule's name and a colon."""

    key: str
    severity: Severity
    title: str
    text: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"Received severity {self.severity!r}. Valid values are {', '.join(SEVERITIES)}.")
        if not self.key or not self.title or "\n" in self.title:
            raise ValueError(f"An alert needs a key and a title of one line; received {self.key!r}, {self.title!r}.")

    @property
    def rule(self) -> str:
        return rule_of(self.key)


def rule_of(key: str) -> str:
    """The rule that an alert's key begins with."""
    return key.partition(":")[0]


def loudest(severities: list[Severity]) -> Severity:
    return max(severities, key=SEVERITIES.index)
