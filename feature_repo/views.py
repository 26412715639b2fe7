"""What Sosie offers as features: embeddings of listings, one view a model version, and the decisions on them.

A view is named by its embedding version because vectors of two versions never compare; a feature service pins the pair
of versions that a consumer was built on. Sources are the lake's Delta tables, so point-in-time joins read what the
pipeline wrote, and nothing is copied.
"""

from collections.abc import Callable
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.types import Array, Bool, Float32, Float64, String
from feast.value_type import ValueType

from sosie.features.versions import Versions, service_name, view_name
from sosie.lake import Lake
from sosie.tables import DECISIONS, DIM, EMBEDDINGS, Table

FOREVER = timedelta(0)  # a vector or a decision holds until there is a newer one


def file_source(
    lake: Lake, table: Table, *, version: str | None = None, field_mapping: dict[str, str] | None = None
) -> DataSource:
    """A table of the lake, or the rows of one embedding version in it, as the DuckDB offline store reads it."""
    return FileSource(
        name=table.name if version is None else f"{table.name}_{version}",
        path=lake.path(table),
        file_format=DeltaFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        field_mapping=field_mapping,
        tags={} if version is None else {"embedding_version": version},
    )


def build(
    lake: Lake, versions: Versions, source: Callable[..., DataSource] = file_source
) -> list[Entity | DataSource | FeatureView | FeatureService]:
    """Every object of the repo, for these embedding versions. Another offline store has another `source`."""
    listing = Entity(
        name="listing",
        join_keys=["listing_id"],
        value_type=ValueType.STRING,
        description="One seller's offer on one marketplace.",
    )
    embeddings = {
        (modality, version): _embedding_view(lake, listing, modality, version, source)
        for modality, known in (("text", versions.text), ("image", versions.image))
        for version in known
    }
    decisions = FeatureView(
        name="decisions",
        entities=[listing],
        ttl=FOREVER,
        source=source(lake, DECISIONS),
        schema=[
            Field(name="is_duplicate", dtype=Bool, description="In a cluster, and not its canonical listing."),
            Field(name="cluster_id", dtype=String, description="Stable; none where the listing stands alone."),
            Field(name="canonical_id", dtype=String, description="The listing of the cluster to show."),
            Field(name="score", dtype=Float64, description="Probability of the match that holds the listing there."),
        ],
        description="Is this listing a duplicate, and of which one?",
    )
    services = [
        FeatureService(
            name=f"listing_embeddings_{text}_{image}",
            features=[embeddings["text", text], embeddings["image", image]],
            description="Text and picture vectors of the two model versions that served together.",
        )
        for text, image in versions.pairs
    ]
    services += [
        FeatureService(
            name=service_name(modality, version),
            features=[view],
            description=f"Vectors of the {modality} model, version {version}, whatever served beside it.",
        )
        for (modality, version), view in embeddings.items()
    ]
    services.append(FeatureService(name="duplicate_lookup", features=[decisions]))
    views = [*embeddings.values(), decisions]
    return [listing, *(view.batch_source for view in views), *views, *services]


def _embedding_view(
    lake: Lake, listing: Entity, modality: str, version: str, source: Callable[..., DataSource]
) -> FeatureView:
    return FeatureView(
        name=view_name(modality, version),
        entities=[listing],
        ttl=FOREVER,
        source=source(
            lake,
            EMBEDDINGS[modality],
            version=version,
            # Names of their own, so that a service can hand out both modalities.
            field_mapping={"vector": f"{modality}_vector", "content_hash": f"{modality}_hash"},
        ),
        schema=[
            Field(name=f"{modality}_vector", dtype=Array(Float32), vector_length=DIM, description="Of unit length."),
            Field(name=f"{modality}_hash", dtype=String, description="Hash of the content that was embedded."),
        ],
        tags={"embedding_version": version},
        description=f"Vectors of the {modality} model, version {version}.",
    )
