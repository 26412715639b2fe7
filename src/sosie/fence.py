"""Steps of hours share the stores; a switch of models has them to itself, between two steps.

An advisory lock of the operating system (`flock`), freed where its holder dies. A home on a network file system needs
one that carries such locks, as NFS 4 does.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sosie.errors import StoreBusy
from sosie.settings import PROJECT, Settings, live_models

_PAUSE = 0.1
_alone: ContextVar[frozenset[Path]] = ContextVar("homes that this context switches", default=frozenset())


@contextmanager
def sharing(settings: Settings) -> Iterator[None]:
    """Held by a step. Waits while models are switched; raises `StoreBusy` where the step's own are no longer live."""
    if settings.home in _alone.get():
        yield
        return
    with _locked(settings, fcntl.LOCK_SH, "a switch of models to end"):
        _still_live(settings)
        yield


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Held by a switch: no step runs meanwhile but our own. Raises `StoreBusy` where steps leave no gap."""
    with _locked(settings, fcntl.LOCK_EX, "the steps of an hour to end"):
        token = _alone.set(_alone.get() | {settings.home})
        try:
            yield
        finally:
            _alone.reset(token)


@contextmanager
def _locked(settings: Settings, kind: int, awaited: str) -> Iterator[None]:
    path = settings.home / "registry" / "switch.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + settings.rebuild.wait_seconds
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreBusy(
                        f"Waited {settings.rebuild.wait_seconds:.0f} s for {awaited} (lock {path}). "
                        "Run it again; what was done is kept. `rebuild.wait_seconds` says how long to wait."
                    ) from None
                time.sleep(_PAUSE)
        yield  # closing the file frees the lock


def _still_live(settings: Settings) -> None:
    """A process reads once which models are live; one that was started before a switch must not go on by the old."""
    live = live_models(settings.home)
    follows = settings.models == PROJECT / "models" or settings.models.parent == settings.home / "registry"
    if follows and settings.models != live:
        raise StoreBusy(
            f"The models were switched from {settings.models.name} to {live.name} since this process started. "
            "Run the step again: it goes on by the new ones, and nothing is lost."
        )
