"""Train the image encoder: `python -m sosie.training.image --images DIR --out models/image`.

Three stages, one after the other, on the CPU: masked auto-encoding on structured patches; then the same structured
patches of two simulated re-listings of a picture are pulled together against all others of the batch (InfoNCE, after
van den Oord et al., arXiv:1807.03748, in the symmetric form of SimCLR, arXiv:2002.05709); then the same with whole
pictures, as the encoder is used later. A checkpoint after every epoch: a run that was stopped goes on from there.
"""

import argparse
import hashlib
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import polars as pl
import structlog
import torch

from sosie.artifacts import save
from sosie.embedding.image import GRAPH, KIND, ImageEncoder, squeezed
from sosie.training.image import data as picture_data
from sosie.training.image import graph as image_graph
from sosie.training.image import measure as image_measure
from sosie.training.image.trainer import Recipe, Trainer

log = structlog.get_logger()


def publish(trainer: Trainer, images: Path, out: Path) -> None:
    """Export to `out`, measure on the unseen products through the very class that serves, and write the card."""
    out.mkdir(parents=True, exist_ok=True)
    image_graph.export(trainer.encoder, out / GRAPH)
    usage = {
        "size": trainer.recipe.picture,
        "resample": "bilinear, reducing gap 3",
        "colour": "RGB, uint8; the graph standardises",
        "mean": [round(value, 4) for value in trainer.encoder.mean.flatten().tolist()],
        "std": [round(value, 4) for value in trainer.encoder.std.flatten().tolist()],
        "dim": trainer.recipe.shape.dim,
    }
    about: dict[str, object] = {
        "architecture": "ViT over a 3x3 grid of cells and the shrunk picture; mean of each, learned linear head",
        "recipe": asdict(trainer.recipe),
        "epochs_done": trainer.done,
        "epochs": trainer.history,
        "data": {
            "pictures_seen": len(trainer.seen.pixels),
            "sha256": hashlib.sha256("".join(trainer.seen.products["digest"]).encode()).hexdigest(),
        },
    }
    save(out, KIND, [GRAPH], usage, about)
    unseen = trainer.unseen.products.unique("id", keep="first", maintain_order=True)
    serving = ImageEncoder.load(out)
    files = {row["id"]: images / Path(row["path"]).name for row in unseen.iter_rows(named=True)}
    about["parity"] = _parity(trainer, serving, list(files.values())[:64])
    everything = pl.concat([trainer.seen.products, trainer.unseen.products]).unique("id", keep="first")
    alike = (
        unseen.select("id", "title", "digest")
        .join(everything, on="title", suffix="_other")
        .filter(pl.col("id") != pl.col("id_other"), pl.col("digest") != pl.col("digest_other"))
        .sort("id", "id_other")
    )
    look_alikes = [(row["id"], images / Path(row["path"]).name) for row in alike.iter_rows(named=True)]
    about["measured"] = image_measure.measure(serving, files, look_alikes, trainer.recipe.seed)
    about["limits"] = (
        "Trained on studio pictures of fashion and simulated re-listings of the same photograph. Another photograph of "
        "the same product, and other kinds of goods, were hardly seen; two colours of one model can lie close."
    )
    artifact = save(out, KIND, [GRAPH], usage, about)
    log.info("published", version=artifact.version, **artifact.about["measured"])


def _parity(trainer: Trainer, serving: ImageEncoder, files: list[Path]) -> dict[str, float]:
    """Cosine of the graph that serves to the torch model that was trained, on real pictures."""
    pictures = [path.read_bytes() for path in files]
    pixels = np.stack([squeezed(data, serving.size) for data in pictures])
    ours = trainer.vectors(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    cosine = (ours * serving.encode(pictures, 32)).sum(1)
    return {"cosine_min": round(float(cosine.min()), 5), "cosine_mean": round(float(cosine.mean()), 6)}


def main(arguments: list[str] | None = None) -> None:
    """The command line: paths and threads, and a flag for every knob of `Recipe`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--products", type=Path, help="CSV of products; default: products.csv beside the folder")
    parser.add_argument("--out", type=Path, default=Path("models/image"))
    parser.add_argument("--work", type=Path, default=Path("var/training/image"), help="checkpoints")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--until", type=int, help="stop after this many epochs in all")
    for knob in fields(Recipe):
        parser.add_argument(f"--{knob.name.replace('_', '-')}", type=type(knob.default), default=knob.default)
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    recipe = Recipe(**{knob.name: getattr(given, knob.name) for knob in fields(Recipe)})
    log.info("recipe", **asdict(recipe))
    pictures = picture_data.read(
        given.products or given.images.parent / "products.csv", given.images, recipe.stored_side
    )
    trainer = Trainer(recipe, pictures, given.work)
    log.info("pictures", seen=len(trainer.seen.pixels), unseen=len(trainer.unseen.pixels))
    trainer.resume()
    trainer.run(given.until)
    publish(trainer, given.images, given.out)


if __name__ == "__main__":
    main()
