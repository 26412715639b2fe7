"""Who asks, what they may do, and how they are told that they may not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request


@dataclass(frozen=True)
class Person:
    """Somebody who may read. `may_judge`: pairs, clusters, replays. `may_manage`: which models are live."""

    name: str
    may_judge: bool = False
    may_manage: bool = False


Identify = Callable[..., Person]
"""A FastAPI dependency; it raises where nobody is logged in, or somebody who may not even read."""


class Refused(Exception):
    """A request that is turned down, with the sentence that the person reads. `back` is a path to go on from."""

    def __init__(self, status: int, sentence: str, back: str = "/review") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.back = status, sentence, back


def same_origin(request: Request) -> None:
    """Raise `Refused` unless the browser says that our own page sent this form.

    The login is a cookie, which a browser also sends with a form of another site. `Sec-Fetch-Site` can't be forged by a
    page; a browser that does not send it (plain HTTP to a host of another name) still sends `Origin` with every POST.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        ours = site == "same-origin"
    else:
        origin = request.headers.get("origin")
        ours = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not ours:
        raise Refused(403, "This form was not sent from Sosie's own page, so nothing was changed; open the page again.")


def judges(identify: Identify) -> Identify:
    """The dependency of whatever changes judgements: same origin, and a person who may."""

    def judge(request: Request, person: Annotated[Person, Depends(identify)]) -> Person:
        same_origin(request)
        if not person.may_judge:
            raise Refused(
                403, f"{person.name} may read but not judge; that takes the right to trigger runs of the hourly DAG."
            )
        return person

    return judge


def manages(identify: Identify) -> Identify:
    """The dependency of whatever changes the live models."""

    def manage(request: Request, person: Annotated[Person, Depends(identify)]) -> Person:
        same_origin(request)
        if not person.may_manage:
            raise Refused(
                403,
                f"{person.name} may not change models; that takes the right to trigger runs of the training DAG.",
                "/models",
            )
        return person

    return manage
