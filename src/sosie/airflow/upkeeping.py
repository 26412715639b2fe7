"""What the tasks of `dedup_upkeep` do. As `bridge`, it imports a step's libraries where a task runs it."""

import logging

from sosie.airflow import environment

log = logging.getLogger(__name__)


def schedule() -> str | None:
    """`SOSIE_UPKEEP_SCHEDULE`: a cron expression or preset (default: every night at 3:30 UTC), or `none`."""
    return environment.cron("SOSIE_UPKEEP_SCHEDULE", "30 3 * * *")


def begin() -> str:
    """The id under which this upkeep leaves its manifest in `runs`."""
    from sosie import upkeep
    from sosie.settings import settings

    return upkeep.begin(settings()).id


def part(name: str, run_id: str) -> dict[str, int]:
    """Run one part and return its counts, which also go to the task's log."""
    from sosie import upkeep
    from sosie.pipeline import Run
    from sosie.settings import settings

    counts: dict[str, int] = getattr(upkeep, name)(Run(run_id, settings()))
    log.info("%s: %s", name, counts)
    return counts


def finish(run_id: str) -> None:
    """Leave the manifest."""
    from sosie import upkeep
    from sosie.pipeline import Run
    from sosie.settings import settings

    upkeep.finish(Run(run_id, settings()))
