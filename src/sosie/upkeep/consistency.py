"""The same catalogue in every store: counted, compared, and mended from the lake."""

import polars as pl

from sosie import features, fence
from sosie.index import VectorIndex, open_index
from sosie.lake import Lake
from sosie.pipeline.embed import embed_listings, located, version
from sosie.pipeline.publish import forget_vectors, publish_vectors
from sosie.pipeline.run import Run, Tally, step
from sosie.rebuild import second
from sosie.rebuild.instep import astray, bring, under_way, with_content, without_vector
from sosie.settings import Settings
from sosie.tables import DECISIONS, EMBEDDINGS, IMAGE_EMBEDDINGS, LISTINGS, MODALITIES, PAIRS, SIDES, Modality
from sosie.vectors import Picked


@step
def check_stores(run: Run, tally: Tally) -> None:
    """Compare lake, index and online store row by row, and make the latter two what the lake says.

    Hours wait meanwhile. Listings of an hour that is under way are that hour's work and left alone.
    """
    beside = second(run.settings)
    with fence.alone(run.settings), open_index(run.settings) as index:
        busy = under_way(run.lake)
        for modality in MODALITIES:
            tally(**{f"{modality}_{name}": value for name, value in _index(run, index, modality, busy).items()})
        if beside is not None:
            for modality in beside.modalities(run.settings):
                told = _mend_second(run.lake, beside.settings(run.settings), index, modality, busy)
                tally(**{f"second_{modality}_mended": told})
        tally(pairs_orphaned=_orphans(run.lake, run.id))
        tally(**_online(run))
    tally.wrote = sum(
        value for name, value in tally.counts.items() if name.endswith(("mended", "orphaned", "embedded"))
    )


def _index(run: Run, index: VectorIndex, modality: Modality, busy: pl.Series) -> dict[str, int]:
    """`live` listings with content, vectors `embedded` that the lake lacked, rows `astray` in the index before, and
    rows `mended` (with those whose vector was another)."""
    settings, lake = run.settings, run.lake
    stamp, live = version(settings, modality), with_content(lake, modality)
    missing = without_vector(lake, settings, modality).filter(~pl.col("listing_id").is_in(busy.implode()))
    for part in missing.iter_slices(settings.rebuild.chunk):
        embed_listings(lake, settings, modality, part, run.id)
    index.create(modality, stamp)
    lost = astray(lake, settings, index, modality)
    lost = lost.filter(~lost.is_in(busy.implode()))
    mended = _mend(settings, index, modality, *located(lake, modality, stamp, live), lost, busy)
    if index.version(modality) != stamp:
        index.promote(modality, stamp)
    index.fit(modality, stamp, live.height)
    index.compact(modality, stamp)
    return {
        "live": live.height,
        "embedded": missing.height,
        "astray": len(lost),
        "mended": mended,
        "held": index.count(modality, version=stamp),
    }


def _mend(
    settings: Settings,
    index: VectorIndex,
    modality: Modality,
    ids: pl.Series,
    vectors: Picked,
    lost: pl.Series,
    busy: pl.Series,
) -> int:
    """The served collection, which nobody else writes meanwhile: so the lake's vectors are located once, for all."""
    stamp, rows = version(settings, modality), (~ids.is_in(busy.implode())).arg_true().cast(pl.Int64)
    kept = ids.gather(rows)
    moved = index.delete(modality, lost.filter(~lost.is_in(kept.implode())).to_list(), version=stamp).rows
    for start in range(0, len(rows), settings.rebuild.chunk):
        part = slice(start, start + settings.rebuild.chunk)
        moved += index.upsert(modality, kept[part].to_list(), vectors[rows[part].to_numpy()], version=stamp).rows
    return moved


def _mend_second(lake: Lake, settings: Settings, index: VectorIndex, modality: Modality, busy: pl.Series) -> int:
    """A collection that a rebuild may be filling: what it needs is read anew for each part, under its lock."""
    index.create(modality, version(settings, modality))
    every = pl.concat([with_content(lake, modality)["listing_id"], astray(lake, settings, index, modality)]).unique()
    every = every.filter(~every.is_in(busy.implode())).sort()
    parts = every.to_frame().iter_slices(settings.rebuild.chunk)
    return sum(bring(lake, settings, index, modality, part["listing_id"]) for part in parts)


def _orphans(lake: Lake, run_id: str) -> int:
    """Delete pairs of which an end is no live listing; returns how many there were."""
    live = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=["listing_id"])
    busy = under_way(lake)
    held = lake.read(PAIRS, columns=SIDES)
    dead = pl.concat(
        [held.join(live, left_on=side, right_on="listing_id", how="anti").select(SIDES) for side in SIDES]
    ).unique()
    dead = dead.filter(~pl.any_horizontal(pl.col(SIDES).is_in(busy.implode())))
    return lake.delete(PAIRS, dead, run_id=run_id).deleted


def _online(run: Run) -> dict[str, int]:
    """Write decisions and live vectors that the online store lacks or holds otherwise; remove those of what is gone."""
    settings, lake = run.settings, run.lake
    mended = 0
    for modality in MODALITIES:
        ids = with_content(lake, modality)["listing_id"]
        mended += publish_vectors(settings, lake, modality, version(settings, modality), ids)
    told = lake.read(DECISIONS).sort("event_timestamp", "created_timestamp").unique("listing_id", keep="last")
    text, image = (EMBEDDINGS[modality].schema.to_frame() for modality in MODALITIES)
    mended += features.publish(settings, text, image, told)["decisions"]
    listings = lake.read(LISTINGS, columns=["listing_id", "is_deleted", "image_hash"])
    dead = listings.filter("is_deleted")["listing_id"]
    bare = listings.filter(~pl.col("is_deleted"), pl.col("image_hash").is_null())["listing_id"]
    once = lake.lookup(IMAGE_EMBEDDINGS, "listing_id", bare, columns=["listing_id"])["listing_id"].unique()
    mended += forget_vectors(settings, dead) + forget_vectors(settings, once, ["image"])
    return {"online_decisions": told.height, "online_mended": mended}
