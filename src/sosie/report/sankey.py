"""Flows as a Sankey diagram in plain SVG, laid out in columns from left to right."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, BAR, GAP, LABEL = 1060.0, 10, 15, 250
HEIGHT, TALLER = 100.0, 15.0
"""Height of what flows through the fullest column, and what each of its nodes adds."""
LEAST = 1.5
"""Thickness of the smallest flow, so that one row among millions is still seen."""


@dataclass(frozen=True)
class Flow:
    """`amount` of things go from `source` to `target`; `tone` names a colour of the page's theme."""

    source: str
    target: str
    amount: int
    tone: str


@dataclass(frozen=True)
class Node:
    name: str
    amount: int
    tone: str
    column: int
    x: float
    y: float
    height: float


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
    """`nodes` come column by column."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    bands: tuple[Band, ...]


@dataclass
class _Link:
    """A flow while it is laid out: `top` is where its upper edge leaves the source."""

    flow: Flow
    thick: float
    top: float = 0.0


def sankey(flows: Sequence[Flow]) -> Diagram | None:
    """Lay the flows out; None where nothing flows."""
    flows = [flow for flow in flows if flow.amount > 0]
    if not flows:
        return None
    columns = _columns(flows)
    inward, outward = _sums(flows, "target"), _sums(flows, "source")
    amount = {name: max(inward[name], outward[name]) for names in columns for name in names}
    room = HEIGHT + TALLER * max(len(names) for names in columns)
    scale = room / max(sum(amount[name] for name in names) for names in columns)
    links = [_Link(flow, max(LEAST, flow.amount * scale)) for flow in flows]
    step = (WIDTH - LABEL - BAR) / (len(columns) - 1)
    nodes, bottom = {}, 0.0
    for place, names in enumerate(columns):
        y = 8.0
        for name in names:
            into = [link for link in links if link.flow.target == name]
            out = [link for link in links if link.flow.source == name]
            tall = max(_thick(into), _thick(out))
            if into:  # as high as where it comes from, so that bands run level where there is room
                y = max(y, sum((link.top + link.thick / 2) * link.thick for link in into) / _thick(into) - tall / 2)
            tone = into[-1].flow.tone if into else "idle"
            nodes[name] = Node(name, amount[name], tone, place, place * step, y, tall)
            for before, link in enumerate(out):
                link.top = y + _thick(out[:before])
            y += max(tall, 6) + GAP
        bottom = max(bottom, y)
    return Diagram(WIDTH, bottom, tuple(nodes.values()), tuple(_bands(links, nodes)))


def _columns(flows: Sequence[Flow]) -> list[list[str]]:
    """Names by how many steps they are from the start, in the order in which the flows name them."""
    column: dict[str, int] = {}
    for flow in flows:
        column.setdefault(flow.source, 0)
        column[flow.target] = max(column.get(flow.target, 0), column[flow.source] + 1)
    return [[name for name in column if column[name] == place] for place in range(max(column.values()) + 1)]


def _sums(flows: Sequence[Flow], end: str) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for flow in flows:
        sums[getattr(flow, end)] += flow.amount
    return sums


def _thick(links: Sequence[_Link]) -> float:
    return sum(link.thick for link in links)


def _bands(links: Sequence[_Link], nodes: dict[str, Node]) -> list[Band]:
    got: defaultdict[str, float] = defaultdict(float)
    bands = []
    for link in links:
        flow, y0 = link.flow, link.top
        x0, x1 = nodes[flow.source].x + BAR, nodes[flow.target].x
        y1 = nodes[flow.target].y + got[flow.target]
        got[flow.target] += link.thick
        middle = (x0 + x1) / 2
        path = (
            f"M{x0:.1f},{y0:.1f} C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f} "
            f"v{link.thick:.1f} C{middle:.1f},{y1 + link.thick:.1f} {middle:.1f},{y0 + link.thick:.1f} "
            f"{x0:.1f},{y0 + link.thick:.1f} Z"
        )
        bands.append(Band(flow.source, flow.target, flow.amount, flow.tone, path))
    return bands
