"""One hourly run: its id, its stores, its scratch space, and the record that each step leaves."""

import io
import json
import posixpath
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import fsspec
import polars as pl
import structlog

from sosie import faults, fence, hours
from sosie.errors import StoreBusy, TerminalError, stores_told
from sosie.lake import Lake, Written
from sosie.landing import hour_of
from sosie.locks import exclusive
from sosie.places import place, write_atomically
from sosie.settings import Settings
from sosie.settings import settings as current_settings

log = structlog.get_logger("sosie")

Counts = dict[str, int]
P = ParamSpec("P")


@dataclass(frozen=True)
class Run:
    """A run of one logical hour (UTC): everything a step needs. Nothing outlives a process but what the stores hold."""

    id: str
    settings: Settings

    @classmethod
    def of(
        cls, run_id: str | None = None, *, settings: Settings | None = None, landing: Path | str | None = None
    ) -> "Run":
        """The run of an hour `YYYY-MM-DDTHH`, by default this one. Raises `TerminalError` for anything else."""
        run_id = run_id or hours.name(datetime.now(UTC))
        if hour_of(run_id) != run_id:
            raise TerminalError(
                f"Received run id {run_id!r}, which is no hour. A run is named by its hour in UTC, as in 2026-01-05T09."
            )
        settings = settings or current_settings()
        if landing is not None:
            folder = Path(landing).expanduser().resolve()
            same = settings.pictures_root == str(settings.landing)
            root = str(folder) if same else settings.pictures_root
            settings = settings.model_copy(update={"landing": folder, "pictures_root": root})
        return cls(run_id, settings)

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_uri)

    @cached_property
    def staging(self) -> "Staging":
        return Staging(self.lake.below(f"_staging/{self.id}"))

    @property
    def hour(self) -> datetime:
        return hours.start(self.id[:13])


@dataclass(frozen=True)
class Staging:
    """Scratch of one run, beside the lake: what a step hands to the next. All of it can be made again."""

    uri: str

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        fs, path = fsspec.core.url_to_fs(self.uri)
        return fs, path

    def put(self, name: str, frame: pl.DataFrame) -> None:
        """Keep a frame under a name, whole or not at all. Raises `StoreBusy`."""
        written = io.BytesIO()  # a store that fails under Polars' own hands would raise what is no OSError
        frame.write_parquet(written)
        with faults.around(f"staging.{name}"):
            self._write(f"{name}.parquet", written.getvalue())

    def get(self, name: str) -> pl.DataFrame:
        """Raises `TerminalError` where the step before never wrote it, or a failure of the power left it empty."""
        fs, path = self._place
        try:
            held = fs.cat_file(posixpath.join(path, f"{name}.parquet"))
        except FileNotFoundError:
            held = b""
        if not held:
            raise TerminalError(f"{self.uri}/{name}.parquet is not there: run this hour from its first step.")
        return pl.read_parquet(io.BytesIO(held))  # a store that fails under Polars' own hands makes it panic

    def put_record(self, record: dict[str, Any]) -> None:
        self._write(f"{record['step']}-{record['shard']}.json", json.dumps(record, indent=1).encode())

    def record(self, step: str, shard: str) -> dict[str, Any] | None:
        return next((r for r in self.records() if (r["step"], r["shard"]) == (step, shard)), None)

    def records(self) -> list[dict[str, Any]]:
        """Every step's record, in the order in which they started."""
        fs, path = self._place
        held = (fs.cat_file(name) for name in fs.glob(posixpath.join(path, "*.json")))
        records = [json.loads(record) for record in held if record]  # a failure of the power leaves one empty
        return sorted(records, key=lambda record: record["started_at"])

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(place(self.uri) / name, data, synced=False)
        except OSError as error:
            raise StoreBusy(
                f"{self.uri}/{name} can't be written ({error}). Make room or mend the rights, then run the hour again."
            ) from error


@dataclass
class Tally:
    """What a step counts, and how many rows it really changed in any store."""

    counts: Counts = field(default_factory=dict)
    wrote: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **counts: int) -> None:
        self.counts |= counts

    def written(self, *writes: Written) -> None:
        self.wrote += sum(write.rows for write in writes)


def step(body: Callable[Concatenate[Run, Tally, P], None]) -> Callable[Concatenate[Run, P], Counts]:
    """Make a step of `body(run, tally, …)`: timed, logged, recorded; called as `step(run, …)` it returns its counts.

    A step that is run again and changes nothing leaves the record of its first time: what the hour did stays told.
    """
    name = body.__name__

    @wraps(body)
    @stores_told()
    def stepped(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> Counts:
        shard = "-".join(str(kwargs[key]) for key in ("modality", "shard") if key in kwargs) or "0"
        tally, started, clock = Tally(), datetime.now(UTC), time.perf_counter()
        faults.point(f"step.{name}.begun")
        with (
            _no_other_run(name, run.settings),
            fence.sharing(run.settings),
            structlog.contextvars.bound_contextvars(run_id=run.id, step=name),
        ):
            body(run, tally, *args, **kwargs)
            seconds = time.perf_counter() - clock
            faults.point(f"step.{name}.done")
            log.info("step done", seconds=round(seconds, 2), wrote=tally.wrote, **tally.counts)
        before = run.staging.record(name, shard)
        same_input = before is not None and all(before.get(key) == value for key, value in tally.extra.items())
        if before is not None and same_input and not tally.wrote:
            return Counts(before["counts"])
        run.staging.put_record(
            {
                "step": name,
                "shard": shard,
                "started_at": started.isoformat(),
                "seconds": seconds,
                "peak_memory_bytes": _peak_memory_bytes(),
                "counts": tally.counts,
                "wrote": tally.wrote,
                **tally.extra,
            }
        )
        faults.point(f"step.{name}.told")
        return tally.counts

    return stepped


_alone: ContextVar[bool] = ContextVar("sosie_run_alone", default=False)


def _no_other_run(name: str, settings: Settings) -> AbstractContextManager[None]:
    """Shards are embedded side by side; a switch of models stands between two steps of an hour that has the lock."""
    return nullcontext() if name == "embed" or fence.switching(settings) else run_alone(settings)


@contextmanager
def run_alone(settings: Settings) -> Iterator[None]:
    """One run of a home at a time: a second one waits, `run_lock_seconds` at most. Raises `StoreBusy` after that.

    Held for a whole hour by `run_all`, and by each step that is called by itself. The operating system frees it where
    the process dies.
    """
    if _alone.get():
        yield
        return
    with exclusive(settings.home / "run.lock", settings.run_lock_seconds, "running an hour of this home"):
        token = _alone.set(True)
        try:
            yield
        finally:
            _alone.reset(token)


def left_behind(run: Run) -> str:
    """What of an hour that stopped is done, in a sentence, and how to go on."""
    landing = "" if run.settings.landing == current_settings().landing else f" --landing {run.settings.landing}"
    try:
        done = ", ".join(dict.fromkeys(record["step"] for record in run.staging.records()))
    except Exception:  # a store out of reach, for which each one's client has errors of its own
        so_far = f"What of hour {run.id} is done can't be told, as its store can't be read. "
    else:
        so_far = f"Nothing of hour {run.id} was done. "
        if done:
            so_far = f"Done and kept of hour {run.id}, by this try or one before: {done}. "
    go_on = f"sosie run{landing} --hour {run.id}"
    return f"{so_far}To go on, once what stopped it is mended: {go_on}. Every step can be run twice, nothing doubles."


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
