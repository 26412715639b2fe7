"""Sosie's pages inside Airflow: under `/sosie/`, with a link in the navigation, the report as a tab on every run, and
metrics for Prometheus at `/sosie/metrics`.

Every Airflow process loads this file, so it imports nothing; the app is built on its first request.
"""

from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/sosie"
BASE = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


@cache
def _pages() -> Any:
    from sosie.airflow import pages
    from sosie.settings import settings

    return pages.build(settings())


@cache
def _metrics() -> Any:
    from sosie.airflow import metrics
    from sosie.settings import settings

    return metrics.build(settings())


async def app(scope: Any, receive: Any, send: Any) -> None:
    # A scraper has no login, so its page must not stand behind the one of the reports.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    await (_metrics() if path == "/metrics" else _pages())(scope, receive, send)


class SosiePlugin(AirflowPlugin):
    name = "sosie"
    fastapi_apps: ClassVar[list[Any]] = [{"app": app, "url_prefix": PREFIX, "name": "Sosie"}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Sosie",
            "href": f"{BASE}{PREFIX}/",
            "destination": "nav",
            "url_route": "sosie",
        },
        {
            "name": "Report",
            "href": f"{BASE}{PREFIX}/of/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "sosie-report",
        },
    ]
