"""Feast's DuckDB offline store, reading Delta tables without an extension, one embedding version a view.

All versions of a modality lie in one Delta table, partitioned by `embedding_version`. Feast's `FileSource` knows no
filter, so a view on the plain table would hand out the newest vector of *any* version. A source that carries the tag
`embedding_version` is read here as that partition alone; every other source as Feast reads it.

Feast loads this module by the name in `feature_store.yaml`; import it nowhere else, it costs seconds.
"""

from datetime import datetime
from typing import Any, Literal

import fsspec.core
import ibis  # type: ignore[import-untyped,unused-ignore]
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
from feast.data_format import DeltaFormat  # noqa: TID253
from feast.data_source import DataSource  # noqa: TID253
from feast.infra.offline_stores import duckdb as plain  # noqa: TID253
from feast.infra.offline_stores.ibis import (  # noqa: TID253
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob  # noqa: TID253
from feast.repo_config import RepoConfig  # noqa: TID253

from sosie.lake import Delta

VERSION = "embedding_version"
"""Tag of a source, and column of its table."""


class VersionedDuckDBOfflineStoreConfig(plain.DuckDBOfflineStoreConfig):  # type: ignore[misc]
    type: Literal["sosie.features.offline.VersionedDuckDBOfflineStore"] = (
        "sosie.features.offline.VersionedDuckDBOfflineStore"
    )


class VersionedDuckDBOfflineStore(plain.DuckDBOfflineStore):  # type: ignore[misc]
    """`DuckDBOfflineStore` whose three reads go through `_read`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig, *args: Any, filter_by_created_timestamp: bool = False, **options: Any
    ) -> RetrievalJob:
        return get_historical_features_ibis(
            config, *args, filter_by_created_timestamp=filter_by_created_timestamp, **options, **_ways(config)
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        return pull_latest_from_table_or_query_ibis(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column,
            start_date, end_date, **_ways(config),
        )  # fmt: skip

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        return pull_all_from_table_or_query_ibis(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field,
            created_timestamp_column=created_timestamp_column, start_date=start_date, end_date=end_date,
            **_ways(config),
        )  # fmt: skip


def _ways(config: RepoConfig) -> dict[str, Any]:
    return {
        "data_source_reader": _read,
        "data_source_writer": plain._write_data_source,
        "staging_location": config.offline_store.staging_location,
        "staging_location_endpoint_override": config.offline_store.staging_location_endpoint_override,
    }


def _read(data_source: DataSource, repo_path: str) -> Any:
    """The source as a lazy Ibis table: a Delta table as its log's live Parquet files, anything else as Feast reads it.

    Feast itself reads Delta by DuckDB's `delta` extension, which has to be downloaded; DuckDB's own Parquet reader has
    not. (A pyarrow dataset would not do: the files hold string views, on which pyarrow can't evaluate filters.)
    """
    if not isinstance(data_source.file_format, DeltaFormat):
        return plain._read_data_source(data_source, repo_path)
    options = dict(data_source.resolve_credentials() or {})
    if data_source.s3_endpoint_override:
        options["AWS_ENDPOINT_URL"] = data_source.s3_endpoint_override
    held = Delta(data_source.path, storage_options=options or None)
    version = data_source.tags.get(VERSION)
    files = held.file_uris(file_pruning_predicate=None if version is None else [(VERSION, "=", version)])
    if not files:
        return ibis.memtable(pa.schema(held.schema().to_arrow()).empty_table())
    if "://" in files[0] and not files[0].startswith("file://"):
        # DuckDB's own client would have to be downloaded, and Ibis does so for whatever starts with `s3://`.
        filesystem, _ = fsspec.core.url_to_fs(files[0])
        ibis.get_backend().con.register_filesystem(filesystem)
        files = [file.replace("s3://", "s3a://", 1) for file in files]
    table = ibis.read_parquet(files, union_by_name=True, hive_partitioning=True, hive_types_autocast=False)
    return table if version is None else table.filter(table[VERSION] == version)
