"""How a collection of vectors is indexed, by its size."""

from dataclasses import dataclass, field
from typing import Any

METRIC = "COSINE"


@dataclass(frozen=True)
class IndexProfile:
    """How a collection is indexed. `up_to` is the number of rows that it is meant for."""

    index_type: str
    up_to: float
    build: dict[str, int] = field(default_factory=dict)
    search: dict[str, int] = field(default_factory=dict)


PROFILES = {
    "exact": IndexProfile("FLAT", 100_000),
    "compressed": IndexProfile("IVF_SQ8", float("inf"), build={"nlist": 1024}, search={"nprobe": 32}),
    "graph": IndexProfile("HNSW", float("inf"), build={"M": 16, "efConstruction": 200}, search={"ef": 128}),
}
"""`compressed` takes 138 bytes a vector in memory and `graph` 656; both find practically all near-duplicates."""


def profile_for(rows: int) -> str:
    """Name of the profile for a collection of that many rows."""
    return next(name for name, profile in PROFILES.items() if rows <= profile.up_to)


def index_params(profile: IndexProfile, vector_field: str) -> Any:
    """The profile as pymilvus takes it."""
    from pymilvus import MilvusClient

    params = MilvusClient.prepare_index_params()
    # Build parameters count only where they are nested once more.
    params.add_index(
        vector_field,
        index_name=vector_field,
        index_type=profile.index_type,
        metric_type=METRIC,
        params={"params": profile.build},
    )
    return params
