"""OpenLineage: what each task read and wrote, with the Delta version of each table, added to the provider's own events.

Does nothing where the OpenLineage provider is not installed or no transport is set.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sosie.tables import (
    ALERTS,
    CANONICAL_CHOICES,
    CHANGES,
    CLUSTER_EVENTS,
    CLUSTERS,
    DECISIONS,
    HELD_MERGES,
    IMAGE_EMBEDDINGS,
    JUDGEMENTS,
    LISTINGS,
    MODALITIES,
    NEIGHBOURS,
    PAIRS,
    QUARANTINE,
    RECIPES,
    REGROUP,
    RUNS,
    SILENCES,
    SPELLINGS,
    TEXT_EMBEDDINGS,
    Table,
)

if TYPE_CHECKING:
    from sosie.pipeline import Run

_VECTORS = (TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS)

READS: dict[str, tuple[Table, ...]] = {
    "validate": (RUNS, LISTINGS),
    "detect_changes": (RUNS, JUDGEMENTS),
    "embed": (CHANGES, LISTINGS),
    "upsert_vectors": (CHANGES, LISTINGS, *_VECTORS),
    "match": (CHANGES, LISTINGS, *_VECTORS, JUDGEMENTS),
    "cluster": (CHANGES, LISTINGS, PAIRS, JUDGEMENTS, CANONICAL_CHOICES, RUNS),
    "publish_features": (CHANGES, LISTINGS, *_VECTORS, DECISIONS, RUNS),
    "follow": (CHANGES, LISTINGS),
    "report": (PAIRS, LISTINGS, CLUSTERS, CLUSTER_EVENTS, QUARANTINE),
    "alert": (
        RUNS,
        QUARANTINE,
        PAIRS,
        JUDGEMENTS,
        CLUSTERS,
        CLUSTER_EVENTS,
        CHANGES,
        LISTINGS,
        *_VECTORS,
        SILENCES,
    ),
}
"""Tables that each step reads beside those that it writes."""

WRITES: dict[str, tuple[Table, ...]] = {
    "validate": (QUARANTINE,),
    "detect_changes": (LISTINGS, CHANGES, CLUSTER_EVENTS),
    "embed": _VECTORS,
    "match": (NEIGHBOURS, SPELLINGS, PAIRS, RECIPES, REGROUP),
    "cluster": (CLUSTERS, CLUSTER_EVENTS, DECISIONS, HELD_MERGES, REGROUP),
    "follow": _VECTORS,
    "report": (RUNS,),
    "alert": (ALERTS,),
}
"""Tables that each step may write; `upsert_vectors` and `follow` write the index, `publish_features` Feast."""


@contextmanager
def told(run: "Run", step: str) -> Iterator[None]:
    """Tell, when the body is through, what the step read (as it was before) and wrote (as it is then)."""
    if not _wanted():
        yield
        return
    written = WRITES.get(step, ())
    inputs = _held(run, (*READS.get(step, ()), *written))
    before = {table.name: run.lake.version(table) for table in written}
    if step == "validate":
        inputs.append(_dataset("file", f"{run.settings.landing}/{run.id}", run.id))
    if step == "match":
        inputs += _index(run)
    yield
    outputs = _held(run, [table for table in written if run.lake.version(table) != before[table.name]])
    if step == "upsert_vectors":
        outputs += _index(run)
    if step == "publish_features":
        from sosie.features import LOOKUP

        outputs.append(_dataset("feast", f"sosie.{LOOKUP}", run.id))

    from airflow.providers.openlineage.api.datasets import emit_dataset_lineage

    emit_dataset_lineage(inputs=inputs, outputs=outputs)


def _wanted() -> bool:
    if importlib.util.find_spec("airflow.providers.openlineage") is None:
        return False
    from airflow.providers.openlineage.api.core import is_openlineage_active

    return bool(is_openlineage_active())


def _held(run: "Run", tables: Sequence[Table]) -> list[Any]:
    """The tables that are there, each with its version."""
    from openlineage.client.facet_v2 import schema_dataset

    found = []
    for table in tables:
        version = run.lake.version(table)
        if version >= 0:
            fields = [
                schema_dataset.SchemaDatasetFacetFields(name=name, type=str(kind))
                for name, kind in table.schema.items()
            ]
            schema = schema_dataset.SchemaDatasetFacet(fields=fields)
            found.append(_dataset(*_place(run.lake.path(table)), str(version), schema=schema))
    return found


def _index(run: "Run") -> list[Any]:
    """The index's collections, each under the embedding version that it serves."""
    from sosie.index import alias_name
    from sosie.pipeline.embed import version

    place = run.settings.milvus_uri or "http://127.0.0.1"  # the embedded server has another port each time
    namespace = f"milvus://{urlsplit(place).netloc}"
    return [_dataset(namespace, alias_name(one), version(run.settings, one)) for one in MODALITIES]


def _place(path: str) -> tuple[str, str]:
    """Namespace and name of a table's path, as OpenLineage's naming has them."""
    parts = urlsplit(path)
    return (f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")) if parts.scheme else ("file", path)


def _dataset(namespace: str, name: str, version: str, **facets: Any) -> Any:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    stamp = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version)
    return Dataset(namespace=namespace, name=name, facets={"version": stamp, **facets})
