"""What lineage says of each step is what the step does."""

from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest

from sosie import pipeline, tables
from sosie.airflow.datasets import READS, WRITES
from sosie.lake import Lake
from sosie.settings import load
from sosie.simulate import Marketplace, write

WITH_REASON = {
    "publish_features": "looks at listings only where a picture went",
    "follow": "has nothing to do without a second version",
    "alert": "looks at vectors only after several hours",
}
"""Steps that may read less in two hours than they can."""


def test_each_step_reads_and_writes_the_tables_that_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "market", Marketplace(listings=120, hours=2, seed=3))
    settings = load(home=tmp_path / "home", landing=tmp_path / "market" / "landing")
    asked, read, written = (defaultdict[str, set[str]](set) for _ in range(3))
    step, scan, mapped = "", Lake.scan, Lake.mapped

    def scanned(self: Lake, table: tables.Table, **options: object) -> pl.LazyFrame:
        asked[step].add(table.name)
        if self.version(table) >= 0:
            read[step].add(table.name)
        return scan(self, table, **options)  # type: ignore[arg-type]

    def taken(self: Lake, table: tables.Table, *worth: pl.Expr, **options: object) -> pl.DataFrame:
        asked[step].add(table.name)
        read[step].add(table.name)
        return mapped(self, table, *worth, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "scan", scanned)
    monkeypatch.setattr(Lake, "mapped", taken)
    for hour in sorted(path.name for path in settings.landing.glob("*T*")):
        run = pipeline.Run.of(hour, settings=settings)
        for step in READS:
            before = {table.name: run.lake.version(table) for table in tables.ALL}
            for part in pipeline.shards(run) if step == "embed" else [{}]:
                getattr(pipeline, step)(run, **part)
            written[step] |= {table.name for table in tables.ALL if run.lake.version(table) != before[table.name]}
    for step, told in READS.items():
        reads, writes = ({table.name for table in some} for some in (told, WRITES.get(step, ())))
        assert written[step] <= writes, step
        assert read[step] - writes <= reads, step
        assert reads <= asked[step] or step in WITH_REASON, step
