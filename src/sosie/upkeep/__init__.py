"""What keeps the stores small and in step: run once a day, between hours, by `dedup_upkeep` or `sosie upkeep`.

Each part is a step as those of an hour are; together they leave one manifest in `runs`, of state `upkeep`.
"""

from sosie import integrity
from sosie.index import server
from sosie.lake import Lake
from sosie.pipeline.aside import aside
from sosie.pipeline.publish import manifest, record
from sosie.pipeline.run import Counts, Run
from sosie.settings import Settings
from sosie.upkeep.consistency import check_stores
from sosie.upkeep.delta import compact_tables
from sosie.upkeep.history import forget_history
from sosie.upkeep.pictures import forget_pictures
from sosie.upkeep.staging import clear_staging
from sosie.upkeep.versions import drop_versions

__all__ = [
    "PARTS", "begin", "check_stores", "clear_staging", "compact_tables", "drop_versions", "finish", "forget_history",
    "forget_pictures", "upkeep",
]  # fmt: skip

PARTS = (check_stores, drop_versions, clear_staging, forget_history, forget_pictures, compact_tables)
"""In this order: what the parts before delete, the last one takes off the disk."""


def begin(settings: Settings) -> Run:
    """A run of this upkeep, named after the newest hour. Raises `TerminalError` where the catalogue is lost."""
    lake = Lake(settings.lake_uri)
    integrity.check(lake)
    return Run(aside(lake, "upkeep"), settings)


def finish(run: Run) -> dict[str, Counts]:
    """Leave the manifest in `runs`; returns the counts of each part."""
    record(run, "upkeep")
    return {step["name"]: step["counts"] for step in manifest(run)["steps"]}


def upkeep(settings: Settings) -> dict[str, Counts]:
    """All parts in this process; returns the counts of each."""
    run = begin(settings)
    with server.serve(settings):
        for part in PARTS:
            part(run)
    return finish(run)
