"""The index made again from the lake."""

import polars as pl

from sosie import integrity
from sosie.fence import alone
from sosie.index import open_index
from sosie.lake import Lake
from sosie.locks import exclusive
from sosie.pipeline.embed import current, embed_listings, version
from sosie.pipeline.publish import publish_vectors
from sosie.pipeline.run import Counts, log
from sosie.settings import Settings
from sosie.tables import LISTINGS, MODALITIES, Modality


def rebuild(settings: Settings) -> Counts:
    """Make the index hold exactly the live catalogue under the models' versions, and have searches use it.

    Listings that have no vector under these versions are embedded first; the others cost no model call. Both
    collections are whole before the first alias moves, and where it moves from another version the online store has
    the vectors before. Hours wait meanwhile. Pairs stay as they are.
    """
    lake, counts = Lake(settings.lake_uri), Counts()
    integrity.check(lake)
    embedded = _by_ray(lake, settings) if settings.rebuild.engine == "ray" else {}
    with alone(settings), open_index(settings) as index:
        live = lake.read(LISTINGS, ~pl.col("is_deleted"))
        for modality in MODALITIES:
            stamp = version(settings, modality)
            with_content = live.drop_nulls(f"{modality}_hash")
            spread = embedded.get(modality, 0)
            _, _, computed = embed_listings(lake, settings, modality, with_content, "rebuild")
            written = index.rebuild_from(modality, stamp, current(lake, modality, stamp, live))
            counts |= {
                f"{modality}_computed": spread + computed,
                f"{modality}_mended": written.rows,
                f"{modality}_held": index.count(modality, version=stamp),
            }
            log.info("index rebuilt", modality=modality, version=stamp, mended=written.rows)
        for modality in MODALITIES:
            stamp = version(settings, modality)
            if index.version(modality) not in (None, stamp):
                for part in live.drop_nulls(f"{modality}_hash").iter_slices(settings.rebuild.chunk):
                    publish_vectors(settings, lake, modality, stamp, part["listing_id"])
            index.promote(modality, stamp)
    return counts


def _by_ray(lake: Lake, settings: Settings) -> dict[Modality, int]:
    """Embed what has no vector while hours go on; what they change meanwhile is left for us."""
    from sosie.rebuild import spread

    with exclusive(settings.home / "registry" / "rebuild.lock", 5, "rebuilding the index"):
        return {modality: spread.embed(lake, settings, modality) for modality in MODALITIES}
