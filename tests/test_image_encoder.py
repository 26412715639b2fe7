"""The shipped image encoder on real bytes, and the training that makes it, small."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sosie.artifacts import CARD
from sosie.embedding.image import GRAPH, KIND, ImageEncoder, squeezed
from sosie.errors import ModelError
from sosie.pictures import PictureFault
from sosie.settings import PROJECT
from sosie.simulate import Marketplace, write
from sosie.training import profile as profiles
from sosie.training.profile import Profile

MODEL = PROJECT / "models" / "image"


def drawing(seed: int, width: int = 240, height: int = 240) -> Image.Image:
    """A bag, a shirt or a bottle of its own colours on white."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)

    def colour() -> tuple[int, ...]:
        return tuple(int(value) for value in rng.integers(0, 220, 3))

    left, top = (int(value) for value in rng.uniform(0.15, 0.3, 2) * (width, height))
    right, bottom = width - left, height - top
    (draw.rectangle, draw.ellipse)[seed % 2]((left, top, right, bottom), colour())
    for _ in range(int(rng.integers(2, 6))):
        x, y = (int(value) for value in rng.uniform((left, top), (right, bottom)))
        size = int(rng.uniform(8, 60))
        (draw.rectangle, draw.ellipse)[int(rng.integers(2))]((x, y, x + size, y + size // 2), colour())
    return image


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder.load(MODEL, threads=1)


def test_unit_vectors_in_order(encoder: ImageEncoder) -> None:
    pictures = [jpeg(drawing(seed)) for seed in range(7)]
    vectors = encoder.encode(pictures, 3)
    assert (vectors.shape, vectors.dtype) == ((7, 128), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(pictures[::-1], 3)[::-1], vectors, atol=1e-5)
    assert encoder.encode([], 4).shape == (0, 128)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_a_vector_does_not_depend_on_its_batch(encoder: ImageEncoder, batch_size: int) -> None:
    pictures = [jpeg(drawing(seed)) for seed in range(5)]
    np.testing.assert_allclose(encoder.encode(pictures, batch_size), encoder.encode(pictures, 5), atol=2e-5)


def test_a_near_duplicate_is_nearer_than_any_other_picture(encoder: ImageEncoder) -> None:
    originals = [drawing(seed) for seed in range(24)]
    copies = []
    for seed, image in enumerate(originals):
        changed = image.crop((9, 5, 236, 233)).resize((190, 190))
        ImageDraw.Draw(changed).text((20, 8), f"shop {seed % 3}", (90, 90, 90))
        copies.append(jpeg(changed, quality=60))
    cosine = encoder.encode(copies, 8) @ encoder.encode([jpeg(image) for image in originals], 8).T
    assert np.mean(cosine.argmax(1) == np.arange(24)) > 0.9
    own, others = np.diag(cosine), cosine[~np.eye(24, dtype=bool)]
    assert np.median(own) > np.quantile(others, 0.95)


def test_a_copy_of_a_real_picture_is_found_again(encoder: ImageEncoder, shared_pictures: list[Path]) -> None:
    from sosie.simulate.pictures import relist

    rng = np.random.default_rng(5)
    originals = [path.read_bytes() for path in shared_pictures]
    copies = [jpeg(relist(Image.open(path), rng)) for path in shared_pictures]
    cosine = encoder.encode(copies, 32) @ encoder.encode(originals, 32).T
    assert np.mean(cosine.argmax(1) == np.arange(len(originals))) > 0.75


@pytest.fixture
def shared_pictures() -> list[Path]:
    import os

    folder = Path(os.environ.get("SOSIE_SHARED_DATA", PROJECT.parent / "shared" / "data")) / "fashion" / "images"
    if not folder.is_dir():
        pytest.skip(f"the public fashion pictures are not in {folder}; set SOSIE_SHARED_DATA")
    return sorted(folder.glob("*.jpg"))[::120]


def test_any_format_and_any_aspect(encoder: ImageEncoder) -> None:
    image = drawing(3)
    png = io.BytesIO()
    image.convert("RGBA").save(png, "PNG")
    a, b = encoder.encode([png.getvalue(), jpeg(image, 95)], 2)
    assert a @ b > 0.98
    assert squeezed(jpeg(drawing(3, 600, 200)), encoder.size).shape == (encoder.size, encoder.size, 3)


def test_bytes_that_are_no_picture(encoder: ImageEncoder) -> None:
    with pytest.raises(PictureFault, match="No picture of a known format"):
        encoder.encode([jpeg(drawing(1)), b"text"], 2)


def test_the_version_is_that_of_the_card(encoder: ImageEncoder, tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "image")
    card = json.loads((folder / CARD).read_text())
    card["about"] = {}
    (folder / CARD).write_text(json.dumps(card))
    assert ImageEncoder.load(folder).version == encoder.version
    card["usage"]["size"] = 96
    (folder / CARD).write_text(json.dumps(card))
    assert ImageEncoder.load(folder).version != encoder.version


def test_a_damaged_or_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No model in"):
        ImageEncoder.load(tmp_path)
    folder = shutil.copytree(MODEL, tmp_path / "image")
    with (folder / GRAPH).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ModelError, match=GRAPH):
        ImageEncoder.load(folder)


def test_the_card_tells_what_was_measured() -> None:
    about = json.loads((MODEL / CARD).read_text())["about"]
    measured = about["measured"]
    assert measured["encoder"]["recall_at_1"] > measured["perceptual_hash"]["recall_at_1"]
    assert measured["encoder"]["auc_look_alikes"] > measured["perceptual_hash"]["auc_look_alikes"]
    assert about["parity"]["cosine_min"] > 0.999
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 8 * 2**20


# ── Training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_structured_patches() -> None:
    torch = pytest.importorskip("torch")
    from sosie.training.image.vit import CENTRE, Shape, structured_choice

    shape = Shape(picture=96, patch=16, width=48, heads=3)
    assert (shape.cell, shape.grid_tokens, shape.tokens) == (2, 36, 40)
    cells = shape.tokens_of_cells()
    assert cells[0].tolist() == [0, 1, 6, 7]
    assert cells[CENTRE].tolist() == [14, 15, 20, 21]
    assert sorted(cells.flatten().tolist()) == list(range(36))

    choice = structured_choice(500, shape, torch.Generator().manual_seed(0))
    assert choice.shape == (500, 16)
    assert (choice[:, :4] == cells[CENTRE]).all()
    assert (choice[:, 12:] == torch.arange(36, 40)).all()
    drawn = choice[:, [4, 8]]
    assert all(len(set(row)) == 16 for row in choice.tolist())
    assert len(drawn.unique()) == 8
    with pytest.raises(ValueError, match="multiple of 48"):
        Shape(picture=100, patch=16)


def test_info_nce_pulls_the_two_views_together() -> None:
    torch = pytest.importorskip("torch")
    from sosie.training.losses import info_nce

    views = torch.nn.functional.normalize(torch.eye(4, 8).repeat(2, 1), dim=1)
    groups = torch.arange(4).repeat(2)
    right = info_nce(views, groups, 0.07)
    wrong = info_nce(torch.cat([views[:4], views[:4].roll(1, 0)]), groups, 0.07)
    assert right < 1e-4 < wrong
    # Two rows of one product are not pushed apart.
    double = torch.cat([views[:2], views[:2], views[:2], views[:2]])
    assert info_nce(double, torch.tensor([0, 1, 0, 1] * 2), 0.07) < 1e-4


def test_spoilt_pictures_are_seeded_and_in_range() -> None:
    torch = pytest.importorskip("torch")
    from sosie.training.image.noise import overlays, relisted

    pictures = torch.from_numpy(np.stack([np.asarray(drawing(seed, 80, 80)) for seed in range(8)])).permute(0, 3, 1, 2)
    bank = overlays(6, 72, np.random.default_rng(0))
    first, again = (relisted(pictures, 72, bank, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (8, 3, 72, 72)
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 255
    assert (first[0] - first[1]).abs().mean() > 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """A profile of two small generated marketplaces, of models that learn in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "WORK", tmp_path_factory.mktemp("work"))
        small = profiles.load("small")
        mae: dict[str, int | float] = {
            "picture": 48, "patch": 16, "width": 24, "depth": 1, "heads": 3, "stored_side": 56,
            "reconstruct_epochs": 1, "contrast_epochs": 1, "whole_epochs": 1,
            "reconstruct_batch": 16, "contrast_batch": 16, "neighbours": 4,
        }  # fmt: skip
        efficientnet = {"imitate_epochs": 1, "epochs": 1, "picture": 32, "batch": 24}
        image = small.image.model_copy(update={"threads": 1, "mae": mae, "efficientnet_b3": efficientnet})
        tiny = small.model_copy(update={"image": image})
        for seed, part in enumerate(("encoder", "decider")):
            write(tiny.data(part) / "generated", Marketplace(listings=80, hours=1, seed=seed))
        yield tiny


@pytest.fixture(scope="module")
def trained(tiny: Profile) -> Profile:
    pytest.importorskip("torch")
    from sosie.training.image import pretrain, train

    pretrain.main(tiny)
    train.main(tiny)
    return tiny


def test_pictures_of_a_part(tiny: Profile) -> None:
    torch = pytest.importorskip("torch")
    from sosie.training.image.data import Pictures

    pictures = Pictures.read(tiny.data("encoder"), 24)
    assert pictures.pixels.shape == (pictures.table.height, 3, 24, 24)
    assert pictures.table["path"].is_unique().all()
    seen, unseen = pictures.subset(spared=False), pictures.subset(spared=True)
    assert not set(seen.table["family"]) & set(unseen.table["family"])
    product, twins = seen.codes("product"), seen.twins(torch.Generator().manual_seed(1))
    assert torch.equal(product[twins], product)
    has_another = torch.bincount(product)[product] > 1
    assert torch.equal(twins != torch.arange(len(product)), has_another)


def test_an_interrupted_training_ends_at_the_same_weights(trained: Profile, tmp_path: Path) -> None:
    import torch

    from sosie.training.image.data import Pictures
    from sosie.training.image.pretrain import recipe_of
    from sosie.training.image.trainer import Trainer

    recipe = recipe_of(trained)
    pictures = Pictures.read(trained.data("encoder"), recipe.stored_side)
    for until in (1, 2, 3):  # each a process of its own
        again = Trainer(recipe, pictures, tmp_path)
        again.resume()
        again.run(until)
    straight = torch.load(trained.work / "image" / "mae" / "last.pt", weights_only=True)
    assert [entry["stage"] for entry in straight["history"]] == ["reconstruct", "contrast", "whole"]
    for name, weight in again.encoder.state_dict().items():
        assert torch.equal(weight, straight["encoder"][name]), name

    wider = Trainer(replace(recipe, width=48), pictures, tmp_path)
    with pytest.raises(ModelError, match="another shape"):
        wider.resume()


def test_an_interrupted_efficientnet_ends_at_the_same_weights(
    trained: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sosie.training.image import efficientnet, train

    again = profiles.load("small").model_copy(update={"name": "again", "image": trained.image})
    shutil.copytree(trained.data("encoder"), again.data("encoder"))
    shutil.copytree(trained.work / "image" / "mae", again.work / "image" / "mae")
    history = json.loads((trained.work / "image" / "efficientnet_b3" / "history.json").read_text())
    length = {entry["kind"]: entry["step"] for entry in history}
    relisted, steps = efficientnet.relisted, []
    into_the_second_kind = iter([relisted] * (length["imitate"] + 1))
    with monkeypatch.context() as patch:
        patch.setattr(efficientnet, "_SAVE_EVERY", 1)
        patch.setattr(efficientnet, "relisted", lambda *given: next(into_the_second_kind)(*given))
        with pytest.raises(StopIteration):
            train.train_efficientnet(again)
    out = again.work / "image" / "efficientnet_b3"
    assert not (out / efficientnet.WEIGHTS).exists()

    with monkeypatch.context() as patch:
        patch.setattr(efficientnet, "relisted", lambda *given: steps.append(given) or relisted(*given))
        train.train_efficientnet(again)
    # Begun anew, it would come to the same weights too, but take every step again.
    assert len(steps) == length["arcface"] - 1
    straight = efficientnet.load(trained).state_dict()
    for name, weight in efficientnet.load(again).state_dict().items():
        assert torch.equal(weight, straight[name]), name


def test_a_stage_that_is_done_is_left_alone(trained: Profile) -> None:
    from sosie.training.image import train

    files = [trained.work / "image" / name for name in ("mae/last.pt", "efficientnet_b3/encoder.pt")]
    before = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    train.main(trained)
    assert [hashlib.sha256(file.read_bytes()).digest() for file in files] == before
    assert all("loss" in json.loads((file.parent / "metrics.json").read_text()) for file in files)


@pytest.mark.parametrize(("name", "width"), [("mae", 48), ("efficientnet_b3", 1536)])
def test_a_served_vector_is_the_reduced_feature(trained: Profile, tmp_path: Path, name: str, width: int) -> None:
    from sosie.artifacts import save
    from sosie.training.image import graph, vectors

    pictures = [jpeg(drawing(seed)) for seed in range(5)]
    features, head = vectors.full_width(trained, name, pictures), vectors.learned_head(trained, name)
    assert (features.shape, features.dtype, head.shape) == ((5, width), np.float32, (128, width))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    side = vectors.side(trained, name)
    graph.export(vectors.load(trained, name), head, side, tmp_path / GRAPH)
    save(tmp_path, KIND, [GRAPH], {"size": side}, {})
    served = ImageEncoder.load(tmp_path, 1).encode(pictures, 2)
    reduced = features @ head.T
    cosine = (served * reduced).sum(1) / np.linalg.norm(reduced, axis=1)
    assert cosine.min() > 0.999


def test_arcface_asks_for_a_margin() -> None:
    torch = pytest.importorskip("torch")
    from sosie.training.losses import ArcFace

    scale, margin, angle = 8.0, 0.3, 0.5
    arcface = ArcFace(torch.eye(3), scale)
    vector = torch.tensor([[np.cos(angle), np.sin(angle), 0.0]], dtype=torch.float32)
    logits = scale * torch.tensor([[np.cos(angle + margin), np.sin(angle), 0.0]], dtype=torch.float32)
    own = torch.tensor([0])
    assert torch.isclose(arcface(vector, own, margin), torch.nn.functional.cross_entropy(logits, own), atol=1e-5)
    losses = [arcface(vector, own, width).item() for width in (0.0, 0.2, 0.4)]
    assert losses == sorted(losses)
