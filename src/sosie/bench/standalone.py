"""A Milvus server of one's own for tests and benchmarks, where no cluster is at hand: the standalone one of 2.3.5.

It comes in the package `milvus` and needs no container. It has no login and listens on every interface, so it gets a
network of its own (a Linux network namespace), of which nothing but one port of this machine's loopback leads in.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from sosie.errors import IndexUnavailable
from sosie.index.server import HOST, answers

PORT = 19530
_START_SECONDS, _STOP_SECONDS, _CHUNK = 120.0, 15.0, 1 << 16
_SESSION = {"COMMON_SESSION_TTL": "15"}
"""Seconds for which a server that is started again waits for the nodes that it had before; its own setting is 30."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def missing() -> str | None:
    """Why this machine can't have one; None where it can."""
    if find_spec("milvus") is None:
        return "the package milvus is not installed (it is there for Linux on x86-64)"
    unshare = shutil.which("unshare")
    if unshare is None:
        return "there is no `unshare` (util-linux)"
    tried = subprocess.run([unshare, "--user", "--map-root-user", "--net", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no network namespace can be made ({tried.stderr.strip()})"


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Yield the URI of a server that keeps its data in `folder`, and stop it afterwards.

    Raises `IndexUnavailable` where it can't be had, or does not come up.
    """
    if why := missing():
        raise IndexUnavailable(f"No Milvus server can be started here: {why}.")
    folder.mkdir(parents=True, exist_ok=True)
    inside = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", __name__]
    with socket.create_server((HOST, 0)) as door, (folder / "standalone.log").open("wb") as log:
        port = door.getsockname()[1]
        # It ends when our end of its standard input closes, and so also where we are killed.
        process = subprocess.Popen(
            [*inside, str(door.fileno()), str(folder.resolve())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[door.fileno()],
            start_new_session=True,
            env=os.environ | _SESSION,
        )
    assert process.stdin is not None
    try:
        if not answers(port, _START_SECONDS, lambda: process.poll() is None):
            raise IndexUnavailable(f"The Milvus server in {folder} does not answer; see its standalone.log.")
        yield f"http://{HOST}:{port}"
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _pass_on(door: socket.socket) -> None:
    """Join each connection that comes in at `door` to one with the server, until standard input ends."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        # Either side may hang up at any time.
        with suppress(ConnectionError), closing(target):
            while piece := await source.read(_CHUNK):
                target.write(piece)
                await target.drain()

    async def joined(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, there = await asyncio.open_connection(HOST, PORT)
        except ConnectionError:  # it is starting
            back.close()
            return
        await asyncio.gather(copy(client, there), copy(server, back))

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(sys.stdin.fileno(), ended.set)
    async with await asyncio.start_server(joined, sock=door):
        await ended.wait()


def main(descriptor: str, folder: str) -> None:
    """In the namespace: raise its loopback, start the server, let connections in."""
    from milvus import MilvusServer, MilvusServerConfig

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    with socket.socket(fileno=int(descriptor)) as door:
        server = MilvusServer(MilvusServerConfig(data_dir=folder, proxy_port=PORT), wait_for_started=False)
        server.start()
        try:
            asyncio.run(_pass_on(door))
        finally:
            server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
