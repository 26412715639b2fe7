"""The trained picture encoders as models that are served: quantised graph, card."""

import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import structlog
import torch

from sosie import artifacts
from sosie.embedding.image import GRAPH, KIND, ImageEncoder, squeezed
from sosie.training import reduction
from sosie.training.image import graph, measure, vectors
from sosie.training.profile import Profile
from sosie.training.quantise import held_to_parity

log = structlog.get_logger()

_MEASURED = 1_000
_ALIKE = 1_000


def export(profile: Profile) -> None:
    """Write work/models/image-<encoder> for both, and work/models/image, a copy of the one that is to be used."""
    for name in vectors.NAMES:
        _export(profile, name, profile.models / f"image-{name}")
    out = profile.models / "image"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(profile.models / f"image-{profile.image.encoder}", out)


def _export(profile: Profile, name: str, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    model, side = vectors.load(profile, name), vectors.side(profile, name)
    head = reduction.chosen(profile, f"image-{name}")
    graph.export(model, head, side, out / GRAPH)
    usage = {
        "size": side,
        "resample": "bilinear, reducing gap 3",
        "colour": "RGB, uint8; the graph standardises",
        "dim": len(head),
    }
    artifacts.save(out, KIND, [GRAPH], usage, {})
    serving = ImageEncoder.load(out, threads=1)
    files, look_alikes = _unseen(profile)
    recipe = getattr(profile.image, name)
    about: dict[str, object] = {
        "recipe": dict(recipe),
        "seed": profile.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parity": held_to_parity(
            name, _parity(model, head, serving, [path.read_bytes() for path in list(files.values())[:64]])
        ),
        "milliseconds_a_picture": _speed(serving, [path.read_bytes() for path in list(files.values())[:128]]),
        "measured": measure.measure(serving, files, look_alikes, profile.seed),
        "limits": (
            "Trained on studio pictures of fashion, drawn products and simulated re-listings of the same photographs. "
            "Another photograph of the same product, and other kinds of goods, were hardly seen."
        ),
    }
    artifact = artifacts.save(out, KIND, [GRAPH], usage, about)
    log.info("exported", encoder=name, version=artifact.version, bytes=(out / GRAPH).stat().st_size)


def _unseen(profile: Profile) -> tuple[dict[str, Path], list[tuple[str, Path]]]:
    """Pictures of the decider's part, which the encoders never saw, by listing; and of listings that look like them.

    A look-alike is another product of the same category.
    """
    from sosie.training.image.data import listed

    corpus = "fashion" if profile.prepare.fashion else "generated"
    table = listed(profile.data("decider") / corpus)
    table = table.filter(pl.col("path").map_elements(_opens, return_dtype=pl.Boolean))
    table = table.unique("family", keep="first", maintain_order=True).head(_MEASURED).with_row_index("id")
    rows = table.with_columns(pl.col("id").cast(pl.String))
    alike = rows.join(rows, on="category", suffix="_other").filter(pl.col("family") != pl.col("family_other"))
    alike = alike.sample(min(_ALIKE, alike.height), seed=profile.seed).sort("id", "id_other")
    files = {row["id"]: Path(row["path"]) for row in rows.iter_rows(named=True)}
    return files, [(row["id"], Path(row["path_other"])) for row in alike.iter_rows(named=True)]


def _opens(path: str) -> bool:
    """Whether a picture can be decoded; some feeds hold broken ones on purpose."""
    from sosie.pictures import PictureFault, decode

    try:
        decode(Path(path).read_bytes(), side=32)
    except (PictureFault, FileNotFoundError):
        return False
    return True


def _parity(model: torch.nn.Module, head: np.ndarray, serving: ImageEncoder, pictures: list[bytes]) -> dict[str, float]:
    """Cosine of the graph that serves to the torch model that was trained, on real pictures."""
    pixels = torch.from_numpy(np.stack([squeezed(data, serving.size) for data in pictures])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        ours = model.pooled(pixels.float()).numpy() @ head.T
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    cosine = (ours * serving.encode(pictures, 32)).sum(1)
    return {"cosine_min": round(float(cosine.min()), 5), "cosine_mean": round(float(cosine.mean()), 6)}


def _speed(serving: ImageEncoder, pictures: list[bytes]) -> float:
    """CPU milliseconds a picture, decoding included, in batches of 32."""
    serving.encode(pictures[:32], 32)  # warm
    started = time.process_time()
    serving.encode(pictures, 32)
    return round(1_000 * (time.process_time() - started) / len(pictures), 2)
