"""Scratch of hours that are long over."""

import posixpath
from datetime import UTC, datetime, timedelta

import fsspec

from sosie.pipeline.run import Run, Tally, step


@step
def clear_staging(run: Run, tally: Tally) -> None:
    """Delete the data that steps handed on after `upkeep.staging_hours`, and their records after `…records_days`.

    Age is the time since anything of the run was written. An hour that is run again starts from its landing files.
    """
    rules, now = run.settings.upkeep, datetime.now(UTC)
    fs, root = fsspec.core.url_to_fs(run.lake.below("_staging"))
    tally(runs=0, data_cleared=0, records_cleared=0, bytes_cleared=0)
    counts = tally.counts
    for folder in fs.ls(root, detail=False) if fs.isdir(root) else ():
        files = fs.find(folder)
        if not files or posixpath.basename(folder) == run.id:
            continue
        counts["runs"] += 1
        age = now - max(modified(fs, file) for file in files)
        data = [file for file in files if not file.endswith(".json")]
        if age > timedelta(hours=rules.staging_hours) and data:
            counts["data_cleared"] += 1
            counts["bytes_cleared"] += sum(fs.size(file) for file in data)
            fs.rm(data)
        if age > timedelta(days=rules.records_days):
            counts["records_cleared"] += 1
            fs.rm(folder, recursive=True)
    tally.wrote = counts["data_cleared"] + counts["records_cleared"]


def modified(fs: fsspec.AbstractFileSystem, file: str) -> datetime:
    """When a file was last written."""
    at: datetime = fs.modified(file)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
