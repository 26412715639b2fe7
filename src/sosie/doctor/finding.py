"""What a check found."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is one sentence, empty where nothing is to do."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def fine(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    return Finding(check, "warning", detail, remedy)


def fault(check: str, detail: str, remedy: str) -> Finding:
    return Finding(check, "fault", detail, remedy)
