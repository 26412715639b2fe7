"""PostgreSQL and Redis as a deployment has them, on loopback, for as long as a test lasts."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SECONDS = 60
PROGRAMS = ("initdb", "postgres", "redis-server")


def missing() -> list[str]:
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    """On the PATH, or where Debian keeps PostgreSQL's own."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


def free_port() -> int:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + SECONDS
            while True:
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def postgres() -> Iterator[str]:
    """Yields `host:port` of a server whose user `sosie` (no password, loopback only) owns `airflow` and `feast`."""
    with tempfile.TemporaryDirectory(prefix="sosie-pg") as folder:
        # PostgreSQL refuses to run as root.
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if as_user:
            shutil.chown(folder, "postgres")
        data, port = f"{folder}/data", free_port()
        initdb, server, createdb = (_program(name) or name for name in ("initdb", "postgres", "createdb"))
        subprocess.run(
            [*as_user, initdb, "-D", data, "-U", "sosie", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        command = [*as_user, server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]
        with tempfile.TemporaryDirectory() as logs, _running(command, port, Path(logs) / "postgres.log"):
            asked = [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "sosie"]
            until = time.monotonic() + SECONDS
            while (told := subprocess.run([*asked, "airflow"], capture_output=True, text=True, check=False)).returncode:
                assert "starting up" in told.stderr, told.stderr
                assert time.monotonic() < until, told.stderr
                time.sleep(0.2)
            subprocess.run([*asked, "feast"], check=True)
            yield f"127.0.0.1:{port}"


@contextmanager
def redis() -> Iterator[str]:
    """Yields `host:port` of a server that keeps nothing."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        program = _program("redis-server") or "redis-server"
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with _running(command, port, Path(folder) / "redis.log"):
            yield f"127.0.0.1:{port}"
