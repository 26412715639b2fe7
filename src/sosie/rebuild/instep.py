"""A collection brought in step with the lake, for some listings or for all.

Hours and a rebuild write the second collections at the same time. Whoever writes reads the lake first, under one lock,
so that the last writer of a listing is always one that saw its last change.
"""

from contextlib import AbstractContextManager

import polars as pl

from sosie.index import VectorIndex
from sosie.lake import Lake
from sosie.locks import exclusive
from sosie.pipeline.embed import EMBEDDED, current, embed_listings, version
from sosie.runs import unfinished
from sosie.settings import Settings
from sosie.tables import EMBEDDINGS, LISTINGS, Modality, having
from sosie.vectors import matrix

RUN = "rebuild"
"""What the commits of a rebuild are signed with."""

_LOCK_SECONDS = 600.0


def with_content(lake: Lake, modality: Modality) -> pl.DataFrame:
    """Live listings that have the modality: listing_id, is_deleted and its hash."""
    return lake.read(LISTINGS, having(modality), columns=["listing_id", "is_deleted", f"{modality}_hash"])


def without_vector(lake: Lake, settings: Settings, modality: Modality) -> pl.DataFrame:
    """Live listings whose content has no vector under the models of `settings`; equal content together."""
    return lacking(lake, settings, modality).select(EMBEDDED).sort(f"{modality}_hash", "listing_id").collect()


def lacking(lake: Lake, settings: Settings, modality: Modality) -> pl.LazyFrame:
    """The same lazily, in no order, as tables.LISTINGS."""
    held = (
        lake.scan(EMBEDDINGS[modality])
        .filter(pl.col("embedding_version") == version(settings, modality))
        .select("listing_id", "content_hash")
        .unique()
    )
    return (
        lake.scan(LISTINGS)
        .filter(having(modality))
        .join(held, left_on=["listing_id", f"{modality}_hash"], right_on=["listing_id", "content_hash"], how="anti")
    )


def _filling(settings: Settings) -> AbstractContextManager[None]:
    return exclusive(settings.home / "registry" / "second.lock", _LOCK_SECONDS, "filling a second index")


def bring(lake: Lake, settings: Settings, index: VectorIndex, modality: Modality, ids: pl.Series) -> int:
    """Make the collection of the models of `settings` right for these listings; returns how many rows that changed.

    A listing that is deleted, has no content, or whose content has no vector yet is taken out.
    """
    stamp = version(settings, modality)
    with _filling(settings):
        listings = lake.lookup(LISTINGS, "listing_id", ids, columns=EMBEDDED)
        vectors = current(lake, modality, stamp, listings)
        gone = pl.DataFrame({"listing_id": ids}).join(vectors, on="listing_id", how="anti")["listing_id"]
        held, taken = vectors["listing_id"].to_list(), gone.unique().to_list()
        return index.exchange(modality, held, matrix(vectors), taken, version=stamp).rows


def fit(settings: Settings, index: VectorIndex, modality: Modality, rows: int) -> bool:
    """Index the collection of the models of `settings` as its size wants it; returns whether it was by another profile.

    Hours that follow it wait meanwhile.
    """
    with _filling(settings):
        return index.fit(modality, version(settings, modality), rows)


def follow(
    lake: Lake, settings: Settings, index: VectorIndex, modality: Modality, ids: pl.Series, run_id: str
) -> tuple[int, int, int]:
    """Embed the contents of these listings under the models of `settings`, and bring their collection in step.

    Returns rows written to lake and index, for how many contents a model was called, and how many rows the collection
    changed by.
    """
    index.create(modality, version(settings, modality))
    listings = lake.lookup(LISTINGS, "listing_id", ids, columns=EMBEDDED)
    written, _, computed = embed_listings(lake, settings, modality, listings.filter(having(modality)), run_id)
    moved = bring(lake, settings, index, modality, ids)
    return written.rows + moved, computed, moved


def astray(lake: Lake, settings: Settings, index: VectorIndex, modality: Modality) -> pl.Series:
    """Ids that are in the collection and should not be, or should be and are not."""
    held = pl.Series("listing_id", list(index.ids(modality, version=version(settings, modality))), dtype=pl.String)
    wanted = with_content(lake, modality)["listing_id"]
    either = pl.concat([held, wanted])
    both = pl.DataFrame({"listing_id": held}).join(wanted.to_frame(), on="listing_id", how="semi")["listing_id"]
    return either.filter(~either.is_in(both.implode())).unique().sort()


def under_way(lake: Lake) -> pl.Series:
    """Listings in change sets of hours that have not come to their end."""
    return unfinished(lake).select("listing_id").unique().collect().to_series()
