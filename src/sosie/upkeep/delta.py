"""Delta tables made small again: few large files, none that no reader needs, a short log."""

import fsspec
from deltalake.exceptions import CommitFailedError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from sosie import decoded
from sosie.lake import Delta, Lake
from sosie.pipeline.run import Counts, Run, Tally, step
from sosie.tables import ALL, Table


@step
def compact_tables(run: Run, tally: Tally) -> None:
    """Compact and vacuum every table. Time travel goes back `upkeep.retention_hours` from then on.

    An hour that writes meanwhile wins: the table is tried again, and left for the next upkeep where it stays busy.
    """
    tally(files_before=0, files_after=0, files_removed=0, tables_left=0)
    for table in ALL:
        try:
            told = compact(run.lake, table, run.settings.upkeep.retention_hours)
        except CommitFailedError:
            tally(tables_left=tally.counts["tables_left"] + 1)
            continue
        tally(**{name: tally.counts[name] + value for name, value in told.items()})
    tally.wrote = tally.counts["files_removed"]


def compact(lake: Lake, table: Table, retention_hours: int) -> Counts:
    """Live files before and after, and files removed from the store; zeros where there is no such table yet."""
    held = lake.open(table)
    if held is None:
        return Counts(files_before=0, files_after=0, files_removed=0)
    before, stored = len(held.file_uris()), _stored(lake, table)
    again = Retrying(
        retry=retry_if_exception_type(CommitFailedError),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
    again(_compact, held)
    new = _stored(lake, table) - stored
    # Shorter than Delta's week on purpose where the settings say so: the setting is the contract with readers.
    held.vacuum(retention_hours=retention_hours, dry_run=False, enforce_retention_duration=False)
    held.update_incremental()
    if (copies := lake.copies(table)) is not None:
        decoded.forget(copies, held.file_uris())
    held.create_checkpoint()
    held.cleanup_metadata()
    return Counts(
        files_before=before,
        files_after=len(held.file_uris()),
        files_removed=max(0, stored + new - _stored(lake, table)),
    )


def _stored(lake: Lake, table: Table) -> int:
    """Data files that lie there, needed or not."""
    fs, path = fsspec.core.url_to_fs(lake.path(table), **lake.storage_options)
    return sum(file.endswith(".parquet") and "/_delta_log/" not in file for file in fs.find(path))


def _compact(held: Delta) -> None:
    held.update_incremental()
    held.optimize.compact()
