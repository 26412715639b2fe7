"""Sosie's page and the reports of all runs, served inside Airflow, to whoever may read the DAG's runs there.

Imported by the API server alone, on the first request.
"""

import mimetypes
from html import escape
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dagrun import DagRun
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from sosie.airflow import DAG_ID, access, bridge
from sosie.page import install
from sosie.places import is_local
from sosie.settings import Settings
from sosie.validation import docs

# Reports hold sellers' words and share an origin with Airflow's API: whatever got into one may not talk to it.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
# Great Expectations' pages fetch scripts and styles from afar; they get an origin of their own, without the login.
DOCS_POLICY = "sandbox allow-scripts allow-popups; connect-src 'none'; form-action 'none'; frame-ancestors 'self'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Sosie · reports</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color-scheme: light dark }}
td, th {{ text-align: left; padding: .3rem 1.5rem .3rem 0; border-bottom: 1px solid #8884 }} table {{ border-collapse: collapse }}
</style><h1>Reports</h1>{body}</html>"""  # noqa: E501 a style sheet


def inside(root: Path, path: str) -> Path | None:
    """The file under `root` that `path` names, or a folder's `index.html`; None for what isn't there or leads out."""
    if "\0" in path:
        return None
    if not is_local(root):  # keys know no links; a name that climbs, or starts anew, is none
        found = root / path
        climbs = path.startswith("/") or ".." in PurePosixPath(path).parts or "://" in path
        found = found / "index.html" if not climbs and found.is_dir() else found
        return found if not climbs and found.is_file() else None
    root = root.resolve()
    found = (root / path).resolve()  # links are followed before they are judged
    if found.is_dir():
        found /= "index.html"
    return found if found.is_relative_to(root) and found.is_file() else None


def hours(root: Path) -> list[str]:
    """Run ids that have a report, the newest first."""
    return sorted((page.parent.name for page in root.glob("*/index.html")), reverse=True)


def build(settings: Settings) -> FastAPI:
    """The app over the lake and the reports folder. Every route asks Airflow's auth manager first."""
    root = settings.reports
    may_read = Depends(requires_access_dag("GET", DagAccessEntity.RUN, DAG_ID))
    app = FastAPI(title="Sosie", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[may_read])
    install(app, settings, access.person, access.links, reports=True)

    @app.get("/reports", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        rows = "".join(
            f'<tr><td><a href="{quote(hour)}/index.html">{escape(hour)}</a><td>'
            + (f'<a href="{quote(hour)}/{page}">checks of its rows</a>' if (page := docs.page_of(root, hour)) else "")
            for hour in hours(root)
        )
        body = (
            f"<table><tr><th>Hour (UTC)<th>Data Docs{rows}</table>"
            if rows
            else f"<p>No run has written a report yet. Trigger the DAG <code>{DAG_ID}</code>.</p>"
        )
        return HTMLResponse(_PAGE.format(body=body), headers=HEADERS)

    @app.get("/of/{dag_id}/{dag_run_id}")
    def of_run(
        dag_id: Annotated[str, InPath()], dag_run_id: Annotated[str, InPath()], session: SessionDep, request: Request
    ) -> Any:
        """The report of one of Airflow's runs: what its "Report" tab shows."""
        if dag_id != DAG_ID:
            return _told("This DAG writes no report of its own.")
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == dag_run_id))
        if run is None:
            raise HTTPException(404, "No such run.")
        hour = bridge.run_id({"dag_run": run})
        if inside(root, f"{hour}/index.html") is None:
            return _told(f"There is no report of hour {hour} yet: the task report writes it.")
        return RedirectResponse(f"{request.scope['root_path']}/{quote(hour)}/index.html", headers=HEADERS)

    @app.get("/{path:path}")
    def file(path: str, request: Request) -> Any:
        found = inside(root, path)
        if found is None:
            raise HTTPException(404, "No such report.")
        if found.name != Path(path).name:  # a folder: its page's links count from inside it
            return RedirectResponse(f"{request.scope['root_path']}/{quote(path.rstrip('/'))}/index.html")
        kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        policy = DOCS_POLICY if "data_docs" in Path(path).parts else POLICY
        headers = {**HEADERS, "Content-Security-Policy": policy}
        if not is_local(found):
            return Response(found.read_bytes(), media_type=kind, headers=headers)
        return FileResponse(found, media_type=kind, headers=headers)

    return app


def _told(sentence: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(body=f"<p>{escape(sentence)}</p>"), headers=HEADERS)
