"""Pictures, the style sheet and the script: all by names that change with their content."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response

from sosie.page.people import Person
from sosie.page.render import STATIC, go
from sosie.page.thumbnails import MIDDLE

if TYPE_CHECKING:
    from sosie.page.app import Page

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes(page: "Page") -> APIRouter:
    router = APIRouter()
    reader = Depends(page.identify)

    @router.get("/")
    def start(request: Request, _: Annotated[Person, reader]) -> Response:
        return go(request, "review", 307)

    @router.get("/static/{name}")
    def static(name: str, _: Annotated[Person, reader]) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "No such file.")
        return FileResponse(STATIC[name], media_type=KINDS[STATIC[name].suffix], headers=FOREVER)

    @router.get("/picture/{image_hash}")
    def picture(
        request: Request,
        image_hash: Annotated[str, InPath(pattern="^[0-9a-f]{64}$")],
        _: Annotated[Person, reader],
        side: Annotated[int, Query()] = MIDDLE,
    ) -> Response:
        tag = f'"{image_hash[:32]}-{side}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={**FOREVER, "ETag": tag})
        file = page.pictures.file(image_hash, side)
        return FileResponse(file, media_type="image/jpeg", headers={**FOREVER, "ETag": tag})

    return router
