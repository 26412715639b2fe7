"""When a host that does not answer is asked no more, and when no host is."""

import time
from collections import Counter
from collections.abc import Callable
from threading import Lock


class Patience:
    """What one call has left for hosts that don't answer; its threads share it.

    A host is asked no more after `failures` requests in a row that it left unanswered, and no host is once `seconds`
    have passed. `clock` tells seconds.
    """

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures, self._seconds, self._clock = failures, seconds, clock
        self._unanswered: Counter[str] = Counter()
        self._lock = Lock()
        self._end = clock() + seconds

    def spent(self, host: str) -> str | None:
        """Why a host is asked no more, in a clause; None where it is asked."""
        if self._clock() >= self._end:
            return f"the {self._seconds:,g} s for pictures of this hour were over (setting validation.picture_seconds)"
        with self._lock:
            failures = self._unanswered[host]
        if failures >= self._failures:
            return (
                f"{host} left requests unanswered, {self._failures} in a row (setting validation.picture_host_failures)"
            )
        return None

    def answered(self, host: str) -> None:
        with self._lock:
            self._unanswered[host] = 0

    def failed(self, host: str) -> None:
        with self._lock:
            self._unanswered[host] += 1

    @property
    def given_up(self) -> list[str]:
        """Hosts that are asked no more, by name."""
        with self._lock:
            return sorted(host for host, failures in self._unanswered.items() if failures >= self._failures)
