"""Locks between processes: what is said where one can't be had, and whether to try again."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import pytest
from filelock import FileLock

from sosie import fence
from sosie.errors import SosieError, StoreBusy, TerminalError
from sosie.locks import exclusive, is_held
from sosie.settings import load

LOCKS: dict[str, Callable[[Path], AbstractContextManager[object]]] = {
    "exclusive": lambda home: exclusive(home / "registry" / "lock", 1, "promoting models"),
    "shared": lambda home: fence.sharing(load(home=home)),
    "alone": lambda home: fence.alone(load(home=home)),
}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ESTALE, StoreBusy),
        (errno.ENOSPC, StoreBusy),
        (errno.EIO, StoreBusy),
        (errno.ENOLCK, StoreBusy),
        (errno.EROFS, TerminalError),
        (errno.EPERM, TerminalError),
    ],
)
def test_a_file_system_that_may_recover_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str, number: int, kind: type[SosieError]
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(kind, match=f"The lock .* can't be held \\({os.strerror(number)}"), LOCKS[lock](tmp_path):
        pass


@pytest.mark.parametrize("lock", LOCKS)
def test_a_folder_that_is_a_file_needs_a_person(tmp_path: Path, lock: str) -> None:
    (tmp_path / "registry").touch()
    with pytest.raises(TerminalError, match=r"Make .*registry a folder"), LOCKS[lock](tmp_path):
        pass


def test_what_is_said_to_have_taken_time_is_our_waiting(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(StoreBusy, match=r"Waited 0\.2 s for another process that is promoting"),
    ):
        exclusive(tmp_path / "lock", 0.2, "promoting models").__enter__()


def test_a_step_whose_models_were_switched_while_it_asked_to_be_alone_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave up its share, and a switch that had waited longer got in first."""
    step, take = load(home=tmp_path), fence._take

    def after_a_switch(stream: IO[str], kind: int, *others: Any) -> None:
        if kind == fcntl.LOCK_EX:
            switched = {"id": "new", "versions": {}, "moves": []}
            (tmp_path / "registry" / "live.json").write_text(json.dumps(switched))
        take(stream, kind, *others)

    monkeypatch.setattr(fence, "_take", after_a_switch)
    stopped = pytest.raises(StoreBusy, match="switched from models to new since this process started")
    with stopped, fence.sharing(step), fence.alone(step):
        pass
    pinned = load(home=tmp_path, models=step.models)
    with fence.sharing(pinned), fence.alone(pinned):
        assert fence.switching(pinned)


def test_whether_a_lock_is_held_is_asked_without_making_or_keeping_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    assert not lock.exists()
    with exclusive(lock, 1, "promoting models"):
        assert is_held(lock)
    assert not is_held(lock)
    with exclusive(lock, 1, "promoting models"):
        pass
