"""Where the hour's listings and pairs went, as Sankey diagrams and as the rows that they are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sosie.places import write_atomically
from sosie.report.counts import Counts

PLOTLY = "plotly.min.js"


@dataclass(frozen=True)
class Flow:
    """`amount` of things go from `source` to `target`; `tone` names a colour of the page's theme.

    A `deep` one only says again where its source ends up; a narrow page leaves it out.
    """

    source: str
    target: str
    amount: int
    tone: str
    deep: bool = False


def listing_flow(count: Counts) -> list[Flow]:
    """Rows read → accepted or quarantined → what changed → what that costs."""
    embedded, nothing = "Embedded anew", "No work"
    kinds = (
        ("New", "new", embedded, "work"),
        ("New title", "text", embedded, "work"),
        ("New picture", "image", embedded, "work"),
        ("New title and picture", "text_and_image", embedded, "work"),
        ("Price or details only", "attributes", "Decided again", "light"),
        ("Deleted", "deleted", "Taken out of the index", "light"),
        ("Unchanged", "unchanged", nothing, "idle"),
        ("Late (newer known)", "stale", nothing, "idle"),
        ("Superseded in the hour", "superseded", nothing, "idle"),
    )
    flows = [
        Flow("Rows read", "Accepted", count("validate.rows_accepted"), "idle"),
        Flow("Rows read", "Quarantined", count("validate.rows_quarantined"), "bad"),
    ]
    flows += [Flow("Accepted", label, count(f"detect_changes.{name}"), tone) for label, name, _, tone in kinds]
    flows += [
        Flow(label, target, count(f"detect_changes.{name}"), tone, deep=True) for label, name, target, tone in kinds
    ]
    return [flow for flow in flows if flow.amount > 0]


def pair_flow(count: Counts) -> list[Flow]:
    """Candidate pairs → verdicts."""
    flows = [
        Flow("Candidate pairs", "Match", count("match.match"), "good"),
        Flow("Candidate pairs", "Needs a person", count("match.review"), "warn"),
        Flow("Candidate pairs", "No match", count("match.no_match"), "idle"),
    ]
    return [flow for flow in flows if flow.amount > 0]


def sankey(flows: Sequence[Flow], *, label: str) -> str:
    """The diagram as Plotly's JSON, or "" where nothing flowed. Colours are tones that the page's theme fills in."""
    if not flows:
        return ""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(name for flow in flows for name in (flow.source, flow.target)))
    place = {name: i for i, name in enumerate(names)}
    # A node holds what flows in, or, at the start, what flows out; its tone is that of what reaches it.
    amount = {
        name: sum(f.amount for f in flows if f.target == name) or sum(f.amount for f in flows if f.source == name)
        for name in names
    }
    tone = {name: next((f.tone for f in reversed(flows) if f.target == name), "idle") for name in names}
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            node={
                "align": "left",
                "label": [f"{name} {amount[name]:,}" for name in names],
                "customdata": [tone[name] for name in names],
                "pad": 18,
                "thickness": 12,
                "line": {"width": 0},
                "hovertemplate": "%{label}<extra></extra>",
            },
            link={
                "source": [place[flow.source] for flow in flows],
                "target": [place[flow.target] for flow in flows],
                "value": [flow.amount for flow in flows],
                "customdata": [flow.tone for flow in flows],
                "hovertemplate": "%{source.label} → %{target.label}: %{value:,}<extra></extra>",
            },
        ),
        layout={"margin": {"l": 4, "r": 4, "t": 12, "b": 12}, "template": None, "meta": label},
    )
    return str(figure.to_json())


@lru_cache(maxsize=1)
def plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def place_plotly(assets: Path) -> Path:
    """Write Plotly's script once for all reports; a report mailed without it shows the tables instead."""
    target = assets / PLOTLY
    script = plotly_js().encode()
    if not target.is_file() or target.stat().st_size != len(script):
        write_atomically(target, script)
    return target
