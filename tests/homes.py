"""Hours that tests run, and homes that several of them start from."""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from sosie import pipeline
from sosie.bench import standalone
from sosie.settings import load

FEED = {"seller_id": "s1", "price": 10.0, "currency": "EUR", "updated_at": "2026-01-05T00:30:00Z"}
"""What a row has where a test says nothing else."""

AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Begins a command that heeds permissions, which root's would not."""

heeds_permissions = pytest.mark.skipif(
    bool(AS_A_USER) and shutil.which("setpriv") is None, reason="root, with no `setpriv` to give up its rights"
)


@contextmanager
def milvus_proper(folder: Path) -> Iterator[str]:
    """The URI of a Milvus that is not the embedded one; the test is skipped where none can be had, but not by CI."""
    if (why := standalone.missing()) and not os.environ.get("CI"):
        pytest.skip(why)
    with standalone.serve(folder / "standalone") as uri:
        yield uri


def up_to_decisions(run: pipeline.Run) -> None:
    """An hour that dies before the storefront hears of it. Each step by itself, as Airflow calls it."""
    pipeline.validate(run)
    pipeline.detect_changes(run)
    for part in pipeline.shards(run):
        pipeline.embed(run, **part)
    pipeline.upsert_vectors(run)
    pipeline.match(run)
    pipeline.cluster(run)


def up_to_clusters(run: pipeline.Run) -> None:
    """An hour but for storefront and alerts: what a later hour builds on, and the manifest, by which it knows it."""
    up_to_decisions(run)
    pipeline.report(run)


def prepared(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the caller's own with what `make` makes in an empty one, once in a run of all tests.

    Workers share it: the first that asks makes it while others wait, and all take copies.
    """
    mine = folders.getbasetemp()
    shared = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    original, done = shared / "prepared" / name, shared / "prepared" / f"{name}.done"
    original.parent.mkdir(exist_ok=True)
    with FileLock(original.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(original, ignore_errors=True)
            original.mkdir()
            make(original)
            done.touch()
    return Path(shutil.copytree(original, folders.mktemp(name) / "own", symlinks=True))


def land(landing: Path, hour: str, *rows: dict[str, object], name: str = "listings.csv") -> Path:
    """A feed's file of some rows."""
    path = landing / hour / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([FEED | row for row in rows], infer_schema_length=None).write_csv(path)
    return path


def run_of(landing: Path, hour: str) -> pipeline.Run:
    """An hour of the home beside a landing folder."""
    return pipeline.Run.of(hour, settings=load(home=landing.parent / "home", landing=landing))


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """The nearest thing to a full disk that needs no rights: no file may grow beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    caching, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python would keep a compiled module cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = caching
