"""What people said, from the lake to a folder that never changes, which `pin` then names.

Titles, prices and pictures are those of the moment of export, as the lake keeps one state of a listing; judgements of
listings that were updated since are counted.
"""

import uuid
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from sosie import judgements
from sosie.lake import Lake
from sosie.listings import clean_titles
from sosie.pictures import Thumbnails, write_atomically
from sosie.settings import Settings
from sosie.tables import CLUSTERS, JUDGEMENTS
from sosie.tables import LISTINGS as HELD_LISTINGS
from sosie.tables import PAIRS as HELD_PAIRS
from sosie.training.judged.data import AROUND, LISTINGS, PAIRS, PICTURES, Judged
from sosie.training.judged.groups import consistent, grouped
from sosie.training.judged.pin import digest_of, folder, pin

log = structlog.get_logger()

_SIDES = ["left_id", "right_id"]


def export(settings: Settings) -> dict[str, Any]:
    """Write what stands in the lake below the repository, pin it, and return what the pin says.

    Without a judgement nothing is pinned.
    """
    lake = Lake(settings.lake_uri)
    judged = of_lake(lake)
    if judged.pairs.is_empty():
        return pin(settings.repository, {"digest": None})
    digest = digest_of(judged)
    place = folder(settings.repository, digest)
    if not place.is_dir():
        beside = place.with_name(f".{uuid.uuid4().hex}")
        judged.write(beside)
        _copy_pictures(judged, Thumbnails(f"{settings.lake_uri.rstrip('/')}/pictures"), beside / PICTURES)
        beside.rename(place)
    log.info("judgements exported", folder=str(place), **judged.about)
    return pin(settings.repository, {"digest": digest, **judged.about})


def of_lake(lake: Lake) -> Judged:
    """All judgements that stand and don't contradict each other, with both listings' state of now."""
    standing = judgements.standing(lake)
    ids = pl.concat([standing["left_id"], standing["right_id"].alias("left_id")]).unique()
    rows = lake.lookup(HELD_LISTINGS, "listing_id", ids)
    titled = rows.filter(clean_titles(pl.col("title")).str.len_chars() > 0)
    known = titled.select("listing_id")
    labelled = standing.select(*_SIDES, "when", label=pl.col("verdict") == "same")
    for side in _SIDES:
        labelled = labelled.join(known, left_on=side, right_on="listing_id", how="semi")
    believed = consistent(labelled.sort(_SIDES))
    clusters = lake.lookup(CLUSTERS, "listing_id", ids, columns=["listing_id", "cluster_id"])
    pairs = grouped(believed, clusters)
    either = pl.col("left_id").is_in(ids.implode()) | pl.col("right_id").is_in(ids.implode())
    around = lake.read(HELD_PAIRS, either, columns=[*_SIDES, "first_score"])
    around = around.filter(pl.col("first_score").is_not_null()).join(pairs, on=_SIDES, how="anti").sort(_SIDES)
    live = lake.scan(HELD_LISTINGS).filter(~pl.col("is_deleted")).select(pl.len()).collect().item()
    about = {
        "catalogue": int(live),
        "judgements": pairs.height,
        "same": int(pairs["label"].sum()),
        "different": int((~pairs["label"]).sum()),
        "contradicting": labelled.height - believed.height,
        "without_title": standing.height - labelled.height,
        "updated_since": _updated_since(believed, rows),
        "lake_version": lake.version(JUDGEMENTS),
    }
    listings = titled.select(LISTINGS.names()).sort("listing_id")
    found = Judged(pairs.select(PAIRS.names()), listings, around.cast(AROUND), about)
    return Judged(found.pairs, found.of(found.pairs).listings, found.around, about)


def _updated_since(judged: pl.DataFrame, rows: pl.DataFrame) -> int:
    """Judgements of which a listing was updated after they were made."""
    for side in ("left", "right"):
        own = rows.select(pl.col("listing_id").alias(f"{side}_id"), pl.col("updated_at").alias(side))
        judged = judged.join(own, on=f"{side}_id", how="left")
    return judged.filter(pl.max_horizontal("left", "right") > pl.col("when")).height


def _copy_pictures(judged: Judged, held: Thumbnails, to: Path) -> None:
    """A picture that the lake has lost is left out: its listing then has none."""
    for image_hash in judged.listings["image_hash"].drop_nulls().unique().sort():
        if held.has(image_hash):
            write_atomically(to / held.path(image_hash), held.get(image_hash))
