"""Flows as a Sankey diagram in plain SVG, laid out in columns from left to right."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sosie.report.charts import Flow

WIDTH, BAR, GAP, LABEL = 920, 10, 15, 190
HEIGHT = 240.0
LEAST = 1.5
"""Thickness of the smallest flow, so that one row among millions is still seen."""


@dataclass(frozen=True)
class Node:
    name: str
    amount: int
    tone: str
    x: float
    y: float
    height: float
    last: bool


@dataclass(frozen=True)
class Band:
    """`path` is the outline that SVG fills."""

    source: str
    target: str
    amount: int
    tone: str
    path: str


@dataclass(frozen=True)
class Diagram:
    width: float
    height: float
    nodes: tuple[Node, ...]
    bands: tuple[Band, ...]


def sankey(flows: Sequence[Flow]) -> Diagram | None:
    """Lay the flows out; None where nothing flows. `deep` ones only say again where things end, and are left out."""
    flows = [flow for flow in flows if flow.amount > 0 and not flow.deep]
    if not flows:
        return None
    column = _columns(flows)
    inward, outward = _sums(flows, "target"), _sums(flows, "source")
    amount = {name: max(inward[name], outward[name]) for name in column}
    scale = HEIGHT / max(sum(amount[n] for n in column if column[n] == c) for c in set(column.values()))
    tall = {name: max(sum(_thick(f, scale) for f in flows if f.target == name),
                      sum(_thick(f, scale) for f in flows if f.source == name)) for name in column}  # fmt: skip
    tone = {name: next((f.tone for f in reversed(flows) if f.target == name), "idle") for name in column}
    step = (WIDTH - LABEL - BAR) / max(1, *column.values())
    nodes, bottom = {}, dict.fromkeys(column.values(), 8.0)
    for name, place in column.items():
        nodes[name] = Node(name, amount[name], tone[name], place * step, bottom[place], tall[name], outward[name] == 0)
        bottom[place] += max(tall[name], 6) + GAP
    return Diagram(WIDTH, max(bottom.values()), tuple(nodes.values()), tuple(_bands(flows, nodes, scale)))


def _columns(flows: Sequence[Flow]) -> dict[str, int]:
    """How many steps each name is from the start, in the order in which the flows name them."""
    column: dict[str, int] = {}
    for flow in flows:
        column.setdefault(flow.source, 0)
        column[flow.target] = max(column.get(flow.target, 0), column[flow.source] + 1)
    return column


def _sums(flows: Sequence[Flow], end: str) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for flow in flows:
        sums[getattr(flow, end)] += flow.amount
    return sums


def _thick(flow: Flow, scale: float) -> float:
    return max(LEAST, flow.amount * scale)


def _bands(flows: Sequence[Flow], nodes: dict[str, Node], scale: float) -> list[Band]:
    sent: defaultdict[str, float] = defaultdict(float)
    got: defaultdict[str, float] = defaultdict(float)
    bands = []
    for flow in flows:
        a, b, thick = nodes[flow.source], nodes[flow.target], _thick(flow, scale)
        x0, x1 = a.x + BAR, b.x
        y0, y1 = a.y + sent[a.name], b.y + got[b.name]
        sent[a.name] += thick
        got[b.name] += thick
        middle = (x0 + x1) / 2
        path = (
            f"M{x0:.1f},{y0:.1f} C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f} "
            f"L{x1:.1f},{y1 + thick:.1f} C{middle:.1f},{y1 + thick:.1f} {middle:.1f},{y0 + thick:.1f} "
            f"{x0:.1f},{y0 + thick:.1f} Z"
        )
        bands.append(Band(flow.source, flow.target, flow.amount, flow.tone, path))
    return bands
