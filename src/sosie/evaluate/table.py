"""An evaluation as a table for people."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sosie.evaluate.evaluation import Evaluation

FAMILIES = {"row": "mean per row", "pairwise": "pairwise", "bcubed": "B-cubed"}
SCOPES = {"all": "all rows", "unseen": "unseen groups, whole pool", "test": "test pairs"}


def render(evaluation: Evaluation) -> RenderableType:
    """What a person needs to judge the numbers: where they come from first, then the numbers."""
    title = f"{evaluation.matcher} on {evaluation.dataset}"
    size = f"{evaluation.rows:,} listings" + (f" in {evaluation.groups:,} groups" if evaluation.groups else "")
    table = Table(title=title, caption=size, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for name in ("scope", "metric"):
        table.add_column(name)
    for name in ("precision", "recall", "F1", "± s.e."):
        table.add_column(name, justify="right")
    _add(table, "", evaluation.metrics)
    for variant, scopes in evaluation.variants.items():
        table.add_section()
        _add(table, variant.replace("_", " "), scopes)
    return Group(table, *(Text(line, style="dim") for line in _notes(evaluation)))


def _add(table: Table, variant: str, scopes: Mapping[str, Mapping[str, Any]]) -> None:
    for scope, scores in scopes.items():
        label = SCOPES.get(scope, scope) + (f" ({variant})" if variant else "")
        if "row" not in scores:
            table.add_row(label, "duplicates", *_numbers(scores), "")
            table.add_row("", "both classes (macro)", "", "", f"{scores['macro_f1']:.3f}", "")
            continue
        for place, (family, name) in enumerate(FAMILIES.items()):
            error = f"{scores['row_f1_standard_error']:.3f}" if family == "row" else ""
            table.add_row(label if place == 0 else "", name, *_numbers(scores[family]), error)


def _numbers(score: Mapping[str, float]) -> list[str]:
    return [f"{score[name]:.3f}" for name in ("precision", "recall", "f1")]


def _notes(evaluation: Evaluation) -> list[str]:
    held = {name: value for name, value in evaluation.thresholds.items() if isinstance(value, float)}
    thresholds = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in held.items())
    notes = [f"thresholds: {thresholds} (from {evaluation.thresholds['fitted_on']})"]
    if "pair_recall" in evaluation.candidates:
        pairs, recall = evaluation.candidates["pairs"], evaluation.candidates["pair_recall"]
        notes.append(f"candidates: {pairs:,} pairs, which hold {recall:.1%} of the true ones")
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in evaluation.seconds.items() if value >= 0.05)
    notes.append(f"seconds: {sum(evaluation.seconds.values()):.1f} ({seconds})")
    return notes
