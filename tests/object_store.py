"""An S3-compatible server on loopback, for as long as a test lasts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import fsspec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer


@contextmanager
def s3(*buckets: str) -> Iterator[dict[str, str]]:
    """Yields the environment that reaches it. The server's files are in memory, and go with it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
        }
        store = filesystem(environment)
        for bucket in buckets:
            store.mkdir(bucket)
        yield environment
    finally:
        server.stop()


def filesystem(environment: dict[str, str]) -> fsspec.AbstractFileSystem:
    """A client that remembers no listing."""
    return fsspec.filesystem(
        "s3",
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )


@contextmanager
def busy(part: str) -> Iterator[None]:
    """Meanwhile the server answers 503 to who reads an object with `part` in its name."""
    answer = DomainDispatcherApplication.__call__

    def answered(self: DomainDispatcherApplication, environ: dict[str, Any], start: Any) -> Any:
        if part in environ["PATH_INFO"] and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            start("503 Service Unavailable", [("Content-Length", "0")])
            return []
        return answer(self, environ, start)

    with mock.patch.object(DomainDispatcherApplication, "__call__", answered):
        yield
