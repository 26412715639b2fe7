"""The lake: Delta tables that hold the truth.

Every write is checked against its table, and makes no commit when it says nothing new.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Schema, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.table import TableMerger
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from sosie import decoded, faults
from sosie.errors import SchemaMismatch, StoreBusy, TerminalError, cause, from_store, stores_told
from sosie.places import is_local, place
from sosie.tables import DIM, Table

_again_if_raced = retry(
    retry=retry_if_exception_type(CommitFailedError),
    stop=stop_after_attempt(8),
    wait=wait_random_exponential(multiplier=0.1, max=5),
    retry_error_callback=lambda state: _busy(state.args[1], state.outcome),
)


def _busy(table: Table, outcome: object) -> None:
    raise StoreBusy(
        f"Table {table.name} kept changing under our write (8 tries). Nothing of it was kept; run the step again."
    ) from getattr(outcome, "exception", lambda: None)()


_AS_THEY_ARE = WriterProperties(
    compression="UNCOMPRESSED",
    default_column_properties=ColumnProperties(dictionary_enabled=False),
    column_properties={"source": ColumnProperties(dictionary_enabled=True)},
)
"""Numbers that are hashes: to press them takes longer than to write them, and leaves them as long as they were."""


@dataclass(frozen=True)
class Written:
    """Rows that a write added, replaced and found already there."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0

    @property
    def rows(self) -> int:
        """Rows that really changed."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: "Written") -> "Written":
        mine, more = astuple(self), astuple(other)
        return Written(*(one + another for one, another in zip(mine, more, strict=True)))


class Delta(DeltaTable):
    """A Delta table that tells files on a disk by their names there.

    delta-rs tells them as a URL has them, in which the folder `my lake` is `my%20lake`, and readers look for that.
    """

    def file_uris(self, *args: Any, **options: Any) -> list[str]:
        files, url = super().file_uris(*args, **options), self.table_uri
        if not url.startswith("file://"):
            return files
        escaped = url.removeprefix("file://")
        return [unquote(escaped) + file.removeprefix(escaped) for file in files]


@dataclass(frozen=True)
class Lake:
    """Delta tables under one URI: a folder, or `s3://…`, whose credentials come from the environment (`AWS_…`)."""

    uri: str

    def path(self, table: Table) -> str:
        return self.below(table.name)

    def below(self, name: str) -> str:
        """Where something of this name lies in the lake's folder, be it a table or not."""
        return f"{self.uri.rstrip('/')}/{name}"

    def open(self, table: Table, version: int | None = None) -> Delta | None:
        """The Delta table, at a version or its newest; None where there is none yet. Raises `StoreBusy`."""
        try:
            return Delta(self.path(table), version)
        except TableNotFoundError:
            return None
        except OSError as error:
            raise StoreBusy(
                f"Table {self.path(table)} can't be read ({cause(error)}). Mend the store's address, the network or "
                "the rights, then try again: nothing was changed."
            ) from error

    def _open_or_create(self, table: Table) -> DeltaTable:
        schema = pl.DataFrame(schema=table.schema).to_arrow().schema
        held = self.open(table)
        if held is not None:
            there = {column.name for column in held.schema().fields}
            new = [column for column in Schema.from_arrow(schema).fields if column.name not in there]
            if new:
                held.alter.add_columns(new)
            return held
        try:
            return DeltaTable.create(
                self.path(table),
                schema=schema,
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                name=table.name,
            )
        except TableNotFoundError as error:  # so Delta calls a folder that it can't make
            raise StoreBusy(
                f"Table {table.name} can't be made ({cause(error)}). Make room or mend the rights, then run the step "
                "again."
            ) from error

    def create(self, tables: Iterable[Table]) -> None:
        """Make the tables that aren't there yet."""
        for table in tables:
            self._open_or_create(table)

    def version(self, table: Table) -> int:
        """Delta version of the table, -1 where there is none yet."""
        held = self.open(table)
        return -1 if held is None else held.version()

    def version_before(self, table: Table, run_id: str) -> int | None:
        """The last version before a run first wrote the table; None where it never did."""
        held = self.open(table)
        own = [int(commit["version"]) for commit in held.history() if commit.get("run_id") == run_id] if held else []
        return min(own) - 1 if own else None

    def scan(self, table: Table, *, as_of: int | datetime | None = None) -> pl.LazyFrame:
        """All rows, lazily; no rows where the table does not exist yet. `as_of` is a Delta version or a time.

        Raises `TerminalError` where a file of what is held now is missing or cut short.
        """
        held = self.open(table)
        if held is None:
            return pl.LazyFrame(schema=table.schema)
        if as_of is None:
            return self._rows(table, held)
        held.load_as_version(as_of)
        return _declared(table, pl.scan_delta(held))

    @stores_told()
    def read(self, table: Table, *predicates: pl.Expr, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Rows for which every predicate holds. Raises `StoreBusy`."""
        frame = reduce(lambda rows, predicate: rows.filter(predicate), predicates, self.scan(table))
        return (frame if columns is None else frame.select(columns)).collect()

    @stores_told()
    def lookup(
        self, table: Table, column: str, values: pl.Series | Iterable[str], *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Rows whose `column` is one of `values`. Reads one column in full, and others that are flat where it hits."""
        wanted = pl.Series(values, dtype=pl.String).unique()
        rows = table.schema.to_frame().lazy() if wanted.is_empty() else self.scan(table)
        frame = rows.filter(pl.col(column).is_in(wanted.implode()))
        return (frame if columns is None else frame.select(columns)).collect()

    def mapped(
        self, table: Table, *worth: pl.Expr, columns: Sequence[str] | None = None, **partition: str
    ) -> pl.DataFrame:
        """Rows of one partition, mapped into memory: for large columns that are read again and again.

        Delta never changes a file, so each is decoded once, into a copy below the lake (`sosie.decoded`). A lake in an
        object store has no place for copies, so there only rows are read for which all of `worth` holds.
        """
        if unknown := set(partition) - set(table.partition_by):
            raise ValueError(f"Table {table.name} has no partitions by {', '.join(sorted(unknown))}.")
        held, copies, wanted = self.open(table), self.copies(table), list(columns or table.columns)
        if held is None or copies is None:
            mine = (pl.col(name) == value for name, value in partition.items())
            return self.read(table, *mine, *worth, columns=wanted)
        self._check_files(table, held)
        decoded.forget(copies, held.file_uris())
        stored = pl.Schema({name: dtype for name, dtype in table.columns.items() if name not in partition})
        files = held.file_uris(file_pruning_predicate=[(name, "=", value) for name, value in partition.items()] or None)
        parts = [decoded.frame(file, copies, stored) for file in files]
        return pl.concat([stored.to_frame(), *parts], rechunk=False).select(
            pl.lit(partition[name]).alias(name) if name in partition else name for name in wanted
        )

    def _rows(self, table: Table, held: DeltaTable) -> pl.LazyFrame:
        """All rows of an open table. Raises `TerminalError` where one of its files is missing or cut short."""
        self._check_files(table, held)
        return _declared(table, pl.scan_delta(held))

    def _check_files(self, table: Table, held: DeltaTable) -> None:
        """Polars panics over a file that was cut short, and names none. An object store has whole objects or none."""
        folder = place(self.path(table))
        if not is_local(folder):
            return
        for path, size in pl.DataFrame(held.get_add_actions()).select("path", "size_bytes").iter_rows():
            file = folder / unquote(path)
            found = file.stat().st_size if file.exists() else 0
            if found != size:
                raise TerminalError(
                    f"Table {table.name} can't be read: {file} has {found:,} of its {size:,} bytes. "
                    "Restore it from a backup."
                )

    def copies(self, table: Table) -> Path | None:
        """Where the decoded copies of a table's files are; nowhere where the lake is in an object store."""
        folder = place(self.uri)
        return folder / "_decoded" / table.name if is_local(folder) else None

    def checked(self, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` in the table's column order and types. Raises `SchemaMismatch` saying which column and why."""
        unknown = set(rows.columns) - set(table.columns)
        missing = set(table.columns) - set(rows.columns)
        if unknown or missing:
            raise SchemaMismatch(
                f"Rows for table {table.name} lack {sorted(missing) or 'nothing'} "
                f"and have {sorted(unknown) or 'nothing'} too many."
            )
        try:
            rows = rows.select(pl.col(name).cast(dtype) for name, dtype in table.columns.items())
        except pl.exceptions.PolarsError as error:
            raise SchemaMismatch(f"Rows for table {table.name} don't have its types: {error}") from error
        for name in sorted(table.required):
            if nulls := rows[name].null_count():
                raise SchemaMismatch(f"{nulls} rows for table {table.name} have no {name}, which it requires.")
        for name in table.vectors:
            widths = rows[name].list.len().unique().to_list()
            if widths not in ([], [DIM]):
                raise SchemaMismatch(f"Table {table.name} holds vectors of {DIM} numbers; received widths {widths}.")
        if rows.height != rows.select(table.key).n_unique():
            raise SchemaMismatch(f"Rows for table {table.name} repeat a key ({', '.join(table.key)}).")
        return rows

    def upsert(self, table: Table, rows: pl.DataFrame, *, run_id: str = "") -> Written:
        """Insert or replace by key; rows that equal what is held, volatile columns aside, are left as they are."""
        return self._exchanged(table, rows, pl.DataFrame(schema=table.schema), run_id, "upsert")

    @_again_if_raced
    def append(self, table: Table, rows: pl.DataFrame, *, run_id: str = "") -> Written:
        """Add the rows whose key isn't held yet. Never rewrites a file, so history stays as it was written.

        Delta lets two appends pass at once: two writers that add the same key at the same time both do, and say so.
        Where that may be, as with `embed`, who reads takes each key once; other tables have one writer at a time.
        """
        rows = self.checked(table, rows)
        if rows.is_empty():
            return Written()
        fresh = rows.join(self._held(table, rows, columns=table.key), on=table.key, how="anti")
        if not fresh.is_empty():
            with writing(table, "append"):
                fresh.write_delta(
                    self._open_or_create(table),
                    mode="append",
                    delta_write_options={"commit_properties": _commit(run_id)},
                )
        return Written(inserted=fresh.height, unchanged=rows.height - fresh.height)

    @_again_if_raced
    @stores_told()
    def delete(self, table: Table, keys: pl.DataFrame, *, run_id: str = "") -> Written:
        """Delete the rows that have one of `keys` (columns: all or some of the table's key)."""
        if keys.is_empty():
            return Written()
        names = keys.columns
        hits = self.scan(table).join(keys.lazy().unique(), on=names, how="semi").select(pl.len()).collect().item()
        if not hits:
            return Written()
        with writing(table, "delete"):
            self._merge(table, keys.unique(), names, run_id).when_matched_delete().execute()
        return Written(deleted=hits)

    @_again_if_raced
    def rewrite(self, table: Table, rows: pl.DataFrame, moved: int, *, run_id: str = "") -> Written:
        """Let the table hold `rows` and nothing else. `moved` of them are others than before; of none nothing is done.

        For a table that is held whole already and whose changes lie in all of its files: a merge would read it again.
        Only for who keeps other writers away, as an hour's lock does: what they wrote since it was read is undone.
        """
        if moved:
            rows = self.checked(table, rows)
            with writing(table, "rewrite"):
                rows.write_delta(
                    self._open_or_create(table),
                    mode="overwrite",
                    delta_write_options={
                        "schema_mode": "overwrite",
                        "commit_properties": _commit(run_id),
                        "writer_properties": _AS_THEY_ARE,
                    },
                )
        return Written(updated=moved)

    def exchange(self, table: Table, rows: pl.DataFrame, gone: pl.DataFrame, *, run_id: str = "") -> Written:
        """`upsert` some rows and `delete` others in one commit: nobody ever sees, or is left with, half of it.

        `gone` has the table's whole key; a key that is in `rows` too stays.
        """
        return self._exchanged(table, rows, gone, run_id, "exchange")

    @_again_if_raced
    def _exchanged(self, table: Table, rows: pl.DataFrame, gone: pl.DataFrame, run_id: str, how: str) -> Written:
        rows = self.checked(table, rows)
        fresh, updated = (rows, 0) if rows.is_empty() else self._fresh(table, rows)
        gone = gone.select(table.key).unique().join(rows, on=table.key, how="anti")
        hits = gone if gone.is_empty() else gone.join(self._held(table, gone, columns=table.key), on=table.key)
        written = Written(fresh.height - updated, updated, rows.height - fresh.height, hits.height)
        if not written.rows:
            return written
        source = pl.concat(
            [fresh.with_columns(_gone=pl.lit(False)), hits.with_columns(_gone=pl.lit(True))], how="diagonal"
        )
        values = {name: f"s.{_quoted(name)}" for name in table.columns}
        with writing(table, how):
            (
                self._merge(table, source, table.key, run_id)
                .when_matched_delete(predicate="s._gone")
                .when_matched_update(values, predicate="NOT s._gone")
                .when_not_matched_insert(values, predicate="NOT s._gone")
                .execute()
            )
        return written

    def _merge(self, table: Table, source: pl.DataFrame, key: Sequence[str], run_id: str) -> TableMerger:
        """A merge of `source`, s, into the table, t, by `key`."""
        return self._open_or_create(table).merge(
            source.to_arrow(),
            predicate=" AND ".join(f"t.{_quoted(name)} = s.{_quoted(name)}" for name in key),
            source_alias="s",
            target_alias="t",
            commit_properties=_commit(run_id),
        )

    def _fresh(self, table: Table, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Those of `rows` that say something new, and how many of them replace a row."""
        held = self._held(table, rows)
        content = [name for name in table.columns if name not in table.volatile]
        same = (
            rows.select(content)
            .with_row_index("i")
            .join(held.select(content), on=content, how="semi", nulls_equal=True)
        )
        fresh = rows.with_row_index("i").join(same, on="i", how="anti").drop("i")
        return fresh, fresh.join(held, on=table.key, how="semi").height

    @stores_told()
    def _held(self, table: Table, rows: pl.DataFrame, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
        first = rows[table.key[0]].unique()
        frame = self.scan(table).filter(pl.col(table.key[0]).is_in(first.implode()))
        if len(table.key) > 1:
            frame = frame.join(rows.lazy().select(table.key), on=table.key, how="semi")
        return (frame if columns is None else frame.select(columns)).collect()


def _declared(table: Table, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with the table's columns: one that was made before it got a column has nulls there."""
    there = rows.collect_schema()
    return rows.select(
        pl.col(name)
        if there.get(name) == dtype
        else (pl.col(name) if name in there else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in table.columns.items()
    )


_DISK_FAILED = "Failed to parse parquet: External: "
"""How an error begins that a disk gave amid a data file: Parquet's writer hands it on, and it is no OSError then."""


@contextmanager
def writing(table: Table, how: str) -> Iterator[None]:
    """One commit. Raises `StoreBusy` where the store has no room or no right for it."""
    with faults.around(f"lake.{table.name}.{how}"):
        try:
            yield
        except (OSError, DeltaError) as error:
            if isinstance(error, DeltaError) and not (str(error).startswith(_DISK_FAILED) or from_store(error)):
                raise
            raise StoreBusy(
                f"Table {table.name} can't be written ({cause(error)}). Nothing of this write was kept. Make room or "
                "mend the rights, then run the hour again: nothing doubles."
            ) from error


def _quoted(name: str) -> str:
    return f'"{name}"'


def _commit(run_id: str) -> CommitProperties:
    return CommitProperties(custom_metadata={"run_id": run_id})
