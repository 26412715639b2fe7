"""Whether models may take the place of those that are live."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

Scores = Mapping[str, Mapping[str, float | None]]
"""Dataset → figures: `row_f1` and `row_f1_standard_error` where it has groups, `f1` and `f1_standard_error` where it is
labelled pairs."""

JUDGED = "judgements"
"""The name that pairs which people judged, and no training saw, go by among the datasets."""

Told = Literal["worse", "as good", "better"]


@dataclass(frozen=True)
class Gain:
    """What people's judgements changed: one recipe trained without them and with them, measured on the same datasets.

    `learnt` judgements were trained on, `held_back` ones are the dataset `JUDGED`.
    """

    learnt: int
    held_back: int
    without: Scores
    having: Scores


@dataclass(frozen=True)
class Verdict:
    """`reasons` has a sentence for each dataset."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """No dataset worse by more than `errors` standard errors of F1, and one at least better.

    Where judgements were learnt from, they too must have made no dataset worse by more than that.
    """

    errors: float = 1.0

    def judge(self, new: Scores, live: Scores, gain: Gain | None = None) -> Verdict:
        """Over the datasets with groups on which the live models were measured (one that `new` was not measured on
        fails), and over the labelled pairs on which both were."""
        reasons, told = [], []
        for name, before in live.items():
            kind = "row_f1" if before.get("row_f1") is not None else "f1"
            if before.get(kind) is None or (kind == "f1" and new.get(name, {}).get(kind) is None):
                continue
            found = self._compared(kind, before, new.get(name, {}))
            told.append(found[0] if found else "worse")
            reasons.append(f"{name}: {found[1]}" if found else f"{name} was not measured.")
        if gain is not None:
            harm, sentence = self._gained(gain)
            told += harm
            reasons.append(sentence)
        better = "better" in told
        if not better:
            reasons.append("Better on none.")
        return Verdict(better and "worse" not in told, tuple(reasons))

    def _compared(
        self, kind: str, before: Mapping[str, float | None], after: Mapping[str, float | None]
    ) -> tuple[Told, str] | None:
        """How much better, and a sentence; None where one side was not measured."""
        was, now = before.get(kind), after.get(kind)
        if was is None or now is None:
            return None
        error = max(scores.get(f"{kind}_standard_error") or 0.0 for scores in (before, after))
        told: Told = "worse" if was - now > self.errors * error else "better" if now > was else "as good"
        return told, f"{was:.4f} → {now:.4f} ± {error:.4f}, {told}."

    def _gained(self, gain: Gain) -> tuple[list[Told], str]:
        """`worse` for each dataset that judgements harmed, and what they did in a sentence."""
        found = {
            name: each
            for name, before in gain.without.items()
            for kind in ("row_f1", "f1")
            if (each := self._compared(kind, before, gain.having.get(name, {})))
        }
        harmed = [name for name, (told, _) in found.items() if told == "worse"]
        sentence = f"{gain.learnt + gain.held_back:,} judgements, {gain.learnt:,} of them learnt from"
        if JUDGED in found:
            sentence += f": F1 on the {gain.held_back:,} held back {found[JUDGED][1].removesuffix('.')}"
        if macro := _both(gain, "macro_f1"):
            sentence += "; catalogues' mean macro-F1 {:.4f} → {:.4f}".format(*macro)
        sentence += f"; worse than without them on {', '.join(harmed)}." if harmed else "."
        return [found[name][0] for name in harmed], sentence


def _both(gain: Gain, figure: str) -> tuple[float, float] | None:
    """The mean of a figure over the datasets with groups, without and with judgements."""
    pairs = [
        (was, now)
        for name, before in gain.without.items()
        if before.get("row_f1") is not None
        and (was := before.get(figure)) is not None
        and (now := gain.having.get(name, {}).get(figure)) is not None
    ]
    return (fmean(was for was, _ in pairs), fmean(now for _, now in pairs)) if pairs else None
