"""The hour's changes into the index of a second embedding version, where there is one."""

import polars as pl

from sosie.index import open_index
from sosie.pipeline.embed import latest, version
from sosie.pipeline.ingest import changes
from sosie.pipeline.run import Run, Tally, step
from sosie.tables import DECISIONS, MODALITIES


@step
def follow(run: Run, tally: Tally) -> None:
    """Write what changed under the version that is being built, or was live until lately, as well.

    So a switch between the two, in either direction, finds every listing as it is now.
    """
    from sosie import features
    from sosie.rebuild import instep, second

    target = second(run.settings)
    modalities = target.modalities(run.settings) if target else []
    tally(versions=len(modalities), computed=0, moved=0)
    if target is None or not modalities:
        return
    served, moved = target.settings(run.settings), changes(run).filter(pl.col("kind") != "attributes")["listing_id"]
    with open_index(run.settings) as index:
        for modality in modalities:
            wrote, computed, rows = instep.follow(run.lake, served, index, modality, moved, run.id)
            tally.wrote += wrote
            tally(computed=tally.counts["computed"] + computed, moved=tally.counts["moved"] + rows)
    vectors = {
        modality: latest(run.lake, modality, version(served, modality), moved if modality in modalities else moved[:0])
        for modality in MODALITIES
    }
    features.publish(run.settings, vectors["text"], vectors["image"], DECISIONS.schema.to_frame())
