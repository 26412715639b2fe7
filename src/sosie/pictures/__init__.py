"""A listing's picture: fetched from wherever its URI points, checked, hashed, and kept as a small normalised copy.

A picture that can't be used never stops a run. It comes back as an `Inspection` that names the rule it broke:

    picture_missing        nothing lies at the URI
    picture_unreachable    its server or store does not answer, or refuses, or was given up for this hour
    picture_outside_root   a file or an object that lies neither below the pictures' root nor a place in the settings
    picture_too_large      more bytes, or more pixels, than the settings allow; its pixels are never decoded
    picture_empty          no bytes at all
    picture_truncated      starts like a picture and ends too soon
    picture_unreadable     no picture
"""

import hashlib
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec.core
import numpy as np
import structlog
from PIL import Image, ImageOps

from sosie import faults
from sosie.errors import StoreBusy, TerminalError
from sosie.pictures.patience import Patience
from sosie.pictures.sources import PictureFault, fetch
from sosie.places import write_atomically
from sosie.settings import Validation

__all__ = [
    "THUMBNAIL_SIDE", "Inspection", "PictureFault", "Thumbnails", "decode", "fetch", "inspect", "shrunk",
    "write_atomically",
]  # fmt: skip

log = structlog.get_logger()

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What a picture may be. Formats that Pillow hands to other programs (EPS, PDF) are left out."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_TOLD_WHEN_CUT = ("truncated", "incomplete", "end of", "decoder error -2")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")

THUMBNAIL_SIDE = 256
_DECODE_SIDE = 2 * THUMBNAIL_SIDE  # a JPEG may be decoded at 1/2, 1/4 or 1/8, down to this side


@dataclass(frozen=True)
class Inspection:
    """What one URI gave: hashes of a good picture, or the rule that it broke. All null where there was no URI."""

    image_hash: str | None = None
    image_phash: str | None = None
    fault_rule: str | None = None
    fault_detail: str | None = None


def decode(data: bytes, *, max_pixels: int | None = None, side: int = _DECODE_SIDE) -> Image.Image:
    """An upright RGB picture, its shorter side at least `side` where the original has that many pixels.

    The first frame of an animation, on white where it is transparent. Raises `PictureFault`; a picture of more than
    `max_pixels` is refused by its header.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureFault("picture_too_large", f"{error}.") from None
    except Exception as error:  # a damaged header raises nearly anything
        if data.startswith(_MAGIC) or data[4:8] == b"ftyp":
            raise PictureFault(
                "picture_truncated",
                f"Starts like a picture, but its {len(data):,} bytes hold no whole header ({error}).",
            ) from None
        is_page = data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))  # its bytes are not for telling
        what = "A web page, and no picture." if is_page else "No picture of a known format."
        raise PictureFault("picture_unreadable", what) from None
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise PictureFault(
            "picture_too_large",
            f"{width} × {height} pixels are more than {max_pixels:,} (setting validation.max_picture_pixels).",
        )
    try:
        image.draft("RGB", (side, side))  # only a JPEG does something here
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # so does damaged data
        is_cut = isinstance(error, EOFError) or any(word in str(error).lower() for word in _TOLD_WHEN_CUT)
        rule = "picture_truncated" if is_cut else "picture_unreadable"
        raise PictureFault(rule, f"{image.format} of {width} × {height} can't be decoded: {error}.") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a channel, or more: to 8 bits by what is there
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode != "F" and values.max(initial=0) > 255 else 255.0
        if image.mode == "F" and values.max(initial=0) <= 1:
            top = 1.0
        image = Image.fromarray((values * (255 / top)).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        image = white
    return image.convert("RGB")


@dataclass(frozen=True)
class Thumbnails:
    """Small copies of pictures, addressed by the sha256 of the original's bytes: RGB JPEGs, longest side 256.

    `uri` is a folder or an object store that fsspec knows; credentials and endpoints come from its own settings.
    """

    uri: str

    @cached_property
    def _store(self) -> tuple[Any, str]:
        filesystem, root = fsspec.core.url_to_fs(self.uri)
        return filesystem, root.rstrip("/")

    def path(self, image_hash: str) -> str:
        """Where the copy lies, below `uri`."""
        if not _HEX_DIGEST.fullmatch(image_hash):
            raise ValueError(f"{image_hash!r} is not a sha256 in hex.")
        return f"{image_hash[:2]}/{image_hash}.jpg"

    def has(self, image_hash: str) -> bool:
        filesystem, root = self._store
        return bool(filesystem.exists(f"{root}/{self.path(image_hash)}"))

    def get(self, image_hash: str) -> bytes:
        """JPEG bytes. Raises `TerminalError` where there is no copy."""
        filesystem, root = self._store
        try:
            data: bytes = filesystem.cat_file(f"{root}/{self.path(image_hash)}")
        except FileNotFoundError:
            raise TerminalError(
                f"No copy of picture {image_hash} in {self.uri}. Feed its listing again to fetch it anew."
            ) from None
        return data

    def put(self, image_hash: str, image: Image.Image) -> None:
        """Write a copy of an RGB picture, whole or not at all. Raises `StoreBusy` where the store refuses."""
        filesystem, root = self._store
        data = shrunk(image, THUMBNAIL_SIDE)
        place = f"{root}/{self.path(image_hash)}"
        try:
            faults.point("pictures.put.before")
            if "file" in _protocols(filesystem):
                write_atomically(Path(place), data)
            else:  # an object appears whole
                filesystem.pipe_file(place, data)
            faults.point("pictures.put.after")
        except OSError as error:
            raise StoreBusy(
                f"Picture {place} can't be written ({error}). Make room or mend the rights, then run the step again."
            ) from error


def _protocols(filesystem: Any) -> tuple[str, ...]:
    held = filesystem.protocol
    return (held,) if isinstance(held, str) else tuple(held)


def shrunk(image: Image.Image, side: int) -> bytes:
    """An RGB picture as JPEG, its longest side at most `side`."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def inspect(
    uris: Sequence[str | None], *, root: str, thumbnails: Thumbnails, rules: Validation, threads: int = 8
) -> list[Inspection]:
    """One `Inspection` a URI, in order; each different URI is fetched once. Good pictures get their thumbnail.

    A host that does not answer is given up (`Patience`): what is left of it is `picture_unreachable`, unasked.
    """
    patience = Patience(rules.picture_host_failures, rules.picture_seconds)
    wanted = list(dict.fromkeys(uri for uri in uris if uri and uri.strip()))

    def look(uri: str) -> Inspection:
        try:
            return _inspect(uri, root, thumbnails, rules, patience)
        except PictureFault as fault:
            return Inspection(fault_rule=fault.rule, fault_detail=fault.detail)

    with ThreadPoolExecutor(threads, "pictures") as pool:
        found = dict(zip(wanted, pool.map(look, wanted), strict=True))
    faults = sum(inspection.fault_rule is not None for inspection in found.values())
    log.info("pictures inspected", pictures=len(found), faults=faults, given_up=patience.given_up)
    return [found.get(uri or "", Inspection()) for uri in uris]


def _inspect(uri: str, root: str, thumbnails: Thumbnails, rules: Validation, patience: Patience) -> Inspection:
    import imagehash

    data = fetch(uri.strip(), root, rules, patience)
    digest = hashlib.sha256(data).hexdigest()
    image = decode(data, max_pixels=rules.max_picture_pixels)
    if not thumbnails.has(digest):
        thumbnails.put(digest, image)
    return Inspection(digest, str(imagehash.phash(image)))
