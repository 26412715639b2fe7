"""Times of several ways to do the same, taken so that what else runs on the machine hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(tries: int, ways: Mapping[str, Callable[[], object]], *, warm: bool = True) -> dict[str, float]:
    """Median seconds of each way over `tries` rounds, in each of which every way has its turn.

    With `warm` every way runs once before, untimed.
    """
    if warm:
        for work in ways.values():
            work()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(tries):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in taken.items()}
