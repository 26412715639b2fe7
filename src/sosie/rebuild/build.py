"""The catalogue under another embedding version, in second collections, while hours go on.

Nothing is remembered but what the stores hold: what has a vector is not embedded again, what is in the collection is
not written again. So a build that was killed goes on where it was.
"""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from sosie import integrity
from sosie.index import VectorIndex, open_index, server
from sosie.lake import Lake
from sosie.pipeline.embed import embed_listings, version
from sosie.pipeline.publish import publish_vectors
from sosie.pipeline.run import Counts, log
from sosie.rebuild.instep import RUN, astray, bring, fit, with_content, without_vector
from sosie.rebuild.target import Progress, Target, begin, mark, progress, rebuilding
from sosie.settings import Settings
from sosie.tables import Modality


def build(settings: Settings, target: Target) -> Counts:
    """Embed and load every live listing under the target's models, and have hours keep them in step from the start.

    `settings` are those of the live models. Nothing that is served changes. Returns for each modality that differs how
    many contents were `…_computed`, rows `…_mended` and `…_held`. Raises `StoreBusy` where another build is at work.
    """
    lake, served, counts = Lake(settings.lake_uri), target.settings(settings), Counts()
    integrity.check(lake)
    with rebuilding(settings), server.serve(settings), open_index(served) as index:
        followed = begin(settings, target)
        at = progress(settings) or Progress(target.id, "")
        for modality in target.modalities(settings):
            computed = _embed(settings, lake, served, modality, at)
            mended = _load(settings, lake, served, index, modality, at, followed=followed)
            _publish(settings, lake, served, modality, at)
            held = index.count(modality, version=version(served, modality))
            counts |= {f"{modality}_computed": computed, f"{modality}_mended": mended, f"{modality}_held": held}
            log.info("second index built", modality=modality, version=version(served, modality), held=held)
        mark(settings, replace(at, phase="ready"))
    return counts


def _embed(settings: Settings, lake: Lake, served: Settings, modality: Modality, at: Progress) -> int:
    here = replace(at, phase="embed", modality=modality)
    if settings.rebuild.engine == "ray":
        from sosie.rebuild import spread

        return spread.embed(lake, served, modality, lambda done, of: mark(settings, replace(here, done=done, total=of)))
    missing, calls = without_vector(lake, served, modality), 0
    for part in _parts(settings, missing, here):
        calls += embed_listings(lake, served, modality, part, RUN)[2]
    return calls


def _load(
    settings: Settings,
    lake: Lake,
    served: Settings,
    index: VectorIndex,
    modality: Modality,
    at: Progress,
    *,
    followed: bool,
) -> int:
    """Where hours have written the collection all along, what it holds is right, and only the rest is looked at."""
    rows = with_content(lake, modality).select("listing_id")
    stamp, live = version(served, modality), rows.height
    index.create(modality, stamp)
    if followed:
        rows = astray(lake, served, index, modality).to_frame()
    mended = 0
    for part in _parts(settings, rows, replace(at, phase="load", modality=modality)):
        mended += bring(lake, served, index, modality, part["listing_id"])
    # What hours changed meanwhile they brought in step themselves; what an older build left behind goes now.
    mended += bring(lake, served, index, modality, astray(lake, served, index, modality))
    fit(served, index, modality, live)
    return mended


def _publish(settings: Settings, lake: Lake, served: Settings, modality: Modality, at: Progress) -> None:
    """The vectors to the online store, so that whoever is to use the new version finds them before the switch."""
    rows = with_content(lake, modality).select("listing_id")
    for part in _parts(settings, rows, replace(at, phase="publish", modality=modality)):
        publish_vectors(settings, lake, modality, version(served, modality), part["listing_id"])


def _parts(settings: Settings, rows: pl.DataFrame, at: Progress) -> Iterator[pl.DataFrame]:
    """Rows in chunks, each marked in second.json once it is done."""
    done = 0
    mark(settings, replace(at, total=rows.height))
    for part in rows.iter_slices(settings.rebuild.chunk):
        yield part
        done += part.height
        mark(settings, replace(at, done=done, total=rows.height))
        log.info("rebuild", phase=at.phase, modality=at.modality, done=done, total=rows.height)
