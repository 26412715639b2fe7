"""The last words of a run in a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sosie.report import words
from sosie.report.counts import Counts

_BAR = 24


def summary(
    manifest: Mapping[str, Any], accuracy: Mapping[str, float] | None = None, *, report: Path | None = None
) -> RenderableType:
    """What one run did. `accuracy` holds shares by name (precision, recall, …) against a known truth."""
    count = Counts(manifest)
    parts: list[RenderableType] = [Text(words.headline(count) + ".", style="bold"), Text(), _facts(count)]
    parts += [Text(), _steps(manifest)]
    if accuracy:
        parts += [Text(), _accuracy(accuracy)]
    if report is not None:
        parts += [Text(), Text.assemble(("Report  ", "bold"), (report.as_uri(), "cyan"), overflow="fold")]
    title = Text(f"Sosie · hour {manifest['run_id']}", style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim", padding=(1, 2))


def _facts(count: Counts) -> Table:
    known = count.total("embed", ("text_cached", "image_cached"))
    rows = (
        ("Listings read", count("validate.rows_read"), _aside(count("validate.rows_quarantined"), "quarantined")),
        ("Changed", count.changed, _aside(count("detect_changes.unchanged"), "unchanged, at no cost")),
        ("Vectors computed", count.embedded, _aside(known, "known already")),
        ("Pairs compared", count("match.candidates"), ""),
        ("Matches", count("match.match"), _aside(count("match.review"), "for a person")),
        ("Clusters", count("cluster.clusters"), _events(count)),
        ("Duplicates", count("cluster.duplicates"), "in the catalogue now"),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for name, value, aside in rows:
        table.add_row(name, words.number(value), aside)
    return table


def _aside(value: int, what: str) -> str:
    return f"{words.number(value)} {what}" if value else ""


def _events(count: Counts) -> str:
    told = {kind: count(f"cluster.{kind}") for kind in words.KINDS}
    return ", ".join(f"{words.number(amount)} {kind}" for kind, amount in told.items() if amount)


def _steps(manifest: Mapping[str, Any]) -> Table:
    steps = [step for step in manifest.get("steps") or () if step.get("seconds") is not None]
    slowest = max((step["seconds"] for step in steps), default=0) or 1
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="blue", no_wrap=True)
    for step in steps:
        bar = "━" * max(1, round(_BAR * step["seconds"] / slowest))
        table.add_row(words.STEPS.get(step["name"], words.plain(step["name"])), words.seconds(step["seconds"]), bar)
    if manifest.get("seconds") is not None:
        table.add_row(Text("All", style="bold"), words.seconds(manifest["seconds"]), "")
    return table


def _accuracy(accuracy: Mapping[str, float]) -> Text:
    figures = Text("Against the known truth  ", style="bold")
    for name, value in accuracy.items():
        figures.append(f"{name} ", style="not bold dim")
        figures.append(f"{value:.3f}  ", style="green")
    return figures
