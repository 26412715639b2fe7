"""The shipped image encoder on real bytes, and the training that makes it, small."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from sosie.artifacts import CARD
from sosie.embedding.image import GRAPH, ImageEncoder, squeezed
from sosie.errors import ModelError
from sosie.pictures import PictureFault
from sosie.settings import PROJECT

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
    from sosie.training.image.trainer import info_nce

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


def test_train_stop_and_go_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from sosie.training.image.train import main

    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for seed in range(40):
        drawing(seed).save(images / f"{seed}.jpg")
        drawing(seed).resize((200, 210)).save(images / f"{seed}_b.jpg", quality=60)
        second = f"images/{seed}_b.jpg" if seed % 8 == 0 else None
        rows.append((str(seed), f"title {seed // 2}", "bags", f"images/{seed}.jpg", second))
    columns = ["id", "title", "category", "image", "second_image"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "products.csv")
    knobs = {
        "picture": 48, "patch": 16, "width": 24, "depth": 1, "heads": 3, "stored-side": 56, "held-out": 8,
        "reconstruct-epochs": 1, "contrast-epochs": 1, "whole-epochs": 1,
        "reconstruct-batch": 8, "contrast-batch": 8, "neighbours": 4, "threads": 1,
    }  # fmt: skip
    small = [f"--{knob}={value}" for knob, value in knobs.items()]
    paths = ["--images", str(images), "--work", str(tmp_path / "work")]
    main([*paths, "--out", str(tmp_path / "half"), "--until", "2", *small])
    main([*paths, "--out", str(tmp_path / "whole"), *small])
    main([*paths, "--out", str(tmp_path / "straight"), "--work", str(tmp_path / "fresh"), *small])

    half, whole, straight = (ImageEncoder.load(tmp_path / name, 1) for name in ("half", "whole", "straight"))
    assert len({half.version, whole.version}) == 2
    assert whole.version == straight.version
    assert [entry["stage"] for entry in whole.artifact.about["epochs"]] == ["reconstruct", "contrast", "whole"]
    assert whole.artifact.about["measured"]["products"] == 8
    assert whole.encode([jpeg(drawing(1))], 1).shape == (1, 128)

    with pytest.raises(ModelError, match="another shape"):
        main([*paths, "--out", str(tmp_path / "other"), *small, "--width=48"])
