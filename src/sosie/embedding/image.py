"""Pictures to vectors, by ONNX Runtime."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sosie.artifacts import Artifact
from sosie.embedding.text import session_of
from sosie.errors import ModelError
from sosie.pictures import decode
from sosie.tables import DIM

KIND = "image-encoder"
GRAPH = "encoder.onnx"

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageEncoder:
    """A small vision transformer over the picture and its shrunk copy, with a learned head to 128 numbers.

    The graph takes uint8 pixels and standardises them itself. It runs in float32, so that a picture's vector does not
    depend on what else is in its batch: with dynamic int8, activations are scaled by the batch's extremes.
    """

    artifact: Artifact
    _session: Any

    @classmethod
    def load(cls, folder: Path, threads: int = 0, device: str = "cpu") -> "ImageEncoder":
        """Read and check the model. `threads` 0 lets ONNX Runtime take every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        session = session_of(artifact.file(GRAPH), threads, device)
        width = session.get_outputs()[0].shape[-1]
        if width != DIM:
            raise ModelError(f"{artifact.file(GRAPH)} gives vectors of {width} numbers; needed are {DIM}.")
        return cls(artifact, session)

    @property
    def version(self) -> str:
        return self.artifact.version

    @property
    def size(self) -> int:
        """Side of the square, in pixels, that a picture is squeezed to."""
        return int(self.artifact.usage["size"])

    def encode(self, pictures: Sequence[bytes], batch_size: int) -> Vectors:
        """float32 [n, 128], unit length, in the order of `pictures` (whole files, as bytes).

        Pictures are decoded by threads, a batch ahead of the model. Raises `PictureFault` for one that can't be.
        """
        vectors = np.empty((len(pictures), DIM), np.float32)
        start = 0
        for batch in self._batches(pictures, batch_size):
            (vectors[start : start + len(batch)],) = self._session.run(["vector"], {"pixels": batch})
            start += len(batch)
        return vectors

    def _batches(self, pictures: Sequence[bytes], batch_size: int) -> Iterator[Pixels]:
        with ThreadPoolExecutor(min(8, cpu_count() or 1), "decode") as pool:

            def submit(start: int) -> list[Future[Pixels]]:
                return [pool.submit(squeezed, data, self.size) for data in pictures[start : start + batch_size]]

            ahead = submit(0)
            for start in range(0, len(pictures), batch_size):
                current, ahead = ahead, submit(start + batch_size)
                yield np.stack([decoding.result() for decoding in current])


def squeezed(data: bytes, size: int) -> Pixels:
    """uint8 [size, size, 3] RGB of a picture file, whatever its aspect. Raises `PictureFault`."""
    return square(decode(data, side=size), size)


def square(image: Image.Image, size: int) -> Pixels:
    """uint8 [size, size, 3] of an RGB picture. Its aspect is given up: re-listings change that too."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))
