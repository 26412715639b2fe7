"""Where a process can be made to die, so that it is known what a death there leaves behind.

`point("…")` stands before and after every write to a store and at the bounds of every step. It does nothing, unless
`SOSIE_FAULT` names the point: then the process is killed on the spot, as by a power cut (SIGKILL: nothing is cleaned
up). `SOSIE_FAULT_LOG` names a file that gets the name of each point as it is passed. Both are for tests.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STEPS = (
    "validate", "detect_changes", "embed", "upsert_vectors", "match", "cluster", "publish_features", "follow",
    "report", "alert",
)  # fmt: skip
LAKE_WRITES = (
    "quarantine.upsert", "quarantine.delete", "changes.upsert", "changes.delete", "listings.upsert",
    "text_embeddings.append", "image_embeddings.append", "regroup.upsert", "pairs.exchange", "neighbours.rewrite",
    "neighbours.append", "recipes.upsert", "cluster_events.append", "decisions.append", "clusters.exchange",
    "held_merges.exchange", "regroup.delete", "runs.upsert", "alerts.upsert", "spellings.append",
)  # fmt: skip
OTHER_WRITES = (
    "pictures.put", "staging.accepted", "index.text.upsert", "index.text.delete", "index.image.upsert",
    "index.image.delete", "features.apply", "features.text", "features.image", "features.decisions", "report.page",
)  # fmt: skip


def points() -> tuple[str, ...]:
    """The name of every point."""
    bounds = [f"step.{step}.{where}" for step in STEPS for where in ("begun", "done", "told")]
    writes = [*(f"lake.{write}" for write in LAKE_WRITES), *OTHER_WRITES]
    return (*bounds, *(f"{write}.{where}" for write in writes for where in ("before", "after")))


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
