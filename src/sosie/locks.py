"""One process at a time, where a store can't see to that itself."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sosie.errors import StoreBusy, TerminalError

_PASSES = {errno.EDQUOT, errno.EIO, errno.ENOLCK, errno.ENOSPC, errno.ESTALE}
"""Errors of a disk without room, or of a network file system whose server went: not of the folder as it is."""


@contextmanager
def exclusive(path: Path, seconds: float, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which the operating system frees where we die.

    Raises `StoreBusy` after `seconds`, and as `unheld` where the file can't be made, opened or locked.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StoreBusy(
            f"Waited {seconds:g} s for another process that is {what} and holds {path}. Wait for it or end it, then "
            "run the step again."
        ) from None
    except OSError as error:
        raise unheld(path, error) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock file `path` now. Asking makes no file."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def unheld(path: Path, error: OSError) -> StoreBusy | TerminalError:
    """What to raise where the lock file `path` can't be held: whether that can pass is for the error to say."""
    told = f"The lock {path} can't be held ({error.strerror or error})."
    if error.errno in _PASSES:
        return StoreBusy(f"{told} Make room, or wait for the file system's server; then run the step again.")
    return TerminalError(f"{told} Make {path.parent} a folder that this user can write, then run the step again.")
