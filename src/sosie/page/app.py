"""The routes put together, on an app of their own or on one that has others."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from sosie.errors import SosieError, TransientError
from sosie.page.leases import Leases
from sosie.page.models import Mover
from sosie.page.people import Identify, Person, Refused
from sosie.page.render import show
from sosie.page.store import Store
from sosie.page.thumbnails import Pictures
from sosie.settings import Settings

Links = Callable[[str], list[tuple[str, str]]]
"""Of an hour: what its links to the scheduler's own pages are called, and where they lead."""


@dataclass(frozen=True)
class Page:
    """What every route needs."""

    settings: Settings
    identify: Identify
    links: Links = lambda _: []
    reports: bool = False

    @cached_property
    def store(self) -> Store:
        return Store(self.settings)

    @cached_property
    def leases(self) -> Leases:
        return Leases(self.settings.home / "page" / "leases.db")

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.store)

    @cached_property
    def mover(self) -> Mover:
        return Mover(self.store)


def install(
    app: FastAPI, settings: Settings, identify: Identify, links: Links = lambda _: [], *, reports: bool = False
) -> Page:
    """Add the page's routes to `app`, and have its errors told in one sentence.

    `reports`: `app` itself serves what lies below `settings.reports`, so that an hour can link there.
    """
    from sosie.page.routes import assets, clusters, models, review, runs

    page = Page(settings, identify, links, reports)
    for part in (review, clusters, runs, models, assets):
        app.include_router(part.routes(page))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(SosieError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    return page


def build(settings: Settings, identify: Identify, links: Links = lambda _: []) -> FastAPI:
    """The page as an app of its own."""
    app = FastAPI(title="Sosie", docs_url=None, redoc_url=None, openapi_url=None)
    install(app, settings, identify, links)
    return app


def _told(request: Request, status: int, sentence: str, back: str = "/review") -> Response:
    return show(request, Person(""), "message", status=status, sentence=sentence, back=back)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _told(request, error.status, error.sentence, error.back)


def _failed(request: Request, error: Exception) -> Response:
    return _told(request, 503 if isinstance(error, TransientError) else 400, str(error))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    name = str(fault["loc"][-1])
    return _told(request, 422, f"The request's {name!r} can't be used: {fault['msg'].lower()}.")
