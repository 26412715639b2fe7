"""The contents that have no vector yet, embedded by the workers of a Ray cluster.

    <lake>/_staging/rebuild-<modality>-<version>/due/part=K/…      listings of partition K, as long as it isn't done
    <lake>/_staging/rebuild-<modality>-<version>/done/K.parquet    its rows for the lake, written whole by a worker

A partition is what has its content's hash modulo the number of partitions, so equal content meets in one and is
embedded once. Whoever goes on after a stop first takes to the lake what is done; what is left is parted anew. Only the
driver writes the lake: workers read the models, the pictures and this scratch space, and call what hours call.
"""

import io
import os
import posixpath
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import polars as pl

from sosie import errors
from sosie.errors import SettingsError, SosieError, StoreBusy
from sosie.lake import Lake
from sosie.pipeline.embed import encoded, rows_of, tell, version
from sosie.pipeline.run import log
from sosie.places import place, write_atomically
from sosie.rebuild.instep import RUN, lacking
from sosie.settings import Ray, Settings
from sosie.tables import LISTINGS, Modality

Marked = Callable[[int, int], None]
"""Told how many listings are done, and of how many."""


@dataclass(frozen=True)
class Scratch:
    """Where partitions wait and where they are put once they are done."""

    uri: str

    @cached_property
    def _held(self) -> tuple[Any, str]:
        fs, path = fsspec.core.url_to_fs(self.uri)
        return fs, path

    @property
    def _place(self) -> tuple[Any, str]:
        self._held[0].invalidate_cache()  # others write here too
        return self._held

    def due(self, partition: int) -> str:
        return f"{self.uri}/due/part={partition}/*.parquet"

    def partitions(self) -> list[int]:
        """Those that are due."""
        fs, path = self._place
        return sorted({int(posixpath.dirname(file).rpartition("=")[2]) for file in fs.find(f"{path}/due")})

    def done(self) -> list[str]:
        fs, path = self._place
        return [fs.unstrip_protocol(file) for file in sorted(fs.glob(f"{path}/done/*.parquet"))]

    def put(self, partition: int, rows: pl.DataFrame) -> None:
        """Whole or not at all, by the name that says that it is done."""
        written = io.BytesIO()
        rows.write_parquet(written)
        write_atomically(place(self.uri) / "done" / f"{partition}.parquet", written.getvalue())

    def drop(self, *names: str) -> None:
        """Some files, or all of a folder below."""
        fs, path = self._place
        for name in names:
            where = fs._strip_protocol(name) if "/" in name else f"{path}/{name}"
            if fs.exists(where):
                fs.rm(where, recursive=True)


def embed(lake: Lake, served: Settings, modality: Modality, marked: Marked = lambda done, of: None) -> int:
    """Have the lake hold the vector of each live listing's content under the models of `served`.

    Returns for how many contents a model was called. Raises `SettingsError` where Ray isn't installed,
    `StoreBusy` where a worker died, and what a worker raised.
    """
    scratch = Scratch(lake.below(f"_staging/rebuild-{modality}-{version(served, modality)}"))
    ray = served.rebuild.ray
    taken = _take(lake, served, modality, scratch)
    if taken:
        log.info("rebuild", phase="embed", modality=modality, taken_over=taken)
    total = _part(lake, served, modality, scratch)
    marked(0, total)
    calls = done = waiting = 0
    if total:
        with _cluster(ray) as data:
            for told in _told(data, ray, scratch, served, modality):
                calls, done = calls + told["computed"], done + told["listings"]
                waiting += told["listings"]
                if waiting >= ray.commit_listings:
                    waiting -= _take(lake, served, modality, scratch)
                marked(done, total)
                log.info("rebuild", phase="embed", modality=modality, done=done, total=total)
        _take(lake, served, modality, scratch)
    scratch.drop("due", "done")
    return calls


def _part(lake: Lake, served: Settings, modality: Modality, scratch: Scratch) -> int:
    """Write what is due by partition, streaming; returns how many listings that are."""
    scratch.drop("due")
    hash_ = f"{modality}_hash"
    number = pl.col(hash_).str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % served.rebuild.ray.partitions
    rows = lacking(lake, served, modality).select("listing_id", hash_, "title", "updated_at", part=number)
    rows.sink_parquet(pl.PartitionBy(f"{scratch.uri}/due/", key="part", include_key=False), mkdir=True)
    return sum(
        pl.scan_parquet(scratch.due(one)).select(pl.len()).collect().item() for one in scratch.partitions()
    )  # fmt: skip


