"""What an encoder costs: numbers that were learned, and time on one core."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sosie.evaluate.dataset import Dataset
from sosie.settings import Validation

SAMPLE = 256
_TRIES = 3


@dataclass(frozen=True)
class Cost:
    """`milliseconds` of one core for a listing, batched by 32, the best of three tries."""

    parameters: int
    milliseconds: float


def of_text(folder: Path, titles: Sequence[str]) -> Cost:
    from sosie.embedding.text import TextEncoder

    encoder, sample = TextEncoder.load(folder, threads=1), sorted(set(titles))[:SAMPLE]
    return Cost(parameters(folder), _milliseconds(lambda: encoder.encode(sample, 32), len(sample)))


def of_image(folder: Path, pictures: Sequence[bytes]) -> Cost:
    """Decoding included."""
    from sosie.embedding.image import ImageEncoder

    encoder = ImageEncoder.load(folder, threads=1)
    return Cost(parameters(folder), _milliseconds(lambda: encoder.encode(pictures, 32), len(pictures)))


def parameters(folder: Path) -> int:
    """Numbers in the tensors of an encoder's graph."""
    import onnx

    graph = onnx.load(str(folder / "encoder.onnx")).graph
    sizes = []
    for tensor in graph.initializer:
        size = 1
        for side in tensor.dims:
            size *= side
        sizes.append(size)
    return sum(sizes)


def pictures_of(dataset: Dataset) -> list[bytes]:
    """Some usable pictures of a dataset, as the encoder gets them."""
    from sosie.pictures import Thumbnails, inspect

    uris = dataset.listings["image_uri"].drop_nulls()[:SAMPLE].to_list()
    with tempfile.TemporaryDirectory(prefix="sosie-cost-") as folder:
        thumbnails = Thumbnails(folder)
        found = inspect(uris, root=str(dataset.root), thumbnails=thumbnails, rules=Validation())
        return [thumbnails.get(one.image_hash) for one in found if one.image_hash]


def _milliseconds(encode: Callable[[], object], listings: int) -> float:
    encode()  # the first run allocates
    seconds = []
    for _ in range(_TRIES):
        started = time.process_time()
        encode()
        seconds.append(time.process_time() - started)
    return 1_000 * min(seconds) / max(listings, 1)
