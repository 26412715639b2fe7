"""Lists of neighbours as the lake keeps them: rows as they were written once, and those that took their place since.

An hour changes a list in a hundred, and they lie everywhere, so to change them in place is to write all of them. They
are appended instead, with a `turn` that says which came later, and the table is written anew when half of its rows were
overtaken (a log-structured store, O'Neil et al. 1996). What was written before is mapped into memory, and only what is
asked for is copied out of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import polars as pl

from sosie.lake import Lake, Written
from sosie.neighbours import LIST, with_any
from sosie.tables import NEIGHBOURS

OVERTAKEN = 1 / 2
"""Share of rows that others took the place of, above which the table is written anew: passing over them is cheap."""

_KEY = ["number", "source"]
_KEYS = pl.Schema({name: LIST[name] for name in _KEY})


@dataclass(frozen=True)
class NeighbourLists:
    """`written`: NEIGHBOURS with `stands`, false where a row was overtaken; `changed` and `gone` are what isn't
    written yet: rows, and number and source of those that have none any more. `stored` counts the table's rows."""

    written: pl.DataFrame
    stored: int
    changed: pl.DataFrame
    gone: pl.DataFrame

    @classmethod
    def read(cls, lake: Lake, *, anew: bool = False) -> Self:
        """As the lake has them; none, for all to be made, where `anew`."""
        if anew:
            stored = lake.scan(NEIGHBOURS).select(pl.len()).collect().item()
            return replace(cls.of(NEIGHBOURS.schema.to_frame()), stored=stored)
        return cls.of(lake.mapped(NEIGHBOURS))

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Self:
        """Of rows of NEIGHBOURS, all of them written."""
        latest = rows.filter(pl.col("turn") > 0).group_by(_KEY).agg(latest=pl.col("turn").max())
        overtaken = _placed(rows, latest).filter(pl.col("turn") < pl.col("latest"))["row"]
        stands = rows["content_hash"].is_not_null().scatter(overtaken, False)
        return cls(rows.with_columns(stands=stands), rows.height, LIST.to_frame(), _KEYS.to_frame())

    def where(self, *predicates: pl.Expr, columns: Sequence[str] = tuple(LIST)) -> pl.DataFrame:
        """Those rows of `neighbours.LIST` for which every predicate holds, now."""
        written = self.written.lazy().filter(pl.col("stands"), *predicates).select(columns)
        changed = self.changed.lazy().filter(*predicates).select(columns)
        return pl.concat(pl.collect_all([written, changed]))

    def holding(self, source: str, others: pl.Series) -> pl.Series:
        """Numbers of those on whose list in a source one of `others` is."""
        lists = self.where(pl.col("source") == source, columns=["number", "others"])
        return lists.filter(with_any(others))["number"]

    def replaced(self, rows: pl.DataFrame, gone: pl.DataFrame) -> Self:
        """The same with `rows` in place of what their listings had in a source, and without `gone` (number, source)."""
        gone = gone.select(_KEY).join(rows, on=_KEY, how="anti")
        touched = pl.concat([rows.select(_KEY), gone])
        stands = self.written["stands"].clone().scatter(_placed(self.written, touched)["row"], False)
        return replace(
            self,
            written=self.written.with_columns(stands=stands),
            changed=pl.concat([self.changed.join(touched, on=_KEY, how="anti"), rows]),
            gone=pl.concat([self.gone.join(touched, on=_KEY, how="anti"), gone]),
        )

    def write(self, lake: Lake, run_id: str) -> Written:
        """Keep what changed. Only for who keeps other writers away, as an hour's lock does."""
        moved = self.changed.height + self.gone.height + self.stored - self.written.height
        stand = int(self.written["stands"].sum())
        if self.written.height - stand >= self.written.height * OVERTAKEN:
            return lake.rewrite(NEIGHBOURS, self.where().with_columns(turn=0), moved, run_id=run_id)
        gone = pl.concat([LIST.to_frame(), self.gone], how="diagonal")
        turn = self.written.select(pl.col("turn").max() + 1).item()
        rows = pl.concat([self.changed, gone]).with_columns(turn=pl.lit(turn))
        lake.append(NEIGHBOURS, rows, run_id=run_id)
        return Written(updated=moved)


def _placed(rows: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    """Those of `rows` that have one of a few `keys`, with what stands beside it there: number, source, turn, `row`."""
    there = pl.col("number").is_in(keys["number"].unique().implode())
    some = rows.lazy().select(*_KEY, "turn", row=pl.int_range(pl.len())).filter(there).collect()
    return some.join(keys, on=_KEY)
