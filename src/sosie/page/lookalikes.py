"""Listings whose pictures look most like one that a person uploads."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from sosie.embedding.image import ImageEncoder
from sosie.index import open_index
from sosie.page.people import Refused
from sosie.page.store import Store
from sosie.pictures import THUMBNAIL_SIDE, PictureFault, decode, shrunk
from sosie.report.data import Listing
from sosie.tables import CLUSTERS

MOST = 24
_QUERY = "\0upload"  # no listing's id


@lru_cache(maxsize=1)
def _encoder(folder: Path) -> ImageEncoder:
    return ImageEncoder.load(folder, threads=1)


def find(store: Store, data: bytes) -> list[dict[str, Any]]:
    """item, similarity and cluster_id of the nearest listings by picture, most alike first.

    Raises `Refused` for what is no picture, and as the index does.
    """
    settings = store.settings
    try:
        image = decode(data, max_pixels=settings.validation.max_picture_pixels)
    except PictureFault as fault:
        raise Refused(400, f"This file can't be used as a picture: {fault.detail}", "/clusters") from None
    # The catalogue's vectors are of its thumbnails, so this one's is too.
    vector = _encoder(settings.image_model).encode([shrunk(image, THUMBNAIL_SIDE)], 1)
    with open_index(settings) as index:
        near = index.search("image", [_QUERY], vector, MOST)
    ids = near["listing_id"].to_list()
    items: dict[str, Listing] = store.listings(ids)
    clusters = dict(store.lake.lookup(CLUSTERS, "listing_id", ids, columns=["listing_id", "cluster_id"]).iter_rows())
    return [
        {"item": items[one], "similarity": similarity, "cluster_id": clusters.get(one)}
        for one, similarity in near.select("listing_id", "similarity").iter_rows()
        if not items[one].is_deleted
    ]
