"""What a finished run left, as the measures ask for it: read when asked, from the lake alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from sosie import judgements
from sosie.lake import Lake
from sosie.report.counts import Counts, counts_of
from sosie.runs import succeeded_before
from sosie.settings import Settings
from sosie.tables import (
    CHANGES,
    CLUSTER_EVENTS,
    CLUSTERS,
    EMBEDDINGS,
    LISTINGS,
    PAIRS,
    QUARANTINE,
    RUNS,
    Modality,
    having,
)
from sosie.vectors import matrix

log = structlog.get_logger(__name__)

SAMPLE = 10_000
"""Earlier vectors, and pairs, that a run is held against."""


@dataclass(frozen=True)
class Merge:
    """Clusters that became one; `sizes` of them before, the largest first, two or more."""

    cluster_id: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Look:
    """A run's manifest, and the lake as it stands after it."""

    lake: Lake
    manifest: Mapping[str, Any]
    settings: Settings

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    @cached_property
    def count(self) -> Counts:
        return Counts(self.manifest)

    def count_or_none(self, name: str) -> int | None:
        """A count of the manifest; None where the step didn't run or didn't say."""
        step, _, own = name.partition(".")
        said = any(own in counts_of(part) for part in self.manifest.get("steps") or () if part["name"] == step)
        return self.count(name) if said else None

    @cached_property
    def is_newest(self) -> bool:
        return self.lake.read(RUNS, pl.col("run_id") > self.run_id, columns=["run_id"]).is_empty()

    @cached_property
    def broken_rules(self) -> list[tuple[str, int]]:
        """Each rule that kept rows of this run out, with the rows, the most first."""
        from sosie.validation.rules import EMPTYING

        refused = pl.col("run_id") == self.run_id, ~pl.col("rule").is_in(EMPTYING)
        rows = self.lake.read(QUARANTINE, *refused, columns=["rule"])
        return [(str(rule), int(n)) for rule, n in rows["rule"].value_counts().sort("count", "rule").reverse().rows()]

    def usual_candidates(self, runs: int) -> list[float]:
        """Candidate pairs a changed listing in each of the last runs before this one that changed anything."""
        earlier = succeeded_before(self.lake, self.run_id, runs, ["run_id", "steps"])
        counts = [Counts(row) for row in earlier.iter_rows(named=True)]
        return [count("match.candidates") / count.changed for count in counts if count.changed]

    @cached_property
    def merges(self) -> list[Merge]:
        """This run's merges, those that joined the largest clusters first."""
        events = self.lake.read(CLUSTER_EVENTS, pl.col("run_id") == self.run_id, pl.col("kind") == "merged")
        if events.is_empty():
            return []
        sizes = self._sizes_before(events["before"].explode().unique())
        found = []
        for row in events.iter_rows(named=True):
            own = sorted((sizes.get(cluster, 0) for cluster in row["before"]), reverse=True)
            found.append(Merge(row["cluster_id"], tuple(own)))
        return sorted(found, key=lambda merge: (-merge.sizes[1], merge.cluster_id))

    def _sizes_before(self, clusters: pl.Series) -> dict[str, int]:
        """How many listings each of these clusters had before this run first wrote the table."""
        before = self.lake.version_before(CLUSTERS, self.run_id)
        if before is None:
            return {}
        try:
            held = self.lake.scan(CLUSTERS, as_of=before).filter(pl.col("cluster_id").is_in(clusters.implode()))
            return dict(held.group_by("cluster_id").len().collect().iter_rows())
        except (OSError, pl.exceptions.PolarsError) as error:  # an hour run again after its old files were cleaned up
            log.warning("How large clusters were before is not known any more", version=before, error=str(error))
            return {}

    @cached_property
    def members(self) -> pl.DataFrame:
        """All listings of each cluster that this run touched, by membership or by a member that changed."""
        changed = self.lake.read(CHANGES, pl.col("run_id") == self.run_id, columns=["listing_id"])
        rows = self.lake.scan(CLUSTERS).select("listing_id", "cluster_id", "changed_run")
        touched = rows.filter(pl.col("changed_run") == self.run_id).select("cluster_id")
        with_change = rows.join(changed.lazy(), on="listing_id", how="semi").select("cluster_id")
        held = rows.join(pl.concat([touched, with_change]).unique(), on="cluster_id", how="semi").collect()
        about = self.lake.lookup(
            LISTINGS, "listing_id", held["listing_id"], columns=["listing_id", "seller_id", "price", "currency"]
        )
        return held.join(about, on="listing_id", how="left").with_columns(
            moved=(pl.col("changed_run") == self.run_id) | pl.col("listing_id").is_in(changed["listing_id"].implode())
        )

    def sellers_in_clusters(self, above: float) -> pl.DataFrame:
        """seller_id, cluster_id, listings: sellers with more than so many in one cluster, with one that came now."""
        return (
            self.members.drop_nulls("seller_id")
            .group_by("seller_id", "cluster_id")
            .agg(listings=pl.len(), moved=pl.col("moved").any())
            .filter(pl.col("moved") & (pl.col("listings") > above))
            .sort("listings", "seller_id", "cluster_id", descending=[True, False, False])
        )

    def prices_far_off(self, times: float, fewest: int) -> pl.DataFrame:
        """listing_id, price, currency, middle, times, priced, cluster_id: changed listings far from the median.

        Prices are held against those of the same cluster and currency, of which there must be `fewest`.
        """
        group = ["cluster_id", "currency"]
        return (
            self.members.filter(pl.col("price") > 0)
            .with_columns(middle=pl.col("price").median().over(group), priced=pl.len().over(group))
            .with_columns(
                times=pl.max_horizontal(pl.col("price") / pl.col("middle"), pl.col("middle") / pl.col("price"))
            )
            .filter(pl.col("moved") & (pl.col("priced") >= fewest) & (pl.col("times") > times))
            .sort("times", "listing_id", descending=[True, False])
        )

    def vectors(self, modality: Modality, fewest: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors of listings whose content of this modality came now, and up to `SAMPLE` of the others.

        Both of the version that the run wrote; nothing is read where fewer than `fewest` came.
        """
        needs = self.lake.read(
            CHANGES,
            pl.col("run_id") == self.run_id,
            pl.col(f"{modality}_hash").is_not_null(),
            columns=["listing_id", f"{modality}_hash"],
        )
        none = np.empty((0, 0), dtype=np.float32)
        if needs.height < max(fewest, 1):
            return none, none
        own = needs.rename({f"{modality}_hash": "content_hash"})
        keys, stamp = ["listing_id", "content_hash"], str(self.manifest.get(f"{modality}_version"))
        asked = pl.col("listing_id").is_in(own["listing_id"].implode())
        held = self.lake.mapped(EMBEDDINGS[modality], asked, columns=[*keys, "vector"], embedding_version=stamp)
        now = held.filter(asked).join(own, on=keys, how="semi")
        # The first rows of the table are enough, with as many to spare as may be of this run: no need to read them all.
        first = (
            self.lake.scan(EMBEDDINGS[modality]).filter(pl.col("embedding_version") == stamp).head(SAMPLE + len(own))
        )
        before = first.join(own.lazy(), on=keys, how="anti").select("vector").head(SAMPLE).collect()
        return matrix(now), matrix(before)

    @cached_property
    def scores(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores of the pairs that this run decided, and of those that earlier runs did."""
        rows = self.lake.scan(PAIRS).select("score", own=pl.col("run_id") == self.run_id).collect()
        return rows.filter("own")["score"].to_numpy(), rows.filter(~pl.col("own"))["score"].to_numpy()

    def live_with(self, modality: Modality) -> int:
        """Live listings that must have a vector of this modality."""
        return int(self.lake.scan(LISTINGS).filter(having(modality)).select(pl.len()).collect().item())

    @cached_property
    def waiting(self) -> int:
        """Pairs that wait for a person, of this run and all before it."""
        return judgements.waiting(self.lake).height
