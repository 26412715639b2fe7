"""Where a process can be made to die, so that it is known what a death there leaves behind.

`point("…")` stands before and after every write to a store and at the bounds of every step. It does nothing, unless
`SOSIE_FAULT` names the point: then the process is killed on the spot, as by a power cut (SIGKILL: nothing is cleaned
up). `SOSIE_FAULT_LOG` names a file that gets the name of each point as it is passed. Both are for tests;
`tests/test_crash_safety.py` lists the points of a run.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def point(name: str) -> None:
    """Die here, if that is what `SOSIE_FAULT` asks for."""
    if log := os.environ.get("SOSIE_FAULT_LOG"):
        with Path(log).open("a") as stream:
            stream.write(f"{name}\n")
    if os.environ.get("SOSIE_FAULT") == name:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def around(write: str) -> Iterator[None]:
    """A point before a write and one after it."""
    point(f"{write}.before")
    yield
    point(f"{write}.after")
