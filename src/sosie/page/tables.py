"""The lake with its tables held open: a page asks ten times a second what an hourly run asks once."""

from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

import polars as pl

from sosie.lake import Delta, Lake
from sosie.tables import Table


@dataclass
class _Kept:
    """`handle` follows the table's log; `frame` is a lazy scan of its newest version, made anew when that moves."""

    handle: Delta
    version: int
    frame: pl.LazyFrame


@dataclass(frozen=True)
class OpenLake(Lake):
    """Reads as `Lake`, always of the newest version, without reading each table's log from its start again."""

    _kept: dict[str, _Kept] = field(default_factory=dict, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def version(self, table: Table) -> int:
        kept = self._newest(table)
        return -1 if kept is None else kept.version

    def scan(self, table: Table, *, as_of: int | datetime | None = None) -> pl.LazyFrame:
        if as_of is not None:
            return super().scan(table, as_of=as_of)
        kept = self._newest(table)
        return pl.LazyFrame(schema=table.schema) if kept is None else kept.frame

    def _newest(self, table: Table) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(table.name)
            if kept is None:
                handle = self.open(table)
                if handle is None:
                    return None
                kept = _Kept(handle, -1, pl.LazyFrame())
                self._kept[table.name] = kept
            else:
                kept.handle.update_incremental()
            if kept.version != kept.handle.version():
                # A scan of its own: it stays at its version whatever the handle does meanwhile.
                version = kept.handle.version()
                still = self.open(table, version)
                if still is None:
                    return None
                kept.frame, kept.version = self._rows(table, still), version
            return _Kept(kept.handle, kept.version, kept.frame)
