"""Clusters: searched by words, by seller or by a picture; told; taken apart and joined by hand."""

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote, urlencode

import polars as pl
from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import Response

from sosie.page import catalogue, judging, lookalikes
from sosie.page.people import Person, Refused, judges, same_origin
from sosie.page.render import go, show
from sosie.report import words
from sosie.tables import CLUSTERS

if TYPE_CHECKING:
    from sosie.page.app import Page

Text = Annotated[str, Query(max_length=200)]
Id = Annotated[str, Form(min_length=1, max_length=512)]


def routes(page: "Page") -> APIRouter:
    router, store = APIRouter(), page.store
    reader, judge = Depends(page.identify), Depends(judges(page.identify))

    @router.get("/clusters")
    def clusters(
        request: Request,
        person: Annotated[Person, reader],
        q: Text = "",
        seller: Text = "",
        order: Annotated[Literal["largest", "latest"], Query()] = "largest",
        number: Annotated[int, Query(ge=1, le=1_000_000, alias="page")] = 1,
    ) -> Response:
        found = catalogue.search(store, q, seller, order, number)
        return show(
            request,
            person,
            "clusters",
            found=found,
            q=q,
            seller=seller,
            order=order,
            orders=catalogue.ORDERS,
            page=number,
            pages=max(1, -(-found.total // catalogue.PER_PAGE)),
            near=None,
            query=lambda **more: urlencode({"q": q, "seller": seller, "order": order, **more}),
        )

    @router.post("/clusters/lookalikes")
    def alike(request: Request, person: Annotated[Person, reader], picture: Annotated[UploadFile, File()]) -> Response:
        same_origin(request)
        limit = store.settings.validation.max_picture_bytes
        data = picture.file.read(limit + 1)
        if not data:
            raise Refused(400, "No picture was chosen.", "/clusters")
        if len(data) > limit:
            raise Refused(413, f"The picture has more than {words.size(limit)}; send a smaller one.", "/clusters")
        near = lookalikes.find(store, data)
        return show(request, person, "lookalikes", near=near, name=picture.filename or "the picture")

    @router.get("/clusters/{cluster_id}")
    def cluster(request: Request, person: Annotated[Person, reader], cluster_id: str) -> Response:
        found = catalogue.cluster(store, cluster_id)
        return show(request, person, "cluster", cluster=found, labels=words.reasons())

    @router.post("/clusters/{cluster_id}/split")
    def split(
        request: Request,
        person: Annotated[Person, judge],
        cluster_id: str,
        seen: Annotated[str, Form(max_length=64)],
        chosen: Annotated[list[str] | None, Form()] = None,
    ) -> Response:
        judging.split(store, person, cluster_id, chosen or [], seen)
        if store.lake.read(CLUSTERS, pl.col("cluster_id") == cluster_id).is_empty():  # a cluster of two is no more
            return go(request, f"clusters?{urlencode({'q': (chosen or [''])[0]})}")
        return _back(request, cluster_id)

    @router.post("/clusters/{cluster_id}/merge")
    def merge(request: Request, person: Annotated[Person, judge], cluster_id: str, other: Id) -> Response:
        judging.merge(store, person, cluster_id, other.strip())
        return _back(request, cluster_id)

    @router.post("/clusters/{cluster_id}/canonical")
    def canonical(request: Request, person: Annotated[Person, judge], cluster_id: str, listing: Id) -> Response:
        judging.choose_canonical(store, person, cluster_id, listing)
        return _back(request, cluster_id)

    return router


def _back(request: Request, cluster_id: str) -> Response:
    return go(request, f"clusters/{quote(cluster_id, safe='')}")
