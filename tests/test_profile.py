"""The knobs of training, as `params.yaml` names them."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from sosie.errors import SettingsError
from sosie.training import profile
from sosie.training.image import efficientnet, pretrain, trainer


def test_the_recipes_are_the_trainers() -> None:
    """Every knob of a trainer can be given, and nothing else."""
    assert set(profile.Mae.model_fields) == {field.name for field in fields(trainer.Recipe)} - {"seed"}
    assert set(profile.EfficientNet.model_fields) == {field.name for field in fields(efficientnet.Recipe)}


@pytest.mark.parametrize("name", ["small", "full"])
def test_a_recipe_is_what_is_given_and_the_trainer_s_own_for_the_rest(name: str) -> None:
    told = yaml.safe_load(profile.PARAMS.read_text())["training"][name]["image"]
    found = profile.load(name)
    assert dict(found.image.mae) == told["mae"]
    assert list(dict(found.image.efficientnet_b3).items()) == list(told["efficientnet_b3"].items())
    assert pretrain.recipe_of(found) == trainer.Recipe(seed=found.seed, **told["mae"])
    assert efficientnet.recipe_of(found) == efficientnet.Recipe(**told["efficientnet_b3"])


@pytest.mark.parametrize(
    ("recipe", "knob", "value", "said"),
    [
        ("mae", "pictur", 96, r"training\.small\.image\.mae\.pictur: Extra inputs are not permitted"),
        ("mae", "depth", "deep", r"training\.small\.image\.mae\.depth: Input should be a valid integer"),
        ("efficientnet_b3", "epoch", 1, r"training\.small\.image\.efficientnet_b3\.epoch: Extra inputs"),
    ],
)
def test_a_misspelt_knob_is_named(tmp_path: Path, recipe: str, knob: str, value: object, said: str) -> None:
    told = yaml.safe_load(profile.PARAMS.read_text())
    told["training"]["small"]["image"][recipe][knob] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(told))
    with pytest.raises(SettingsError, match=said):
        profile.load("small", file)


def test_a_copy_under_another_name_works_elsewhere() -> None:
    """Else the evaluation's trainings under other seeds would write over the very models that it measures."""
    small = profile.load("small")
    assert small.work.name == "small"
    other = small.model_copy(update={"name": "small/evaluation/seeds/8"})
    assert other.models == small.work / "evaluation" / "seeds" / "8" / "models"
