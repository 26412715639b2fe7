"""The index made again from the lake, under the models that are served, while hours wait."""

from sosie import integrity
from sosie.fence import alone
from sosie.index import open_index
from sosie.lake import Lake
from sosie.pipeline.embed import embed_listings, located, version
from sosie.pipeline.publish import publish_vectors
from sosie.pipeline.run import Counts, log
from sosie.rebuild.instep import RUN, with_content, without_vector
from sosie.rebuild.target import rebuilding
from sosie.settings import Settings
from sosie.tables import MODALITIES, Modality


def in_place(settings: Settings) -> Counts:
    """Make the index hold exactly the live catalogue under the models' versions, and have searches use it.

    Listings that have no vector under these versions are embedded first; the others cost no model call. Both
    collections are whole before the first alias moves, and where it moves from another version the online store has
    the vectors before. Hours wait meanwhile. Pairs stay as they are. Memory is that of ids, of titles that have no
    vector yet, and of some thousand vectors.
    """
    lake, counts = Lake(settings.lake_uri), Counts()
    integrity.check(lake)
    embedded = _by_ray(lake, settings) if settings.rebuild.engine == "ray" else {}
    with alone(settings), open_index(settings) as index:
        for modality in MODALITIES:
            stamp, computed = version(settings, modality), embedded.get(modality, 0)
            for part in without_vector(lake, settings, modality).iter_slices(settings.rebuild.chunk):
                computed += embed_listings(lake, settings, modality, part, RUN)[2]
            live = with_content(lake, modality)
            written = index.rebuild_from(modality, stamp, *located(lake, modality, stamp, live))
            counts |= {
                f"{modality}_computed": computed,
                f"{modality}_mended": written.rows,
                f"{modality}_held": index.count(modality, version=stamp),
            }
            log.info("index rebuilt", modality=modality, version=stamp, mended=written.rows)
        for modality in MODALITIES:
            stamp = version(settings, modality)
            if index.version(modality) not in (None, stamp):
                publish_vectors(settings, lake, modality, stamp, with_content(lake, modality)["listing_id"])
            index.promote(modality, stamp)
    return counts


def _by_ray(lake: Lake, settings: Settings) -> dict[Modality, int]:
    """Embed what has no vector while hours go on; what they change meanwhile is left for us."""
    from sosie.rebuild import spread

    with rebuilding(settings):
        return {modality: spread.embed(lake, settings, modality) for modality in MODALITIES}
