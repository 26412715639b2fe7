"""The embedded Milvus: one `milvus-lite server` on loopback for all processes of one home, started when first needed.

Milvus Lite opens its folder for one process only, so the folder is behind a server. Who uses it holds a file lock under
`milvus/users/`; the operating system frees that lock even where the user dies by `kill -9`. The last user stops the
server. A server whose users all died is found by the next one, and used again: by its command in the table of
processes, as who starts one may die before it could write down which that is; and by the lock of Milvus Lite's that it
holds, as another may run on a folder of this name that was deleted, or is another container's.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped,unused-ignore]
from filelock import FileLock, Timeout

from sosie.errors import IndexUnavailable
from sosie.settings import Settings

HOST = "127.0.0.1"  # without --host it listens on every interface, and it has no login
_STOP_SECONDS = 10.0
_LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class _Server:
    """A server process, and where it listens."""

    process: psutil.Process
    port: int

    def lives(self) -> bool:
        """Also takes leave of it where it ended and is our child."""
        try:
            self.process.wait(0)
        except psutil.TimeoutExpired:
            return self._runs()
        return False

    def _runs(self) -> bool:
        """Whether it is there, and not a zombie that its parent takes no leave of."""
        try:
            return bool(self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def holds(self, lock: Path) -> bool:
        """Whether it has that very file open, not one of that name that is gone or lies elsewhere."""
        try:
            for file in self.process.open_files():
                there = Path(f"/proc/{self.process.pid}/fd/{file.fd}" if sys.platform == "linux" else file.path)
                if file.path == str(lock) and there.samefile(lock):
                    return True
        except (psutil.Error, OSError):
            return False  # it ended meanwhile, or is another user's
        return False

    def ends(self, seconds: float) -> bool:
        """Whether it is gone within `seconds`. psutil would wait on for one that a stranger leaves a zombie."""
        until = time.monotonic() + seconds
        while self.lives() and time.monotonic() < until:
            time.sleep(0.05)
        return not self.lives()


@dataclass(frozen=True)
class _Home:
    """Files of the embedded server."""

    folder: Path

    @property
    def data(self) -> Path:
        return (self.folder / "data").resolve()

    @property
    def lock(self) -> Path:
        """Milvus Lite's own."""
        return self.data / "LOCK"

    @property
    def users(self) -> Path:
        return self.folder / "users"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def arguments(self) -> list[str]:
        """Those of its server: what tells it from others. The number of its port follows."""
        return ["server", "--data-dir", str(self.data), "--host", HOST, "--port"]

    def guard(self, seconds: float) -> FileLock:
        """Held while a server is started, checked or stopped, never while it is used."""
        return FileLock(self.folder / "server.lock", timeout=seconds)


def folder(settings: Settings) -> Path:
    """Where the embedded server keeps its data, log and locks."""
    return settings.home / "milvus"


def process(settings: Settings) -> psutil.Process | None:
    """The living process of the embedded server; None where none runs."""
    server = _holder(_Home(folder(settings)))
    return server.process if server else None


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """Yield the URI of a Milvus that answers: `settings.milvus_uri`, or else the embedded server's.

    The embedded server is shared by all processes with the same `settings.home`; it is stopped when the last of them
    leaves. Raises `IndexUnavailable` with the end of the server's log where it does not come up in time.
    """
    if settings.milvus_uri:
        yield settings.milvus_uri
        return
    home = _Home(folder(settings))
    home.users.mkdir(parents=True, exist_ok=True)
    home.data.mkdir(parents=True, exist_ok=True)
    seconds = max(settings.milvus_timeout_seconds, 1.0)
    me = FileLock(home.users / f"{uuid4().hex}.lock", thread_local=False)
    try:
        # Two start-ups may be ahead of us in the queue: one that fails, and its successor.
        with home.guard(3 * (seconds + _STOP_SECONDS)):
            server = _running(home) or _started(home, seconds)
            me.acquire()
    except Timeout:
        raise IndexUnavailable(
            f"Another process has been starting or stopping Milvus in {home.folder} for too long. "
            f"See {home.log}; end that process and run the step again."
        ) from None
    try:
        yield f"http://{HOST}:{server.port}"
    finally:
        _leave(home, me)


