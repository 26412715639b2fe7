"""What the tasks of `dedup_train` do. As `bridge`, it imports a step's libraries where a task runs it."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

from sosie.airflow import environment

log = logging.getLogger(__name__)

LONG = timedelta(hours=48)
"""Training on a CPU takes a night; a task that hangs must still end."""

_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked")
_TAIL = 200


def schedule() -> str | None:
    """`SOSIE_TRAIN_SCHEDULE`: a cron expression or preset, or (the default) `none` for runs by hand only."""
    return environment.cron("SOSIE_TRAIN_SCHEDULE", "none")


PARAMS = {
    "profile": Param(
        "full", type="string", enum=["small", "full"], title="Profile", description="Which one of params.yaml to train."
    ),
    "judgements": Param(
        "pinned" if schedule() is None else "newest",
        type="string",
        enum=["pinned", "newest"],
        title="Judgements",
        description="What the decider learns from people: those that judgements.yaml pins, or the lake's of now.",
    ),
    "promote": Param(
        "never",
        type="string",
        enum=["never", "if_gate_passes"],
        title="Promote",
        description="Whether the new models may take the place of the live ones without a person looking at them.",
    ),
    "dry_run": Param(
        schedule() is None,  # a scheduled run has nobody to switch it off
        type="boolean",
        title="Dry run",
        description="Only tell what changed, and so which stages would run.",
    ),
}


def judgements(which: str, *, dry_run: bool) -> dict[str, Any]:
    """Pin the lake's judgements of now for the training where they are asked for; returns what is pinned."""
    from sosie.settings import settings
    from sosie.training.judged import export, pin

    if which == "newest" and not dry_run:
        export.export(settings())
    told = pin.pinned(settings().repository)
    log.info("Judgements to train with: %s", told if told["digest"] else "none")
    return told


def reproduce(profile: str, *, dry_run: bool) -> None:
    """Run the stages that are not up to date, their output in this task's log.

    Raises `StoreBusy` where another DVC works in this repository, `TerminalError` where a stage fails, and skips
    what follows after a dry run.
    """
    target = f"evaluate@{profile}"
    if dry_run:
        _dvc("status", "--with-deps", target)  # `repro --dry` stops at what a stage before would have made
        raise AirflowSkipException("A dry run: nothing was trained. Trigger again with dry_run off.")
    _dvc("repro", target)


def register(profile: str, who: str) -> str:
    """Put the trained models into the registry, measured beside the live ones; returns the candidate's id."""
    from sosie import registry
    from sosie.settings import settings
    from sosie.training import scores
    from sosie.training.judged import gain

    current = settings()
    work = current.repository / "var" / "training" / profile
    learnt = work / "evaluation" / gain.FILE
    candidate = registry.register(
        current,
        work / "models",
        registry.source_of(current.repository, profile),
        scores={**scores.read(work / "evaluation" / "metrics.json"), **gain.judged_scores(learnt)},
        live_scores=scores.measure(work / "data" / "test", current.models, work / "data" / "judged" / "held"),
        who=who,
        gain=gain.read(learnt),
    )
    log.info("%s is registered: %s", candidate.id, candidate.versions)
    return candidate.id


def gate(candidate: str) -> bool:
    """Whether the candidate may take the place of the live models, a sentence a dataset in the log."""
    from sosie import registry
    from sosie.settings import settings

    verdict = registry.find(settings(), candidate).gate
    for reason in verdict.reasons:
        log.info("%s", reason)
    log.info("The gate is %s.", "passed" if verdict.passed else "not passed")
    return verdict.passed


def promote(candidate: str, when: str, who: str, *, passed: bool) -> dict[str, int]:
    """Serve the candidate where that was asked for and the gate passed, else skip. Returns the rebuild's counts."""
    from sosie import registry
    from sosie.settings import settings

    if when == "never":
        raise AirflowSkipException(f"Nobody asked for it. `sosie promote {candidate}` does it by hand.")
    if not passed:
        raise AirflowSkipException(f"{candidate} did not pass the gate. `sosie models` tells why.")
    counts = registry.promote(settings(), candidate, who)
    log.info("%s is live from now on: %s", candidate, counts)
    return counts


def _dvc(*arguments: str) -> None:
    """Run DVC in the repository, each line of it a line of this task's log; it ends with this task.

    Where a task was killed that could not end its own, the next try does.
    """
    from sosie.airflow.processes import end_leftovers, remember
    from sosie.errors import StoreBusy, TerminalError
    from sosie.settings import settings

    repository, running = settings().repository, settings().home / "airflow" / "training.json"
    if left := end_leftovers(running):
        log.warning("%d processes of a try that was killed were still training, and were ended", left)
    # The stages' `python` is the one that runs this.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    last: deque[str] = deque(maxlen=_TAIL)
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repository,
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the stage below it can be ended with it
    ) as process:
        assert process.stdout is not None
        remember(running, process.pid)
        with _ended_with_us(process):
            for line in filter(None, map(str.rstrip, process.stdout)):
                last.append(line)
                log.info("%s", line)
    if process.returncode == 0:
        return
    command = f"`dvc {' '.join(arguments)}` in {repository}"
    if any(_LOCKED.search(line) for line in last):
        raise StoreBusy(f"{command} found another DVC at work there. Wait for it or end it, then clear this task.")
    raise TerminalError(
        f"{command} ended with {process.returncode}; the log above tells which stage and why. Mend it, then clear this "
        "task: stages that are done are not run again, one that was interrupted goes on from its checkpoint."
    )


@contextmanager
def _ended_with_us(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End the group of `process` with this task: Airflow asks by SIGTERM, and kills five seconds later."""

    def end(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:  # the time-out is one
        end()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
