"""`/sosie/metrics` inside Airflow's API server: for a scraper, which has a token and no login."""

import secrets
import time
from functools import lru_cache
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sosie import metrics
from sosie.settings import Settings


def build(settings: Settings) -> FastAPI:
    """The app of one page. Not there without `metrics.token`; refused to who doesn't send it."""
    app = FastAPI(title="Sosie metrics", docs_url=None, redoc_url=None, openapi_url=None)

    @lru_cache(maxsize=1)  # scrapers ask more often than the lake changes
    def told(_: int) -> str:
        return metrics.text(settings)

    @app.get("/metrics")
    def read(authorization: Annotated[str, Header()] = "") -> Response:
        token = settings.metrics.token
        if not token:
            raise HTTPException(404, "Metrics are off here: set SOSIE_METRICS__TOKEN, and send it as a bearer token.")
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(
                401, "Send the metrics token as a bearer token.", headers={"WWW-Authenticate": "Bearer"}
            )
        text = told(int(time.time() // max(settings.metrics.cache_seconds, 1.0)))
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return app
