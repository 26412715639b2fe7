"""What can go wrong, by what to do about it.

    SosieError
    ├── TerminalError          trying again gives the same answer: stop, and tell a person
    │   ├── SettingsError      a setting is missing, unknown or contradicts another
    │   ├── BatchRejected      the landing batch as a whole can't be trusted; nothing was changed
    │   ├── SchemaMismatch     rows don't fit the table they were meant for
    │   ├── ModelError         weights are missing, damaged or of another shape
    │   ├── DatasetError       a labelled dataset can't be read
    │   └── UnknownListing     an id that the lake doesn't hold
    └── TransientError         the world was busy: trying again later can work
        ├── IndexUnavailable   Milvus can't be reached, or is not ready
        ├── IndexOutOfStep     the index doesn't hold what was just written to it
        └── StoreBusy          another writer holds a store, or it can't be reached or has no room

Some are told apart further where they arise: a picture's fault, a run of Airflow's that failed, a process that died.
A message says what is wrong, where, and what to do, in one sentence each. Airflow retries transient errors only.
What an object store's client raises by itself becomes a `StoreBusy` where `stores_told` stands around it.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager


class SosieError(Exception):
    """Every error that Sosie raises on purpose."""


class TerminalError(SosieError):
    """Trying again can't help."""


class TransientError(SosieError):
    """Trying again later can help."""


class SettingsError(TerminalError):
    """A setting is missing, unknown or contradicts another."""


class BatchRejected(TerminalError):
    """The landing batch can't be trusted as a whole; no table was changed."""


class SchemaMismatch(TerminalError):
    """Rows don't fit the table they were meant for."""


class ModelError(TerminalError):
    """Weights are missing, damaged or of another shape."""


class DatasetError(TerminalError):
    """A labelled dataset can't be read."""


class UnknownListing(TerminalError):
    """The lake holds no listing of that id."""


class IndexUnavailable(TransientError):
    """Milvus can't be reached, or is not ready."""


class IndexOutOfStep(TransientError):
    """The index doesn't hold what was just written to it."""


class StoreBusy(TransientError):
    """Another writer holds a store, or it can't be reached or has no room."""


PATH_REMEDY = "Give this user the right to use this path, or mend the setting or option it is from"


def names_path(error: BaseException) -> bool:
    """Whether the fault is a path that can't be used. Polars names it in its text alone."""
    return isinstance(error, OSError) and (error.filename is not None or isinstance(error, PermissionError))


_STORE_FAILED = re.compile(r"object[- ]store error: |Generic (S3|GCS|MicrosoftAzure) error", re.IGNORECASE)
"""What Polars and delta-rs say where an object store failed amid their work, in errors of several types."""

_CLIENTS = ("aiohttp", "azure", "botocore", "gcsfs")
"""Packages whose own errors fsspec lets through where a store gives no answer."""


def from_store(error: BaseException) -> bool:
    """Whether an object store's client raised an error, because the store was busy, away or refused."""
    is_busy = isinstance(error, OSError) and error.errno == errno.EBUSY  # as s3fs tells a 503
    return is_busy or type(error).__module__.partition(".")[0] in _CLIENTS or bool(_STORE_FAILED.search(str(error)))


def store_fault(error: BaseException) -> StoreBusy | None:
    """An object store's failure as an error of ours; None for what is none, or is ours already."""
    if isinstance(error, SosieError) or not from_store(error):
        return None
    return StoreBusy(
        f"A store can't be read ({cause(error)}). Mend its address, the network or the rights, then try again: every "
        "step can be run twice, nothing doubles."
    )


def cause(error: BaseException) -> str:
    """What an error says, in a line: delta-rs tells causes one below the other, with coloured arrows."""
    return " ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error)).split())[:500]


@contextmanager
def stores_told() -> Iterator[None]:
    """Raises `StoreBusy` for what an object store's client raises by itself. Also a decorator."""
    try:
        yield
    except Exception as error:
        if (busy := store_fault(error)) is None:
            raise
        raise busy from error
