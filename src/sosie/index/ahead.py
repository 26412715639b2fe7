"""The embedded index made ready beside what an hour does before it needs it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import structlog

from sosie.index import VectorIndex, server
from sosie.settings import Settings
from sosie.tables import MODALITIES

log = structlog.get_logger("sosie")


@contextmanager
def ahead(settings: Settings) -> Iterator[None]:
    """Start the server and let it read its collections, which takes seconds where they are large.

    Where that goes wrong nothing is raised here: who needs the index tries again, and says why. Nothing is written, as
    no step of an hour keeps a switch of models away meanwhile.
    """
    with ExitStack() as served, ThreadPoolExecutor(1) as thread:
        start = thread.submit(_ready, served, settings)
        yield
        if failure := start.exception():
            log.warning("the index was not made ready ahead", reason=str(failure))


def _ready(served: ExitStack, settings: Settings) -> None:
    uri = served.enter_context(server.serve(settings))
    if settings.milvus_uri is None:
        with VectorIndex(uri, timeout=settings.milvus_timeout_seconds) as index:
            for modality in MODALITIES:
                index.load(modality)
