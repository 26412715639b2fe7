"""One embedding version put in the place of another, together with its decider, in one step. See the package."""

import polars as pl

from sosie import fence, registry
from sosie.errors import IndexOutOfStep
from sosie.index import VectorIndex, open_index, server
from sosie.lake import Lake
from sosie.locks import exclusive
from sosie.pipeline.aside import MARK, aside
from sosie.pipeline.cluster import cluster
from sosie.pipeline.embed import version
from sosie.pipeline.match import match
from sosie.pipeline.publish import publish_features, record
from sosie.pipeline.run import Counts, Run, log
from sosie.rebuild.build import build
from sosie.rebuild.instep import RUN, astray, follow, under_way, with_content
from sosie.rebuild.target import Target, close
from sosie.settings import Settings
from sosie.tables import CHANGES, LISTINGS, Modality


def serve(settings: Settings, target: Target, how: str, who: str) -> Counts:
    """Serve the target's models from now on, and make pairs, clusters and decisions what they are under them.

    `settings` are those of the live models; `how` is promote or rollback. Returns what the index holds and how pairs
    were decided, empty where none had to be. Raises `StoreBusy` where another switch or build is at work, or where
    steps leave no gap for `rebuild.wait_seconds`.
    """
    with exclusive(settings.home / "registry" / "lock", 5, "promoting models"):
        live = registry.live_id(settings)
        if target.id == live:
            return finish(settings)
        modalities = target.modalities(settings)
        catalogue = Lake(settings.lake_uri).read(LISTINGS, ~pl.col("is_deleted"), columns=["listing_id"])
        if not modalities and catalogue.is_empty():
            registry.commit(settings, target.id, how, who, target.versions)
            return Counts()
        with server.serve(settings):
            counts = build(settings, target) if modalities else Counts()
            with fence.alone(settings):
                if modalities:
                    counts |= _catch_up(settings, target)
                run = _everything(settings, target, how)
                registry.commit(settings, target.id, how, who, target.versions)
                if modalities:
                    with open_index(target.settings(settings)):
                        pass  # opening it moves the aliases after what is live
                close(settings, target)
                return counts | _refresh(run, how)


def finish(settings: Settings) -> Counts:
    """End a switch that was broken off after its moment: pairs and clusters, and what it left in `changes`."""
    lake, counts = Lake(settings.lake_uri), Counts()
    left = lake.read(CHANGES, pl.col("run_id").str.contains(MARK, literal=True), columns=["run_id"])
    for run_id in left["run_id"].unique().sort():
        log.info("a switch that was broken off is ended", run_id=run_id)
        with server.serve(settings), fence.alone(settings):
            counts |= _refresh(Run(run_id, settings), run_id.split(MARK)[1].split("-")[0])
    return counts


def _catch_up(settings: Settings, target: Target) -> Counts:
    """With all steps at rest: what an hour under way has changed, and whatever is not as the lake has it.

    Raises `IndexOutOfStep` where the second collection still doesn't hold exactly the live catalogue.
    """
    lake, served, counts = Lake(settings.lake_uri), target.settings(settings), Counts()
    ids = under_way(lake)
    with open_index(served) as index:
        for modality in target.modalities(settings):
            follow(lake, served, index, modality, ids, RUN)
            lost = astray(lake, served, index, modality)
            follow(lake, served, index, modality, lost, RUN)
            counts[f"{modality}_held"] = _verified(lake, served, index, modality)
    return counts


def _verified(lake: Lake, served: Settings, index: VectorIndex, modality: Modality) -> int:
    stamp = version(served, modality)
    wanted, held = with_content(lake, modality).height, index.count(modality, version=stamp)
    if wanted != held:
        raise IndexOutOfStep(
            f"The second {modality} index {stamp} holds {held} of {wanted} live listings after it was brought in step. "
            "Nothing was switched. Run `sosie rebuild` for it again, then promote."
        )
    return held


def _everything(settings: Settings, target: Target, how: str) -> Run:
    """A run by the target's models with every live listing in its change set.

    While that set is there the next hour takes it over, so that pairs come right also where we die.
    """
    lake = Lake(settings.lake_uri)
    run = Run(aside(lake, how), target.settings(settings))
    asked = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=["listing_id"]).with_columns(
        run_id=pl.lit(run.id),
        kind=pl.lit("attributes"),
        text_hash=pl.lit(None, dtype=pl.String),
        image_hash=pl.lit(None, dtype=pl.String),
    )
    lake.upsert(CHANGES, asked.select(*CHANGES.columns), run_id=run.id)
    return run


def _refresh(run: Run, how: str) -> Counts:
    """Decide all pairs of the run's change set again, group them, tell the storefront, leave a record."""
    decided = match(run)
    grouped = cluster(run)
    publish_features(run)
    record(run, how)
    run.lake.delete(CHANGES, pl.DataFrame({"run_id": [run.id]}), run_id=run.id)
    return Counts(
        pairs_match=decided["match"],
        pairs_review=decided["review"],
        pairs_removed=decided["pairs_removed"],
        clusters=grouped["clusters"],
        duplicates=grouped["duplicates"],
    )
