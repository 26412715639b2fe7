"""Nearest neighbours of listings in each source, asked of the index or worked out in process."""

from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from sosie import blocking, lexical, neighbours, phashes, screening, spellings
from sosie.decider.text_features import Sparse, Vocabulary
from sosie.index import open_index
from sosie.neighbours import Places
from sosie.pipeline.embed import among, current, located, version
from sosie.pipeline.run import Run, log
from sosie.settings import Blocking
from sosie.tables import Modality
from sosie.vectors import Picked, matrix

Limits = dict[str, tuple[int, float]]


def limits(rules: Blocking) -> Limits:
    """Source → how many neighbours, and above which similarity. A source that is switched off is left out."""
    every = {
        "text": (rules.text_neighbours, rules.min_text_similarity),
        "image": (rules.image_neighbours, rules.min_image_similarity),
        "lexical": (rules.lexical_neighbours, rules.min_lexical_similarity),
        phashes.SOURCE: (rules.phash_neighbours, rules.min_phash_similarity),
    }
    return {source: (k, floor) for source, (k, floor) in every.items() if k}


@dataclass(frozen=True)
class Retrieval:
    """Nearest neighbours among the live catalogue, which is in order of ids, by whichever way is cheaper for the number
    that asks."""

    run: Run
    catalogue: pl.DataFrame
    vocabulary: Vocabulary
    _every: dict[Modality, tuple[pl.Series, Picked]] = field(default_factory=dict)

    def vectors(self, modality: Modality, ids: pl.Series) -> pl.DataFrame:
        """listing_id, vector of some live listings."""
        if modality in self._every:
            return among(self._every[modality], ids)
        asked = self._live.filter(pl.col("listing_id").is_in(ids.implode()))
        return current(self.run.lake, modality, version(self.run.settings, modality), asked)

    def every(self, modality: Modality) -> tuple[pl.Series, Picked]:
        """Ids, in order, and vectors of all live listings that have one. Located once: `vectors` finds them there."""
        if modality not in self._every:
            stamp = version(self.run.settings, modality)
            self._every[modality] = located(self.run.lake, modality, stamp, self._live)
        return self._every[modality]

    @property
    def _live(self) -> pl.DataFrame:
        return self.catalogue.with_columns(is_deleted=pl.lit(False))

    @cached_property
    def places(self) -> Places:
        return Places(self.catalogue["listing_id"])

    @cached_property
    def _terms(self) -> Sparse:
        return lexical.turned(self._spelt)

    @cached_property
    def _spelt(self) -> Sparse:
        kept = spellings.kept(self.run.lake, self.catalogue, self.run.id, columns=["spelling"])
        return lexical.weighed(kept["spelling"], self.vocabulary)

    def __call__(self, source: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        """The `k` nearest of each place that asks, nearest first, equal ones by place, as `neighbours.NEAR`.

        An engine cuts equal ones as it likes, and copies of a listing are as near as each other: where the cut falls
        among equals more is asked for, up to `reverse_neighbours`.
        """
        found, depth = [], k + max(8, k // 4)
        while not asking.is_empty():
            near = self._once(source, asking, depth, floor)
            reached = near.group_by("query_id").agg(
                pl.len(),
                place=pl.col("similarity").sort(descending=True).slice(k - 1, 1).first(),
                last=pl.col("similarity").min(),
            )
            among_equals = (pl.col("len") >= depth) & (pl.col("place") == pl.col("last"))
            more = depth < self.run.settings.blocking.reverse_neighbours
            asking = reached.filter(among_equals & more)["query_id"]
            found.append(near.filter(~pl.col("query_id").is_in(asking.implode())))
            depth *= 4
        return blocking.nearest(pl.concat([pl.DataFrame(schema=neighbours.NEAR), *found]), k)

    def _once(self, source: str, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        # A hair below the floor, which is drawn after rounding.
        lower = floor - 10.0**-neighbours.DIGITS
        if source == "lexical":
            threads = self.run.settings.embedding.threads
            every = self.places.every
            found = lexical.join(asking, every, self._spelt, k, lower, threads=threads, terms=self._terms)
        elif source == phashes.SOURCE:
            found = phashes.join(asking, self.catalogue.with_columns(listing_id=self.places.every), k, lower)
        else:
            found = self._by_vector("text" if source == "text" else "image", asking, k, lower)
        return neighbours.rounded(found, floor)

    def _by_vector(self, modality: Modality, asking: pl.Series, k: int, floor: float) -> pl.DataFrame:
        """Asked of the index, or joined in process where much of the catalogue asks.

        Both give the same where the index is exact; the join reads every live vector once, which pays above a share.
        """
        run = self.run
        embedded = run.settings.milvus_uri is None
        joined = run.settings.blocking.joined(len(asking), self.catalogue.height, embedded=embedded)
        log.info(
            "find neighbours",
            modality=modality,
            by="join in process" if joined else "index",
            asking=len(asking),
            live=self.catalogue.height,
        )
        if joined:
            ids, vectors = self.every(modality)
            return blocking.join_ordered(asking, self.places.of(ids), vectors, k, floor)
        held = self.vectors(modality, self.places.ids.gather(asking))
        with open_index(run.settings) as index:
            index.ensure(modality, version(run.settings, modality))
            found = index.search(modality, held["listing_id"].to_list(), matrix(held), k, min_similarity=floor)
        near = self._exactly(modality, found)
        return near.with_columns(self.places.of(near[name]) for name in ("query_id", "listing_id"))

    def _exactly(self, modality: Modality, found: pl.DataFrame) -> pl.DataFrame:
        """The same neighbours, with similarities as a join in process works them out."""
        held = self.vectors(modality, pl.concat([found["query_id"], found["listing_id"]]).unique())
        row = held.select("listing_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
        known = found.join(row, on="listing_id", maintain_order="left").join(
            row.rename({"listing_id": "query_id"}), on="query_id", suffix="_query", maintain_order="left"
        )
        vectors = matrix(held)
        exact = screening.cosines(vectors, known["row_query"].to_numpy(), vectors, known["row"].to_numpy())
        return known.select("query_id", "listing_id", similarity=pl.Series(exact))
