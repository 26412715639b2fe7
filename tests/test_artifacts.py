"""Model folders: what is checked before weights are used."""

from pathlib import Path

import pytest

from sosie import artifacts
from sosie.artifacts import Artifact
from sosie.errors import ModelError
from sosie.registry import KINDS
from sosie.settings import PROJECT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "weights.bin").write_bytes(b"weights")
    artifacts.save(tmp_path, "toy", ["weights.bin"], {"size": 1}, {"note": "made by a test"})
    return tmp_path


def test_the_version_follows_what_changes_an_output_and_nothing_else(model: Path) -> None:
    first = Artifact.load(model, "toy").version
    assert artifacts.save(model, "toy", ["weights.bin"], {"size": 1}, {"note": "other words"}).version == first
    assert artifacts.save(model, "toy", ["weights.bin"], {"size": 2}, {}).version != first
    (model / "weights.bin").write_bytes(b"other weights")
    assert artifacts.save(model, "toy", ["weights.bin"], {"size": 1}, {}).version != first


def test_damage_is_noticed(model: Path) -> None:
    (model / "weights.bin").write_bytes(b"bit rot")
    with pytest.raises(ModelError, match=r"weights\.bin is missing or is not the file"):
        Artifact.load(model, "toy")


def test_another_kind_or_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="kind 'toy'; needed is 'text-encoder'"):
        Artifact.load(model, "text-encoder")
    with pytest.raises(ModelError, match="No model in"):
        Artifact.load(tmp_path / "nowhere", "toy")


@pytest.mark.parametrize("models", ["models", "models/light"])
def test_the_starter_weights_are_whole(models: str) -> None:
    for name, kind in KINDS.items():
        Artifact.load(PROJECT / models / name, kind)


def test_all_starter_weights_fit_in_the_repository_together() -> None:
    files = [path for path in (PROJECT / "models").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) <= 32_000_000
