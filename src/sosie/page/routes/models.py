"""Models: what is live, what could be, and the two moves."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from sosie.page import models
from sosie.page.people import Person, Refused, manages
from sosie.page.render import go, show

if TYPE_CHECKING:
    from sosie.page.app import Page


def routes(page: "Page") -> APIRouter:
    router, store, mover = APIRouter(), page.store, page.mover
    reader, manage = Depends(page.identify), Depends(manages(page.identify))

    @router.get("/models")
    def listed(request: Request, person: Annotated[Person, reader]) -> Response:
        job = mover.job  # before what it changes is read, so that a job told as done is seen done
        return show(
            request, person, "models", told=models.told(store), job=job, figures=models.FIGURES, figure=models.figure,
            side=models.SIDE, pinned=store.settings.models if store.settings.models_pinned else None,
        )  # fmt: skip

    @router.get("/models/rollback")
    def ask_back(request: Request, person: Annotated[Person, reader]) -> Response:
        return show(request, person, "confirm", told=None, live=_live(), figures=models.FIGURES)

    @router.get("/models/{id_}")
    def ask(request: Request, person: Annotated[Person, reader], id_: str) -> Response:
        return show(request, person, "confirm", told=_one(id_), live=_live(), figures=models.FIGURES)

    @router.post("/models/rollback")
    def back(
        request: Request, person: Annotated[Person, manage], confirmed: Annotated[bool, Form()] = False
    ) -> Response:
        _sure(confirmed, "/models/rollback")
        mover.rollback(person.name)
        return go(request, "models")

    @router.post("/models/{id_}")
    def promote(
        request: Request,
        person: Annotated[Person, manage],
        id_: str,
        confirmed: Annotated[bool, Form()] = False,
        despite_gate: Annotated[bool, Form()] = False,
    ) -> Response:
        _one(id_)
        _sure(confirmed, f"/models/{id_}")
        mover.promote(id_, person.name, despite_gate=despite_gate)
        return go(request, "models")

    def _one(id_: str) -> models.Told:
        found = [one for one in models.told(store) if one.id == id_ and one.candidate]
        if not found:
            raise Refused(404, f"There is no candidate {id_!r} in the registry.", "/models")
        return found[0]

    def _live() -> models.Told:
        return models.told(store)[0]

    return router


def _sure(confirmed: bool, back: str) -> None:
    if not confirmed:
        raise Refused(400, "Nothing was changed: tick the box that says that you mean it.", back)