def _leave(home: _Home, me: FileLock) -> None:
    """Give up our place; the last one out stops the server."""
    with home.guard(-1):
        me.release()
        Path(me.lock_file).unlink(missing_ok=True)
        if not _used(home) and (server := _holder(home)):
            _stop(server)


def _used(home: _Home) -> bool:
    """Whether a living process holds a place. Places of dead ones are swept away."""
    for path in home.users.glob("*.lock"):
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        path.unlink(missing_ok=True)
        lock.release()
    return False


def _named(home: _Home) -> Iterator[_Server]:
    """Servers whose command names this folder."""
    wanted = home.arguments
    psutil.process_iter.cache_clear()  # else it may hold one that ended for another that was given its number
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command[-len(wanted) - 1 : -1] == wanted:
            yield _Server(process, int(command[-1]))


def _holder(home: _Home) -> _Server | None:
    return next((server for server in _named(home) if server.holds(home.lock)), None)


def _running(home: _Home) -> _Server | None:
    """The server of this folder that answers. One that hangs is ended, unless somebody is using it."""
    for server in _named(home):
        answering = answers(server.port, 5.0, server.lives)
        if not server.holds(home.lock):  # asked once it answers: it takes the lock some time after it was started
            continue
        if answering:
            return server
        if _used(home):
            raise IndexUnavailable(
                f"The Milvus server in {home.folder} (process {server.process.pid}, port {server.port}) does not "
                "answer, and other processes are using it. Wait for them or end them, then run the step again; its "
                f"log is {home.log}."
            )
        _stop(server)
    return None


def _swept(home: _Home) -> None:
    """Delete collections that a server began when it was killed: it could never make them, and `sosie upkeep` can."""
    lock = FileLock(home.lock, timeout=0)
    with suppress(Timeout), lock:
        for collection in (home.data / "collections").glob("*"):
            if not (collection / "schema.json").exists():
                shutil.rmtree(collection)


def _started(home: _Home, seconds: float) -> _Server:
    """Start a server and wait until it answers; leave none behind where it does not."""
    _swept(home)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    binary = Path(sys.executable).with_name("milvus-lite")
    command = [str(binary), *home.arguments, str(port)]
    with home.log.open("wb") as log:
        try:
            # A session of its own: Ctrl-C in a terminal is for us, who then stop the server in order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise IndexUnavailable(
                f"{binary} can't be started ({error}). Install milvus-lite, or point SOSIE_MILVUS_URI at a Milvus."
            ) from error
    try:
        if not answers(port, seconds, lambda: process.poll() is None):
            code = process.poll()
            fate = f"ended with code {code}" if code is not None else f"did not answer within {seconds:.0f} s"
            raise IndexUnavailable(
                f"The Milvus server in {home.folder} {fate}. Raise SOSIE_MILVUS_TIMEOUT_SECONDS if the machine is "
                f"slow, or mend what its log says ({home.log}):\n{_tail(home.log)}"
            )
    except BaseException:
        process.kill()
        process.wait()
        raise
    return _Server(psutil.Process(process.pid), port)


def answers(port: int, seconds: float, lives: Callable[[], bool]) -> bool:
    """Whether Milvus tells its version on `port` within `seconds`; gives up early once its process has ended."""
    import grpc  # type: ignore[import-untyped,unused-ignore]

    deadline = time.monotonic() + seconds
    # A raw call with an empty message: pymilvus takes seconds to import, and who serves may not need it.
    with grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        ask = channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")
        while time.monotonic() < deadline and lives():
            try:
                ask(b"", timeout=0.5, wait_for_ready=True)
            except grpc.RpcError:
                time.sleep(0.05)
                continue
            return lives()
    return False


def _stop(server: _Server) -> None:
    """End the server: an interrupt, upon which it closes its files; then SIGTERM; then SIGKILL.

    Every acknowledged write is in its log on disk, so the harder ends lose nothing; they make the next start slower.
    """
    for end in (_interrupt, psutil.Process.terminate, psutil.Process.kill):
        try:
            end(server.process)
        except psutil.NoSuchProcess:
            return
        if server.ends(_STOP_SECONDS):
            return


def _interrupt(process: psutil.Process) -> None:
    process.send_signal(signal.SIGINT)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(lines) if lines else "(its log is empty)"
