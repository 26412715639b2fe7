"""One measured number and what it is to be judged by."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Size = Literal["small", "standard", "large"]
SIZES: tuple[Size, ...] = ("small", "standard", "large")
"""`small` shows in seconds that a benchmark works, `standard` takes minutes, `large` is for a quiet machine."""


@dataclass(frozen=True)
class Figure:
    """`ratio` is `value` over `peer_value`, both in `unit`. Without a `goal` there is none.

    `peer` names a library, or a limit, that the value stands beside. `at_most` turns the goal round: less is better.
    `note` says what was measured on what, where the name does not.
    """

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.value / self.peer_value if self.peer_value else float("inf")

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches the goal; none where there is no goal."""
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> "Figure":
        """Back from `as_dict`."""
        return cls(**{name: value for name, value in held.items() if name not in ("ratio", "met")})


def against(
    name: str, work: float, unit: str, ours: float, peer: str, theirs: float, goal: float | None = None, note: str = ""
) -> Figure:
    """A rate beside a peer's: both did `work` (rows, pairs …), in `ours` and `theirs` seconds."""
    return Figure(name, work / ours, f"{unit}/s", peer, work / theirs, goal, note=note)


def within(name: str, value: float, unit: str, limit: float, *, at_most: bool, note: str = "") -> Figure:
    """A value beside a limit that it has to keep."""
    return Figure(name, value, unit, "limit", limit, 1.0, at_most, note)
