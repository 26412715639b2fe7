"""Pictures by their content's hash, in three sizes, each made once and kept on disk.

What is served was decoded and encoded anew, so it is a picture whatever lay at the listing's address; the large size is
read from below the configured roots alone, however the feed spelt its address.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl
import structlog

from sosie.errors import TerminalError
from sosie.page.store import Store
from sosie.pictures import PictureFault, Thumbnails, decode, fetch, shrunk
from sosie.pictures.sources import lies_below, locate, outside
from sosie.pipeline.ingest import thumbnails
from sosie.places import write_atomically
from sosie.settings import Settings
from sosie.tables import LISTINGS

SMALL, MIDDLE, LARGE = 96, 256, 1024
SIDES = (SMALL, MIDDLE, LARGE)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Copies under `<home>/page/pictures/<side>/`."""

    store: Store

    @property
    def _kept(self) -> Thumbnails:
        return thumbnails(self.store.settings)

    def file(self, image_hash: str, side: int) -> Path:
        """A JPEG whose longest side is at most `side`, one of `SIDES`. Raises `TerminalError` where there is none.

        The large one is the middle one where the original can't be had any more, or has another content by now.
        """
        try:
            name = self._kept.path(image_hash)
        except ValueError:
            raise TerminalError("A picture is asked for by the 64 hex digits of its hash.") from None
        if side not in SIDES:
            raise TerminalError(f"Received side {side}. Valid values are {', '.join(map(str, SIDES))}.")
        file = self.store.settings.home / "page" / "pictures" / str(side) / name
        if not file.is_file():
            if side == LARGE:
                data = self._large(image_hash)
                if data is None:
                    return self.file(image_hash, MIDDLE)
            else:
                data = self._kept.get(image_hash)
                data = data if side == MIDDLE else shrunk(decode(data), side)
            write_atomically(file, data)
        return file

    def _large(self, image_hash: str) -> bytes | None:
        uris = self.store.lake.read(LISTINGS, pl.col("image_hash") == image_hash, columns=["image_uri"])["image_uri"]
        settings = self.store.settings
        for uri in uris.drop_nulls().unique().head(3):
            try:
                data = original(uri, settings)
                if sha256(data).hexdigest() == image_hash:
                    return shrunk(decode(data, max_pixels=settings.validation.max_picture_pixels, side=LARGE), LARGE)
            except PictureFault as fault:
                log.info("A picture is shown small", image_hash=image_hash, why=fault.detail)
        return None


def original(uri: str, settings: Settings) -> bytes:
    """The bytes at a listing's address where that lies below `pictures_root` or one of `validation.picture_roots`.

    Raises `PictureFault` where not.
    """
    root = settings.pictures_root
    if not lies_below(locate(uri, root), (root, *(settings.validation.picture_roots or ()))):
        raise outside(uri)
    return fetch(uri, root, settings.validation)
