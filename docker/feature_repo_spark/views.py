"""The definitions of `feature_repo/views.py` over Spark.

Only where rows come from differs: a query over the Delta table, cut to one embedding version where a view has one.
"""

import importlib.util
import os
from types import ModuleType

from feast import Entity, FeatureService, FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

from sosie.features.versions import Versions
from sosie.lake import Lake
from sosie.settings import PROJECT
from sosie.tables import Table

FORMAT = os.environ.get("SOSIE_SPARK_FORMAT", "delta")
"""`parquet` reads the files as they lie there, without Delta's reader: right only until a table is compacted."""


def build(lake: Lake, versions: Versions) -> list[Entity | DataSource | FeatureView | FeatureService]:
    """Every object of the repo, for these embedding versions."""
    objects: list[Entity | DataSource | FeatureView | FeatureService] = _plain().build(lake, versions, spark_source)
    return objects


def spark_source(
    lake: Lake, table: Table, *, version: str | None = None, field_mapping: dict[str, str] | None = None
) -> SparkSource:
    """A table of the lake, or the rows of one embedding version in it."""
    rows = f"SELECT * FROM {FORMAT}.`{lake.path(table)}`"  # noqa: S608 settings of ours
    return SparkSource(
        name=table.name if version is None else f"{table.name}_{version}",
        query=rows if version is None else f"{rows} WHERE embedding_version = '{version}'",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        field_mapping=field_mapping,
    )


def _plain() -> ModuleType:
    path = PROJECT / "feature_repo" / "views.py"
    spec = importlib.util.spec_from_file_location("sosie_plain_views", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
