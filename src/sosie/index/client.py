"""Calls to Milvus that have a time-out each, are tried again where that can help, and fail with our own errors."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_random_exponential

from sosie.errors import IndexOutOfStep, IndexUnavailable, TerminalError

# Numbers of Milvus' `pkg/util/merr`.
_NOT_FOUND = frozenset({100, 1600})
"""A collection, an alias. The embedded server tells the first of both."""
_TRANSIENT_CODES = frozenset({1, 2, 3, 4, 5, 8, 401, 501, 503, *range(901, 907)})
"""Not ready, unavailable, out of memory, too many requests, internal, rate limit; a replica, a channel or a node that
is away: Milvus calls these last final, and they are over once another node has taken its place."""
_UNEXPECTED, _NODE_AWAY = 65535, re.compile(r"node (not match|not found|offline)|channel not available")
"""Where some part of Milvus did not foresee another's error, only its text tells it."""

# pymilvus pings every ten seconds, idle or not; a gRPC server with default settings hangs up on that, also in the
# middle of a long call. Each call has its own time-out, so a dead peer is noticed all the same.
_GRPC_OPTIONS = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def among(field: str, values: Sequence[str]) -> str:
    """The filter `field in [values]`, with every quote and backslash escaped.

    pymilvus's own `ids=` puts ids between quotes as they are: an id that has a quote breaks the filter or changes it.
    """
    return f"{field} in [{','.join(chr(34) + value.translate(_ESCAPES) + chr(34) for value in values)}]"


class MilvusCalls:
    """A connection. `call("search", …)` is `MilvusClient.search(…)`. Close it."""

    def __init__(self, uri: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        """Connect. Raises `IndexUnavailable` where nothing answers at `uri` within `timeout` seconds."""
        from pymilvus import MilvusClient

        # Every error is raised to the caller; pymilvus would print it besides, with the whole filter. It configures its
        # logger when it is imported, so this comes after.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.uri = uri
        self.timeout = timeout
        try:
            self._client = MilvusClient(
                uri=uri, token=token or "", timeout=timeout, dedicated=True, grpc_options=_GRPC_OPTIONS
            )
        except Exception as error:
            if not is_transient(error):
                raise TerminalError(
                    f"Milvus at {uri} refused the connection ({_short(error)}). Check SOSIE_MILVUS_URI and _TOKEN."
                ) from error
            raise IndexUnavailable(
                f"No Milvus answers at {uri} ({_short(error)}). Start it, or correct SOSIE_MILVUS_URI; leave that "
                "unset to use the embedded server."
            ) from error

    def close(self) -> None:
        self._client.close()

    def call(self, method: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        """One call, of `timeout` seconds at most where it takes longer than others.

        Raises `IndexUnavailable` after the last try of one that could have gone well, `IndexOutOfStep` where the
        collection or alias isn't there, `TerminalError` where Milvus refuses the request itself.
        """
        again = Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_attempt(3) | stop_after_delay(2 * self.timeout),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry_error_callback=self._gave_up,
        )
        try:
            return again(getattr(self._client, method), *args, timeout=timeout or self.timeout, **options)
        except Exception as error:
            if isinstance(error, IndexUnavailable) or not _of_milvus(error):
                raise
            if getattr(error, "code", None) in _NOT_FOUND:
                raise IndexOutOfStep(
                    f"Milvus at {self.uri} doesn't have what {method} asked for ({_short(error)}). "
                    "Run `sosie rebuild` to load it from the lake."
                ) from error
            raise TerminalError(f"Milvus at {self.uri} refused {method}: {_short(error)}.") from error

    def _gave_up(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        raise IndexUnavailable(
            f"Milvus at {self.uri} failed {state.attempt_number} times at {getattr(state.fn, '__name__', 'a call')} "
            f"({_short(error)}). Keys are stable: run the step again when it answers; nothing doubles."
        ) from error


def is_transient(error: BaseException) -> bool:
    """Whether the same call may go well a moment later."""
    import grpc  # type: ignore[import-untyped,unused-ignore]
    from pymilvus.exceptions import ConnectError, MilvusException, MilvusUnavailableException

    if isinstance(error, grpc.RpcError | grpc.FutureTimeoutError | ConnectError | MilvusUnavailableException):
        return True
    # Subclasses of MilvusException are the client's own refusals (wrong parameter, wrong schema, …).
    if type(error) is not MilvusException:
        return False
    code, text = getattr(error, "code", None), str(getattr(error, "message", ""))
    away = code == _UNEXPECTED and _NODE_AWAY.search(text) is not None
    return away or code in _TRANSIENT_CODES or bool(getattr(error, "retriable", False))


def _of_milvus(error: BaseException) -> bool:
    from pymilvus.exceptions import MilvusException

    return isinstance(error, MilvusException)


def _short(error: BaseException | None) -> str:
    """The line that tells what went wrong: the first, as filters of a thousand ids follow; of stack traces the last."""
    lines = str(getattr(error, "message", "") or error).strip().splitlines() or ["no reason given"]
    line = (lines[-1].partition(": ")[2] or lines[-1]) if "stack trace:" in lines[0] else lines[0]
    return line[:300]
