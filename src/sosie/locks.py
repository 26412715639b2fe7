"""One process at a time, where a store can't see to that itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sosie.errors import StoreBusy, TerminalError


@contextmanager
def exclusive(path: Path, seconds: float, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which the operating system frees where we die.

    Raises `StoreBusy` after `seconds`, and `TerminalError` where the file can't be made or opened.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StoreBusy(
            f"Another process has been {what} for {seconds:.0f} s and holds {path}. Wait for it or end it, "
            "then run the step again."
        ) from None
    except OSError as error:
        raise TerminalError(
            f"The lock {path} can't be held ({error.strerror or error}). Make {path.parent} a folder that this user "
            "can write, then run the step again."
        ) from error
    try:
        yield
    finally:
        lock.release()
