"""Templates to responses: everything that a stranger wrote is escaped, and no script but ours runs."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from sosie.page.people import Person
from sosie.report import words
from sosie.report.templating import TEMPLATES, environment
from sosie.review_queue import CAUSES, MEANING

HERE = Path(__file__).parent
STATIC = {file.name: file for file in (*sorted((HERE / "static").iterdir()), TEMPLATES / "flow.css")}
"""Files that the pages load, by name."""

# The page shares an origin with Airflow's API: it may load nothing but its own files, and send nowhere but to itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = environment(HERE / "templates")
    made.filters.update(path=lambda text: quote(text, safe=""), ago=ago)
    made.globals.update(causes=CAUSES, meaning=MEANING, spark=spark, asset=_asset_version())
    return made


def show(request: Request, person: Person, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The template as a response. `root` is where the page is mounted."""
    html = (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(root=request.scope.get("root_path", ""), person=person, here=template, **context)
    )
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def go(request: Request, place: str, status: int = 303) -> RedirectResponse:
    """To another place below where the page is mounted: after a form, to what it changed."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/{place}", status)


def ago(seconds: float) -> str:
    """How long since, in one unit."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return words.plural(int(seconds // length), unit) + " ago"
    return "just now"


def spark(values: list[float], width: int = 120, height: int = 28) -> str:
    """Points of a polyline over `values`, oldest left, within `width` × `height` pixels."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span, step = (high - low) or 1.0, width / max(1, len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{height - 2 - (value - low) / span * (height - 4):.1f}"
        for place, value in enumerate(values)
    )


def _asset_version() -> str:
    """Changes with the files, so that a browser may keep them for ever."""
    digest = hashlib.sha256()
    for file in STATIC.values():
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