def _take(lake: Lake, served: Settings, modality: Modality, scratch: Scratch) -> int:
    """Rows of finished partitions to the lake in one commit; returns how many listings they are about."""
    files = scratch.done()
    if not files:
        return 0
    rows, hash_ = pl.read_parquet(files), f"{modality}_hash"
    # An hour may have moved a listing on meanwhile; its vector is then that hour's work.
    listings = lake.lookup(LISTINGS, "listing_id", rows["listing_id"], columns=["listing_id", hash_, "is_deleted"])
    now = listings.filter(~pl.col("is_deleted")).select("listing_id", content_hash=hash_)
    standing = rows.join(now, on=["listing_id", "content_hash"], how="semi")
    tell(lake, modality, version(served, modality), standing, RUN)
    scratch.drop(*files)
    return rows.height


class Partition:
    """A worker: embeds one partition after another."""

    def __init__(self, scratch: Scratch, served: Settings, modality: Modality) -> None:
        self.scratch, self.settings, self.modality = scratch, served, modality

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Embed the partition that the row names, and tell how many listings and different contents it had.

        An error of ours is told as well, as Ray hands on no exception's type.
        """
        try:
            return {**self._embedded(int(row["partition"])), "kind": "", "sentence": ""}
        except SosieError as error:
            return {"listings": 0, "computed": 0, "kind": type(error).__name__, "sentence": str(error)}

    def _embedded(self, number: int) -> dict[str, int]:
        hash_ = f"{self.modality}_hash"
        listings = pl.read_parquet(self.scratch.due(number), hive_partitioning=False)
        contents = listings.unique(hash_).sort(hash_)
        vectors = encoded(self.settings, self.modality, contents)
        self.scratch.put(number, rows_of(listings, vectors, self.modality, version(self.settings, self.modality)))
        return {"listings": listings.height, "computed": contents.height}


_KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def _told(data: Any, ray: Ray, scratch: Scratch, served: Settings, modality: Modality) -> Iterator[dict[str, int]]:
    """What workers say of each partition, as they finish them."""
    threads = max(1, int(ray.cpus_per_worker))
    own = served.model_copy(update={"embedding": served.embedding.model_copy(update={"threads": threads})})
    from ray import exceptions as ray_exceptions

    partitions = scratch.partitions()
    items = data.from_items([{"partition": one} for one in partitions], override_num_blocks=len(partitions))
    finished = items.map(
        Partition,
        fn_constructor_args=(scratch, own, modality),
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(ray.workers, len(partitions))),
        num_cpus=ray.cpus_per_worker,
        num_gpus=ray.gpus_per_worker or None,
    )
    try:
        for told in finished.iter_rows():
            if told["kind"]:
                raise _KINDS[told["kind"]](told["sentence"])
            yield told
    except ray_exceptions.RayTaskError:  # what nobody expected of a worker shows as it is
        raise
    except ray_exceptions.RayError as error:
        raise StoreBusy(
            f"A Ray worker stopped ({str(error).strip().splitlines()[-1][:300]}). What it finished is kept; run "
            "`sosie rebuild` again to go on."
        ) from error


@contextmanager
def _cluster(wanted: Ray) -> Iterator[Any]:
    """`ray.data` on the cluster at `address`, or on one of this machine that ends with us."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine takes its time
    if wanted.address is None:  # its ports are open to this machine's network: nobody but us may hand it work
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError:
        raise SettingsError(
            "rebuild.engine is ray, but Ray is not installed: pip install 'sosie[ray]', or leave the engine `local`."
        ) from None
    began = not ray.is_initialized()
    if began and wanted.address is None:
        ray.init(
            num_cpus=max(1, round(wanted.workers * wanted.cpus_per_worker)),
            num_gpus=max(1, round(wanted.workers * wanted.gpus_per_worker)) if wanted.gpus_per_worker else None,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=256 * 2**20,  # counts pass through it, no vectors
        )
    elif began:
        ray.init(wanted.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray.data
    finally:
        if began:
            ray.shutdown()
