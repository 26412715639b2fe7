"""The counts of a run's manifest, by step and name, and whether they add up."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sosie.listings import IGNORED, KINDS


@dataclass(frozen=True)
class Balance:
    """Two ways to count the same thing."""

    what: str
    whole: int
    parts: int

    @property
    def holds(self) -> bool:
        return self.whole == self.parts


@dataclass(frozen=True)
class Counts:
    """Counts of a manifest: `count("validate.rows_read")`, 0 where a step did not say. Steps of one name are summed."""

    manifest: Mapping[str, Any]

    @cached_property
    def _values(self) -> Counter[str]:
        values: Counter[str] = Counter()
        for step in self.manifest.get("steps") or ():
            for name, value in counts_of(step).items():
                values[f"{step['name']}.{name}"] += int(value or 0)
        return values

    def __call__(self, name: str) -> int:
        return self._values[name]

    def total(self, step: str, names: Iterable[str]) -> int:
        return sum(self(f"{step}.{name}") for name in names)

    @property
    def changed(self) -> int:
        """Listings that this hour made, changed or took away."""
        return self.total("detect_changes", KINDS)

    @property
    def embedded(self) -> int:
        """Vectors that a model computed; those found by content hash cost nothing and are not here."""
        return self.total("embed", ("text_computed", "image_computed"))

    @property
    def balances(self) -> list[Balance]:
        """Sums that must hold in every run that finished."""
        return [
            Balance(
                "rows read = accepted + quarantined",
                self("validate.rows_read"),
                self.total("validate", ("rows_accepted", "rows_quarantined")),
            ),
            Balance(
                "rows accepted = changed + unchanged + stale + superseded",
                self("validate.rows_accepted"),
                self.changed + self.total("detect_changes", IGNORED),
            ),
            Balance(
                "title vectors needed = computed + known already",
                self("embed.text_needed"),
                self.total("embed", ("text_computed", "text_cached")),
            ),
            Balance(
                "picture vectors needed = computed + known already",
                self("embed.image_needed"),
                self.total("embed", ("image_computed", "image_cached")),
            ),
            Balance(
                "candidate pairs = match + review + no match",
                self("match.candidates"),
                self.total("match", ("match", "review", "no_match")),
            ),
        ]


def counts_of(step: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a manifest's step, which has them as a mapping, or as the list that the `runs` table holds."""
    counts = step.get("counts") or {}
    return dict(counts) if isinstance(counts, Mapping) else {count["name"]: count["value"] for count in counts}
