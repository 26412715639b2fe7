"""Delta tables made small again: few large files, none that no reader needs, a short log."""

import fsspec
from deltalake.exceptions import CommitFailedError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from sosie import decoded
from sosie.lake import Delta, Lake, writing
from sosie.pipeline.run import Counts, Run, Tally, step
from sosie.tables import ALL, Table

_KEPT_HOURS = {"delta.deletedFileRetentionDuration": 7 * 24, "delta.logRetentionDuration": 30 * 24}
"""How long a checkpoint knows of removed files, and the log of versions, where a table says nothing else."""
_WRITERS_HOURS = 24
"""A file that no commit tells of may be of a writer that is still at work, but for no longer than this."""


@step
def compact_tables(run: Run, tally: Tally) -> None:
    """Vacuum every table, then compact it. Time travel goes back `upkeep.retention_hours` from then on.

    All are vacuumed first: that makes the room which compacting needs. An hour that writes meanwhile wins: the table is
    tried again, and left for the next upkeep where it stays busy.
    """
    tally(files_before=0, files_after=0, files_removed=0)
    left = set()
    for part in (vacuum, compact):
        for table in ALL:
            try:
                told = part(run.lake, table, run.settings.upkeep.retention_hours)
            except CommitFailedError:
                left.add(table.name)
                continue
            tally(**{name: tally.counts[name] + value for name, value in told.items()})
    tally(tables_left=len(left))
    tally.wrote = tally.counts["files_removed"]


def vacuum(lake: Lake, table: Table, retention_hours: int) -> Counts:
    """Files removed from the store: those that no version of these hours needs, and, a day after they were written at
    the soonest, those that no version ever had, as a writer leaves them that died. Raises `StoreBusy`."""
    held = lake.open(table)
    if held is None:
        return Counts(files_removed=0)
    stored = _stored(lake, table)
    with writing(table, "vacuum"):
        _keep(held, retention_hours)
        # Only what the log still tells of can go at once; only the store itself tells of all the rest.
        for full, hours in ((False, retention_hours), (True, max(retention_hours, _WRITERS_HOURS))):
            # Shorter than Delta's week on purpose where the settings say so: the setting is the contract with readers.
            held.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=full)
    return Counts(files_removed=max(0, stored - _stored(lake, table)))


def compact(lake: Lake, table: Table, retention_hours: int) -> Counts:
    """Live files before and after, and files removed from the store; zeros where there is no such table yet.

    Raises `StoreBusy`.
    """
    held = lake.open(table)
    if held is None:
        return Counts(files_before=0, files_after=0, files_removed=0)
    before = len(held.file_uris())
    again = Retrying(
        retry=retry_if_exception_type(CommitFailedError),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
    with writing(table, "compact"):
        again(_compact, held)
    removed = vacuum(lake, table, retention_hours)
    held.update_incremental()
    if (copies := lake.copies(table)) is not None:
        decoded.forget(copies, held.file_uris())
    with writing(table, "checkpoint"):
        held.create_checkpoint()
        held.cleanup_metadata()
    return Counts(files_before=before, files_after=len(held.file_uris())) | removed


def _stored(lake: Lake, table: Table) -> int:
    """Data files that lie there, needed or not."""
    fs, path = fsspec.core.url_to_fs(lake.path(table))
    fs.invalidate_cache()  # Delta writes and deletes here by itself
    return sum(file.endswith(".parquet") and "/_delta_log/" not in file for file in fs.find(path))


def _keep(held: Delta, retention_hours: int) -> None:
    """Let checkpoints and log reach as far back as time travel is to, so that no file is taken for nobody's before."""
    there = held.metadata().configuration
    due = {
        name: f"interval {max(hours, retention_hours)} hours"
        for name, hours in _KEPT_HOURS.items()
        if there.get(name, f"interval {hours} hours") != f"interval {max(hours, retention_hours)} hours"
    }
    if due:
        held.alter.set_table_properties(due)


def _compact(held: Delta) -> None:
    held.update_incremental()
    held.optimize.compact()
