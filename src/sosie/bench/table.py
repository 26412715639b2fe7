"""Figures as a table for people."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sosie.bench.figures import Figure

_STATE = {True: ("met", "green"), False: ("missed", "red"), None: ("", "")}


def render(found: Mapping[str, Sequence[Figure]], title: str = "") -> Table:
    """A row a figure, by benchmark; notes below the names."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("figure", "beside"):
        table.add_column(name, overflow="fold")
    for name in ("value", "peer or limit", "ratio", "goal", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for benchmark, figures in found.items():
        table.add_section()
        table.add_row(Text(benchmark, style="bold"))
        for figure in figures:
            state, colour = _STATE[figure.met]
            told = Text(figure.name).append(f"\n{figure.note}" if figure.note else "", style="dim")
            unit = f" {figure.unit}"
            table.add_row(
                told, figure.peer, number(figure.value) + unit, number(figure.peer_value) + unit,
                number(figure.ratio), goal(figure), Text(state, style=colour),
            )  # fmt: skip
    return table


def markdown(found: Mapping[str, Sequence[Figure]], about: str) -> str:
    """The figures as a page of the documentation; `about` says where, when and by which command they were measured."""
    lines = [
        "# Measured figures",
        "",
        about,
        "",
        "| benchmark | figure | beside | value | peer or limit | ratio | goal |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for benchmark, figures in found.items():
        for each in figures:
            state = "" if each.met is None else " (met)" if each.met else " (missed)"
            told = each.name + (f"; {each.note}" if each.note else "")
            values = f"{number(each.value)} {each.unit} | {number(each.peer_value)} {each.unit}"
            cells = (benchmark, told, each.peer, values, number(each.ratio), goal(each) + state)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def console() -> Console:
    """Wide enough for the table where nobody watches."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)


def number(value: float) -> str:
    """Three digits that count, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def goal(figure: Figure) -> str:
    return "" if figure.goal is None else f"{'≤' if figure.at_most else '≥'} {number(figure.goal)}"
