"""Steps of hours share the stores; a switch of models has them to itself, between two steps.

An advisory lock of the operating system (`flock`), freed where its holder dies. A home on a network file system needs
one that carries such locks, as NFS 4 does.
"""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import IO

from sosie.errors import StoreBusy
from sosie.locks import unheld
from sosie.settings import Settings, live_models

_PAUSE = 0.1
_alone: ContextVar[frozenset[Path]] = ContextVar("homes that this context switches", default=frozenset())
_shared: ContextVar[Mapping[Path, IO[str]]] = ContextVar("locks that this context shares", default=MappingProxyType({}))


def switching(settings: Settings) -> bool:
    """Whether this context has the stores to itself, for a switch of models."""
    return settings.home in _alone.get()


@contextmanager
def sharing(settings: Settings) -> Iterator[None]:
    """Held by a step. Waits while models are switched; raises `StoreBusy` where the step's own are no longer live."""
    if switching(settings):
        yield
        return
    with _locked(settings, fcntl.LOCK_SH, "a switch of models to end") as stream:
        _still_live(settings)
        token = _shared.set({**_shared.get(), settings.home: stream})
        try:
            yield
        finally:
            _shared.reset(token)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Held by a switch: no step runs meanwhile but our own. Raises `StoreBusy` where steps leave no gap.

    A step may ask for it: it gives up its share first, so that two that ask never wait for each other. A switch may get
    in between; then this raises `StoreBusy` too, as the step's models are no longer live.
    """
    awaited = "the steps of an hour to end"
    token = _alone.set(_alone.get() | {settings.home})
    try:
        if (stream := _shared.get().get(settings.home)) is not None:
            _take(stream, fcntl.LOCK_EX, settings, awaited)
            try:
                _still_live(settings)
                yield
            finally:
                _take(stream, fcntl.LOCK_SH, settings, awaited)
        else:
            with _locked(settings, fcntl.LOCK_EX, awaited):
                _still_live(settings)
                yield
    finally:
        _alone.reset(token)


@contextmanager
def _locked(settings: Settings, kind: int, awaited: str) -> Iterator[IO[str]]:
    path = settings.home / "registry" / "switch.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a")
    except OSError as error:
        raise unheld(path, error) from error
    with opened as stream:  # closing it frees the lock
        _take(stream, kind, settings, awaited)
        yield stream


def _take(stream: IO[str], kind: int, settings: Settings, awaited: str) -> None:
    seconds = settings.rebuild.wait_seconds
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise StoreBusy(
                    f"Waited {seconds:.0f} s for {awaited} (lock {stream.name}). Run it again; what was done is kept. "
                    "`rebuild.wait_seconds` says how long to wait."
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:
            raise unheld(Path(stream.name), error) from error
        else:
            return


def _still_live(settings: Settings) -> None:
    """A process reads once which models are live; one that was started before a switch must not go on by the old."""
    live = live_models(settings.home)
    if not settings.models_pinned and settings.models != live:
        raise StoreBusy(
            f"The models were switched from {settings.models.name} to {live.name} since this process started. "
            "Run the step again: it goes on by the new ones, and nothing is lost."
        )
