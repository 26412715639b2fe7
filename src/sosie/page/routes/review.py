"""The queue: one pair in full, what comes next, and what a reviewer says."""

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlencode

import polars as pl
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from sosie.page import asking, judging
from sosie.page.people import Person, judges
from sosie.page.render import go, show
from sosie.pairs import ordered
from sosie.pipeline import veto
from sosie.review_queue import CAUSES
from sosie.tables import SIDES

if TYPE_CHECKING:
    from sosie.page.app import Page

PER_PAGE = 12
Cause = Literal["", "unsure", "weak_link", "cluster_too_large", "judged_different", "sample"]
Id = Annotated[str, Form(min_length=1, max_length=512)]


def routes(page: "Page") -> APIRouter:
    router, store, leases = APIRouter(), page.store, page.leases
    reader, judge = Depends(page.identify), Depends(judges(page.identify))

    @router.get("/review")
    def review(
        request: Request,
        person: Annotated[Person, reader],
        cause: Annotated[Cause, Query()] = "",
        left: Annotated[str, Query(max_length=512)] = "",
        right: Annotated[str, Query(max_length=512)] = "",
        number: Annotated[int, Query(ge=1, le=1_000_000, alias="page")] = 1,
    ) -> Response:
        """One pair in full: the named one, or the most valuable that nobody else is looking at."""
        everything = store.queue()
        counts = dict(everything.group_by("cause").len().iter_rows())
        waiting = everything.filter(pl.col("cause") == cause) if cause else everything
        if person.may_judge:
            waiting = waiting.join(leases.not_for(person.name), on=SIDES, how="anti", maintain_order="left")
        current, holder = (ordered(left, right), "") if left and right else (None, "")
        if current is None and waiting.height:
            current, holder = asking.first_free(leases, waiting, person)
        elif current is not None and person.may_judge:
            holder = leases.take(current, person.name)
        rest = waiting
        if current is not None:
            rest = waiting.filter((pl.col("left_id") != current[0]) | (pl.col("right_id") != current[1]))
        ahead = rest.slice((number - 1) * PER_PAGE, PER_PAGE).to_dicts()
        ids = {row[side] for row in ahead for side in SIDES} | set(current or ())
        items = store.listings(ids)
        mine = judging.latest_of(store, person) if person.may_judge else []
        if mine and judging.used(store, mine[0]["when"]):
            mine = []
        said = [(one["left_id"], one["right_id"]) for one in mine]
        return show(
            request,
            person,
            "review",
            counts={name: counts.get(name, 0) for name in CAUSES},
            total=everything.height,
            cause=cause,
            pair=asking.in_full(store, everything, current, items) if current else None,
            holder=holder if holder not in ("", person.name) else "",
            ahead=[{**row, "left": items[row["left_id"]], "right": items[row["right_id"]]} for row in ahead],
            page=number,
            pages=max(1, -(-rest.height // PER_PAGE)),
            mine=mine,
            together=bool(said) and veto.together(store.lake, said).height > 0,
        )

    @router.post("/review/judge")
    def judged(
        request: Request,
        person: Annotated[Person, judge],
        left: Id,
        right: Id,
        verdict: Annotated[Literal["same", "different"], Form()],
        seen: Annotated[str, Form(max_length=64)] = "",
        note: Annotated[str, Form(max_length=500)] = "",
        cause: Annotated[Cause, Form()] = "",
    ) -> Response:
        judging.judge(store, person, left, right, verdict, seen, note)
        leases.release(ordered(left, right), person.name)
        return _on(request, cause)

    @router.post("/review/skip")
    def skipped(
        request: Request, person: Annotated[Person, judge], left: Id, right: Id, cause: Annotated[Cause, Form()] = ""
    ) -> Response:
        leases.skip(ordered(left, right), person.name)
        return _on(request, cause)

    @router.post("/review/undo")
    def undone(request: Request, person: Annotated[Person, judge], cause: Annotated[Cause, Form()] = "") -> Response:
        left, right = judging.undo(store, person)
        return _on(request, cause, left=left, right=right)

    return router


def _on(request: Request, cause: str, **query: str) -> Response:
    told = urlencode({**({"cause": cause} if cause else {}), **query})
    return go(request, f"review{'?' if told else ''}{told}")
