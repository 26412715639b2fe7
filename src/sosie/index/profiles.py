"""How a collection of vectors is indexed, by its size."""

import re
from dataclasses import dataclass, field
from typing import Any

METRIC = "COSINE"


@dataclass(frozen=True)
class IndexProfile:
    """How a collection is indexed. `up_to` is the number of rows that it is meant for."""

    index_type: str
    up_to: float
    build: dict[str, int | bool | str] = field(default_factory=dict)
    search: dict[str, int] = field(default_factory=dict)

    def asking(self, limit: int) -> dict[str, int]:
        """Search parameters for that many neighbours: a graph is searched no less broadly, or Milvus refuses."""
        return {name: max(value, limit) if name == "ef" else value for name, value in self.search.items()}


PROFILES = {
    "exact": IndexProfile("FLAT", 100_000),
    "compressed": IndexProfile("IVF_SQ8", 10_000_000, build={"nlist": 1024}, search={"nprobe": 128}),
    "large": IndexProfile(
        "IVF_RABITQ",
        float("inf"),
        build={"nlist": 2048, "refine": True, "refine_type": "SQ8"},
        search={"nprobe": 256, "refine_k": 15},
    ),
    "graph": IndexProfile("HNSW", float("inf"), build={"M": 16, "efConstruction": 200}, search={"ef": 128}),
}
"""`exact` is for a small home, `compressed` for most, `large` for a cluster.

Milvus indexes each of its segments by itself, so the number of lists goes by a segment's rows, not by the catalogue's.
A vector takes 138 bytes of memory in `compressed` and 656 in `graph`. `large` keeps one bit a dimension in memory and
ranks 15 × k of what that brings by eight bits each, which may lie on disk (`mmap.enabled`). Both search one list in
eight, as a duplicate in other words lies in another list than its double.
"""

_CLUSTER_SIZED = "large"
_FIRST_WITH_RABITQ = (2, 6)


def profile_for(rows: int, server: str = "") -> str:
    """Name of the profile for a collection of that many rows; `server` is the version that a Milvus cluster tells.

    The embedded server and clusters before 2.6 have no IVF_RABITQ: there `compressed` is as far as it goes.
    """
    told = re.match(r"v?(\d+)\.(\d+)", server)
    able = told is not None and (int(told[1]), int(told[2])) >= _FIRST_WITH_RABITQ
    fit = next(name for name, profile in PROFILES.items() if rows <= profile.up_to)
    return "compressed" if fit == _CLUSTER_SIZED and not able else fit


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
