"""Pictures to vectors, by ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sosie.artifacts import Artifact
from sosie.embedding.text import session_of, side_by_side
from sosie.errors import ModelError
from sosie.pictures import decode
from sosie.tables import DIM

KIND = "image-encoder"
GRAPH = "encoder.onnx"

_AT_ONCE = 8
"""Pictures whose states fit the cache of a core together."""

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageEncoder:
    """A small vision transformer over the picture and its shrunk copy, with a learned head to 128 numbers.

    The graph takes uint8 pixels and standardises them itself. Where its products are int8 they have a scale per patch,
    so that a picture's vector does not depend on what else is in its batch (`sosie.training.quantise`).
    """

    artifact: Artifact
    _session: Any
    _threads: int

    @classmethod
    def load(cls, folder: Path, threads: int = 0, device: str = "cpu") -> "ImageEncoder":
        """Read and check the model. `threads` 0 takes every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        session = session_of(artifact.file(GRAPH), device=device)
        width = session.get_outputs()[0].shape[-1]
        if width != DIM:
            raise ModelError(f"{artifact.file(GRAPH)} gives vectors of {width} numbers; needed are {DIM}.")
        return cls(artifact, session, threads)

    @property
    def version(self) -> str:
        return self.artifact.version

    @property
    def size(self) -> int:
        """Side of the square, in pixels, that a picture is squeezed to."""
        return int(self.artifact.usage["size"])

    def encode(self, pictures: Sequence[bytes], batch_size: int) -> Vectors:
        """float32 [n, 128], unit length, in the order of `pictures` (whole files, as bytes).

        Each thread decodes a few pictures and runs the model on them: while one decodes, another computes, and what a
        layer hands to the next stays in a core's cache. Raises `PictureFault` for one that can't be decoded.
        """
        vectors = np.empty((len(pictures), DIM), np.float32)

        def work(part: slice) -> None:
            pixels = np.stack([squeezed(data, self.size) for data in pictures[part]])
            vectors[part] = self._session.run(["vector"], {"pixels": pixels})[0]

        size = min(batch_size, _AT_ONCE)
        side_by_side(work, (slice(at, at + size) for at in range(0, len(pictures), size)), self._threads)
        return vectors


def squeezed(data: bytes, size: int) -> Pixels:
    """uint8 [size, size, 3] RGB of a picture file, whatever its aspect. Raises `PictureFault`."""
    return square(decode(data, side=size), size)


def square(image: Image.Image, size: int) -> Pixels:
    """uint8 [size, size, 3] of an RGB picture. Its aspect is given up: re-listings change that too."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))
