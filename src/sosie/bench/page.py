"""The figures of a run as a page with one diagram: how far each is from its goal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sosie.bench.figures import Figure

_COLOURS = {True: "#2e7d32", False: "#c62828"}


def write(found: Mapping[str, Sequence[Figure]], file: Path) -> None:
    """One bar a figure that has a goal: 1 is the goal itself, what is longer is better. A page without any net."""
    import plotly.graph_objects as go

    aims = [(f"{name}: {each.name}", each) for name, figures in found.items() for each in figures if each.goal]
    labels, reached = [label for label, _ in aims], [over_goal(figure) for _, figure in aims]
    chart = go.Figure(
        go.Bar(
            x=reached,
            y=labels,
            orientation="h",
            marker_color=[_COLOURS[bool(figure.met)] for _, figure in aims],
            text=[f"{figure.ratio:.3g} × {figure.peer}" for _, figure in aims],
            hovertext=[figure.note for _, figure in aims],
        )
    )
    chart.add_vline(x=1, line_dash="dash")
    chart.update_xaxes(type="log", title="times the goal")
    chart.update_yaxes(autorange="reversed", automargin=True)
    chart.update_layout(template="plotly_white", height=160 + 32 * len(labels), title="Figures beside their goals")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(chart.to_html(include_plotlyjs=True, full_html=True))


def over_goal(figure: Figure) -> float:
    """How often the goal is reached, the right way round: 1 is just reached, 2 twice as good."""
    assert figure.goal
    return figure.goal / max(figure.ratio, 1e-9) if figure.at_most else figure.ratio / figure.goal
