"""Who is looking at which pair right now, and what each reviewer set aside: short-lived, so not in the lake."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

LEASE_SECONDS = 180.0
SKIP_SECONDS = 12 * 3600.0

Pair = tuple[str, str]

_SCHEMA = """
create table if not exists leases (
  left_id text, right_id text, who text not null, until real not null, primary key (left_id, right_id));
create table if not exists skips (
  left_id text, right_id text, who text, until real not null, primary key (left_id, right_id, who));
"""


@dataclass(frozen=True)
class Leases:
    """A SQLite file that all API server processes of one machine share. `seconds` is how long a look lasts."""

    file: Path
    seconds: float = LEASE_SECONDS

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=5, isolation_level=None)) as connection:
            # What dies with the machine is worth no wait for its disk.
            connection.execute("pragma synchronous = off")
            if not connection.execute("select 1 from sqlite_master where name = 'skips'").fetchone():
                connection.executescript(_SCHEMA)
            yield connection

    def take(self, pair: Pair, who: str) -> str:
        """Try to have the pair for a while; returns who has it now. Asking again makes it longer."""
        now = time.time()
        with self._open() as connection:
            connection.execute("begin immediate")  # who has it must not give it back before we ask who that is
            for table in ("leases", "skips"):
                connection.execute(f"delete from {table} where until <= ?", (now,))  # noqa: S608 two names of ours
            connection.execute(
                "insert into leases values (?, ?, ?, ?) on conflict do update set who = excluded.who, "
                "until = excluded.until where leases.who = excluded.who or leases.until <= ?",
                (*pair, who, now + self.seconds, now),
            )
            (holder,) = connection.execute("select who from leases where left_id = ? and right_id = ?", pair).fetchone()
            connection.execute("commit")
        return str(holder)

    def release(self, pair: Pair, who: str) -> None:
        with self._open() as connection:
            connection.execute("delete from leases where left_id = ? and right_id = ? and who = ?", (*pair, who))

    def skip(self, pair: Pair, who: str) -> None:
        """Set the pair aside for this reviewer for `SKIP_SECONDS`; others still see it."""
        with self._open() as connection:
            connection.execute(
                "insert or replace into skips values (?, ?, ?, ?)", (*pair, who, time.time() + SKIP_SECONDS)
            )
            connection.execute("delete from leases where left_id = ? and right_id = ? and who = ?", (*pair, who))

    def not_for(self, who: str) -> pl.DataFrame:
        """left_id, right_id of what others look at now, and of what this reviewer skipped."""
        now = time.time()
        with self._open() as connection:
            rows = connection.execute(
                "select left_id, right_id from leases where who <> ? and until > ? "
                "union select left_id, right_id from skips where who = ? and until > ?",
                (who, now, who, now),
            ).fetchall()
        return pl.DataFrame(rows, schema={"left_id": pl.String, "right_id": pl.String}, orient="row")
