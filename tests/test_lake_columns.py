"""A table that was made before it got a column goes on as it is."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from sosie.lake import Lake
from sosie.tables import CLUSTERS

OLDER = replace(CLUSTERS, columns={name: dtype for name, dtype in CLUSTERS.columns.items() if name != "size"},
                required=CLUSTERS.required - {"size"})  # fmt: skip
NEW = replace(CLUSTERS, required=CLUSTERS.required - {"size"})
ROW = {"listing_id": "a", "cluster_id": "c1", "canonical_id": "a", "changed_run": "h1"}


def test_a_new_column_is_null_in_old_rows_and_kept_in_new_ones(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.upsert(OLDER, pl.DataFrame([ROW]))
    assert lake.read(NEW)["size"].to_list() == [None]
    rows = pl.DataFrame([ROW | {"size": 2}, ROW | {"listing_id": "b", "size": 2}], schema=NEW.schema)
    assert lake.upsert(NEW, rows).rows == 2
    assert lake.read(NEW).sort("listing_id").equals(rows)
    assert lake.append(NEW, rows.with_columns(listing_id=pl.lit("c") + pl.col("listing_id"))).rows == 2
    assert lake.scan(NEW, as_of=0).collect_schema() == NEW.schema
