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
"""


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
