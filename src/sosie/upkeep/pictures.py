"""Pictures that are older than anybody asked to keep."""

import posixpath
from datetime import UTC, datetime, timedelta

import fsspec
import polars as pl

from sosie.pipeline.ingest import thumbnails
from sosie.pipeline.run import Run, Tally, step
from sosie.tables import IMAGE_EMBEDDINGS, LISTINGS
from sosie.upkeep.staging import modified


@step
def forget_pictures(run: Run, tally: Tally) -> None:
    """Delete pictures that are older than `upkeep.history_days` and that no listing and no vector has any more.

    So a picture goes with the last history that tells of it, and the page's copies of it go as well. One that comes
    again is fetched again.
    """
    tally(pictures_dropped=0, copies_dropped=0, bytes_dropped=0)
    days = run.settings.upkeep.history_days
    if days is None:
        return
    before, needed, counts = datetime.now(UTC) - timedelta(days=days), _needed(run), tally.counts
    sizes = (run.settings.home / "page" / "pictures").glob("*")
    for name, uri in (
        ("pictures_dropped", thumbnails(run.settings).uri),
        *(("copies_dropped", str(size)) for size in sizes),
    ):
        fs, root = fsspec.core.url_to_fs(uri)
        for folder in fs.ls(root, detail=False) if fs.isdir(root) else ():
            own = set(needed.filter(needed.str.starts_with(posixpath.basename(folder))))
            lost = [file for file in fs.find(folder) if posixpath.basename(file).removesuffix(".jpg") not in own]
            if gone := [file for file in lost if modified(fs, file) < before]:
                counts[name] += len(gone)
                counts["bytes_dropped"] += sum(fs.size(file) for file in gone)
                fs.rm(gone)
    tally.wrote = counts["pictures_dropped"] + counts["copies_dropped"]


def _needed(run: Run) -> pl.Series:
    """Hashes that a listing or a vector has, or rows that an hour accepted and may not have stored yet."""
    told = [
        run.lake.scan(LISTINGS).select("image_hash"),
        run.lake.scan(IMAGE_EMBEDDINGS).select(image_hash="content_hash"),
    ]
    fs, root = fsspec.core.url_to_fs(run.lake.below("_staging"))
    for file in fs.glob(f"{root}/*/accepted.parquet"):
        with fs.open(file, "rb") as stream:
            told.append(pl.read_parquet(stream, columns=["image_hash"]).lazy())
    return pl.concat(told).drop_nulls().unique().collect()["image_hash"]
