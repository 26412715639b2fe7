"""Hours: a list, one in full, and what was refused sent through again."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response

from sosie import replay
from sosie.hours import PATTERN
from sosie.page import hours
from sosie.page.people import Person, judges
from sosie.page.render import go, show
from sosie.report import charts, words
from sosie.report.gather import broken_rules

if TYPE_CHECKING:
    from sosie.page.app import Page

# An hour's name becomes part of paths: nothing else may.
Hour = Annotated[str, InPath(pattern=rf"^{PATTERN}$")]


def routes(page: "Page") -> APIRouter:
    router, store = APIRouter(), page.store
    reader, judge = Depends(page.identify), Depends(judges(page.identify))

    @router.get("/runs")
    def runs(
        request: Request,
        person: Annotated[Person, reader],
        number: Annotated[int, Query(ge=1, le=1_000_000, alias="page")] = 1,
    ) -> Response:
        found, total = hours.page(store, number)
        return show(
            request,
            person,
            "runs",
            hours=found,
            total=total,
            page=number,
            pages=max(1, -(-total // hours.PER_PAGE)),
            fresh=hours.fresh(store),
        )

    @router.get("/runs/{hour}")
    def run(request: Request, person: Annotated[Person, reader], hour: Hour) -> Response:
        found = hours.one(store, hour)
        count = found.count
        has_report, checks = hours.report_of(store, hour)
        return show(
            request,
            person,
            "run",
            hour=found,
            count=count,
            headline=words.headline(count),
            flows=charts.diagrams(count),
            steps=found.row["steps"],
            broken=[(one, replay.replays(store.settings, hour, one.rule)) for one in broken_rules(store.lake, hour)],
            drift=hours.drift(store, found),
            unbalanced=[balance for balance in count.balances if not balance.holds],
            has_report=has_report and page.reports,
            checks=checks if page.reports else None,
            links=page.links(hour),
        )

    @router.post("/runs/{hour}/replay")
    def again(
        request: Request,
        person: Annotated[Person, judge],
        hour: Hour,
        rule: Annotated[str, Form(min_length=1, max_length=100)],
    ) -> Response:
        replay.replay(store.settings, hour, rule)
        return go(request, f"runs/{hour}#quarantine")

    return router
