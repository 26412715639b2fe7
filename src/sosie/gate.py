"""Whether models may take the place of those that are live."""

from collections.abc import Mapping
from dataclasses import dataclass

Scores = Mapping[str, Mapping[str, float | None]]
"""Dataset → figures, with `row_f1` and `row_f1_standard_error` where the dataset has groups."""


@dataclass(frozen=True)
class Verdict:
    """`reasons` has a sentence for each dataset."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """No dataset worse by more than `errors` standard errors of row F1, and one at least better."""

    errors: float = 1.0

    def judge(self, new: Scores, live: Scores) -> Verdict:
        """Over the datasets on which the live models have a row F1; one that `new` was not measured on fails."""
        reasons, bad, better = [], False, False
        for name, before in live.items():
            was, now = before.get("row_f1"), new.get(name, {}).get("row_f1")
            if was is None:
                continue
            if now is None:
                bad = True
                reasons.append(f"{name} was not measured.")
                continue
            error = max(scores.get("row_f1_standard_error") or 0.0 for scores in (before, new[name]))
            worse = was - now > self.errors * error
            bad, better = bad or worse, better or now > was
            told = "worse" if worse else "better" if now > was else "as good"
            reasons.append(f"{name}: {was:.4f} → {now:.4f} ± {error:.4f}, {told}.")
        if not better:
            reasons.append("Better on none.")
        return Verdict(better and not bad, tuple(reasons))
