"""No group, picture or labelled pair of the test part reaches a training stage."""

import hashlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sosie.evaluate import datasets
from sosie.evaluate.dataset import Dataset
from sosie.settings import PROJECT
from sosie.training import prepare, profile

FULL = PROJECT / "var" / "training" / "full" / "data"
TRAINING = ("encoder", "decider")


@given(st.text())
def test_what_training_may_see_is_what_the_split_says(group: str) -> None:
    part = datasets.part_of(group)
    assert (part == "test") == (datasets.split_of(group) == "test")
    assert datasets.parts(pl.Series([group, group])).to_list() == [part, part]
    assert datasets.split(pl.Series([group])).to_list() == [datasets.split_of(group)]


@pytest.fixture(scope="module", params=["prepared now", "full"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three parts: of every kind of source, small, by the real stage; and those of the full profile if there."""
    if request.param == "full":
        if not (FULL / "test").is_dir():
            pytest.skip("the full profile's data are not prepared")
        return FULL
    root = tmp_path_factory.mktemp("leakage")
    sources = root / "public"
    _write_sources(sources)
    sizes = {"encoder": 60, "decider": 60, "test": 40}
    knobs = {
        "data": sources, "real": ["shopee"], "pairs": ["er/cameras"], "fashion": sizes, "generated": sizes,
    }  # fmt: skip
    small = profile.load("small")
    given = small.model_copy(update={"name": str(root / "work"), "prepare": profile.Prepare.model_validate(knobs)})
    prepare.main(given)
    return given.work / "data"


def _write_sources(sources: Path) -> None:
    """A labelled table, labelled pairs, and products with pictures, of which every third shares one with another."""
    from PIL import Image

    (sources / "shopee").mkdir(parents=True)
    rows = [
        {"posting_id": f"{g}-{i}", "title": f"title {g}", "label_group": f"g{g}"} for g in range(80) for i in (1, 2)
    ]
    pl.DataFrame(rows).write_csv(sources / "shopee" / "listings.csv")
    (sources / "er" / "cameras").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        lines = [f"COL name VAL {part} camera {i}\tCOL name VAL {part} lens {i}\t{i % 2}" for i in range(9)]
        (sources / "er" / "cameras" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    images = sources / "fashion" / "images"
    images.mkdir(parents=True)
    products = []
    for number in range(90):
        shown = number - number % 3 + min(number % 3, 1)
        Image.new("RGB", (48, 48), (shown * 2, 255 - shown, shown * 37 % 256)).save(images / f"{number}.png")
        products.append({"id": str(number), "title": f"shirt {number}", "category": "shirts", "colour": "red",
                         "image": f"images/{number}.png", "second_image": None})  # fmt: skip
    pl.DataFrame(products).write_csv(sources / "fashion" / "products.csv")


def _folders(data: Path, part: str) -> dict[str, Path]:
    return {path.name: path for path in sorted((data / part).iterdir()) if path.is_dir()}


def _rows(dataset: Dataset, part: str) -> set[tuple[str | None, ...]]:
    asked = dataset.pairs.filter(pl.col("part") == part)
    return set(asked.select("left_id", "right_id").iter_rows())


def test_no_group_is_in_two_parts(data: Path) -> None:
    found = {part: _folders(data, part) for part in ("encoder", "decider", "test")}
    for name, folder in found["test"].items():
        test = datasets.load(folder)
        if not test.has_groups:
            continue
        held = set(test.truth["group"])
        assert held
        if test.shape != "simulate":  # marketplaces made apart count their products from one each
            assert set(map(datasets.part_of, held)) == {"test"}
            for part in TRAINING:
                assert held.isdisjoint(datasets.load(found[part][name]).truth["group"])


def test_no_fashion_product_or_picture_is_in_two_parts(data: Path) -> None:
    tables = {
        part: pl.read_csv(data / part / "products.csv", infer_schema=False) for part in ("encoder", "decider", "test")
    }
    for part in TRAINING:
        assert set(tables["test"]["image"]).isdisjoint(tables[part]["image"])
    images = _images(data)
    if images is None:
        pytest.skip("the pictures of the products are not there")
    digests = {
        part: {hashlib.sha256((images / name).read_bytes()).hexdigest() for name in table["image"]}
        for part, table in tables.items()
    }
    assert all(digests.values())
    for part in TRAINING:
        assert digests["test"].isdisjoint(digests[part])
    assert digests["encoder"].isdisjoint(digests["decider"])


def _images(data: Path) -> Path | None:
    places = (data.parent.parent / "public" / "fashion", PROJECT / "data" / "fashion")
    return next((place for place in places if (place / "images").is_dir()), None)


def test_no_picture_of_a_simulated_listing_is_in_two_parts(data: Path) -> None:
    for name in ("fashion", "generated"):
        digests = {part: _pictures(data / part / name) for part in ("encoder", "decider", "test")}
        assert digests["test"]
        for part in TRAINING:
            assert digests["test"].isdisjoint(digests[part])


def _pictures(folder: Path) -> set[str]:
    dataset = datasets.load(folder)
    files = (dataset.root / uri for uri in dataset.listings["image_uri"].drop_nulls())
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def test_the_decider_has_no_test_pair(data: Path) -> None:
    checked = 0
    for name, folder in _folders(data, "test").items():
        test = datasets.load(folder)
        if test.has_groups:
            continue
        assert name not in _folders(data, "encoder")
        learnt = datasets.load(_folders(data, "decider")[name])
        assert not _rows(learnt, "test")
        seen = _rows(learnt, "train") | _rows(learnt, "valid")
        assert seen
        assert _rows(test, "test").isdisjoint(seen)
        checked += 1
    assert checked
