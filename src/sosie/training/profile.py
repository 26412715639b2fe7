"""The knobs of training, as `params.yaml` holds them under `training.<profile>`, and where each stage writes."""

import argparse
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal

import structlog
import yaml
from pydantic import Field, ValidationError

from sosie import logs
from sosie.errors import SettingsError
from sosie.settings import PROJECT, Section, Share
from sosie.training import outputs

PARAMS = PROJECT / "params.yaml"
WORK = PROJECT / "var" / "training"


class Parts(Section):
    """How many listings of a simulated marketplace each part gets."""

    encoder: int
    decider: int
    test: int


class Prepare(Section):
    """`data` is the folder of the public datasets; `real` and `pairs` name those that are read from it."""

    data: Path
    real: tuple[str, ...]
    pairs: tuple[str, ...]
    fashion: Parts | None
    generated: Parts


class Pretrain(Section):
    """Masked-language modelling of titles, after the vocabulary was fitted to them; 0 epochs leave it out."""

    new_words: int
    min_count: int
    epochs: float
    batch: int
    rate: float


class Metric(Section):
    """Metric learning. `loss` is "contrastive" (temperature) or "arcface" (scale, margin).

    `hard_share` of the groups come along with those that they are mistaken for.
    `hidden` of a title's tokens are left out. `bfloat16` is fast on processors that multiply in it, and no other.
    """

    loss: Literal["contrastive", "arcface"]
    epochs: float
    batch: int
    rate: float
    head_rate: float
    rows_per_group: int
    hard_share: Share
    hidden: Share
    temperature: float
    margin: float
    scale: float
    warmup: Share
    bfloat16: bool = False


class Crossed(Section):
    """Stage `cross_text`: `datasets` whose encoders' part the decider learns from too, by the vectors of an encoder
    that learned from the decider's part, and what is other in its metric learning."""

    datasets: tuple[str, ...]
    epochs: float
    bfloat16: bool


class CharacterBert(Section):
    """Character-CNN word embeddings: epochs over words, then over titles against the trained `bert`, then in groups."""

    spelling_epochs: float
    distil_epochs: float
    distil_rate: float
    metric_epochs: float


class Text(Section):
    """`base` is "packaged", a folder, or a hub id of a BERT; `encoder` the one that is exported to be used."""

    base: str
    encoder: Literal["bert", "character_bert"]
    max_tokens: int
    layers: int
    threads: int = 0
    pretrain: Pretrain
    metric: Metric
    character: CharacterBert
    crossed: Crossed


class Recipe(Section):
    """Knobs of a trainer that has a value for each. As pairs it gives those that the profile names, in this order."""

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        yield from ((name, value) for name, value in super().__iter__() if name in self.model_fields_set)


class Mae(Recipe):
    """The masked auto-encoder (`training.image.trainer.Recipe`): sizes in pixels, batches in pictures."""

    reconstruct_epochs: int | None = None
    contrast_epochs: int | None = None
    whole_epochs: int | None = None
    picture: int | None = None
    stored_side: int | None = None
    depth: int | None = None
    patch: int | None = None
    width: int | None = None
    heads: int | None = None
    reconstruct_batch: int | None = None
    reconstruct_rate: float | None = None
    contrast_batch: int | None = None
    contrast_rate: float | None = None
    temperature: float | None = None
    weight_decay: float | None = None
    neighbours: int | None = None


class EfficientNet(Recipe):
    """EfficientNet-B3 with ArcFace (`training.image.efficientnet.Recipe`)."""

    imitate_epochs: int | float | None = None  # as it is written, as the model's card repeats it
    epochs: int | float | None = None
    picture: int | None = None
    batch: int | None = None
    imitate_rate: float | None = None
    rate: float | None = None
    temperature: float | None = None
    scale: float | None = None
    margin: float | None = None
    weight_decay: float | None = None
    warmup: float | None = None


class Image(Section):
    """`encoder` is the one that is exported to be used."""

    encoder: Literal["mae", "efficientnet_b3"]
    threads: int = 0
    mae: Mae
    efficientnet_b3: EfficientNet


class Decider(Section):
    """`among` names datasets whose decider part is learnt from once more in the midst of their encoders' part; one that
    is crossed too stands among its decider's part there."""

    rounds: int
    graph_rounds: int
    folds: int
    threads: int = 0
    review_yield: Share
    mlp_epochs: int
    among: tuple[str, ...] = ()


class Light(Section):
    """Stage `train_light_text`: metric learning of the static encoder, as in `Metric`. `crossed_epochs` are those of
    the one that learns from the smaller part, so that it makes as many steps."""

    epochs: int
    crossed_epochs: int
    batch: int
    rate: float
    rows_per_group: int
    hard_share: Share
    temperature: float
    warmup: Share


class Judgements(Section):
    """`held_back` is the share of the groups of judgements that no training sees, `weight` what those that are learnt
    from count beside one dataset of labelled pairs."""

    held_back: Share = 0.3
    weight: float = Field(1.0, ge=0)


class Profile(Section):
    name: str
    seed: int
    prepare: Prepare
    text: Text
    image: Image
    decider: Decider
    light: Light
    judgements: Judgements = Judgements()
    evaluate_seeds: int = Field(ge=1)

    @property
    def work(self) -> Path:
        """Everything that this profile's stages write. Not cached: a copy under another name must not keep it."""
        return WORK / self.name

    def data(self, part: Literal["encoder", "decider", "test"]) -> Path:
        """The datasets of one part; no group is in two."""
        return self.work / "data" / part

    def judged(self, part: Literal["learn", "held"]) -> Path:
        """Judgements that the decider learns from, and those that only the evaluation reads."""
        return self.work / "data" / "judged" / part

    @property
    def crossed_text(self) -> Path:
        """The model folder of stage `cross_text`."""
        return self.work / "text" / "crossed" / "model"

    @property
    def models(self) -> Path:
        """The exported models, laid out as `models/` of the repository."""
        return self.work / "models"

    @property
    def light_models(self) -> Path:
        """The models that do without a transformer; what they share with the others lies there alone."""
        return self.models / "light"

    @property
    def light_crossed_text(self) -> Path:
        """The static encoder that learned from the decider's part."""
        return self.work / "text" / "light-crossed"


def load(name: str, file: Path = PARAMS) -> Profile:
    """The profile `name`. Raises `SettingsError` naming what is wrong with it."""
    profiles = (yaml.safe_load(file.read_text()) or {}).get("training", {})
    if name not in profiles:
        raise SettingsError(
            f"{file} has no profile {name!r} under `training`. It has: {', '.join(profiles) or 'none'}."
        )
    try:
        return Profile(name=name, **profiles[name])
    except ValidationError as error:
        faults = "; ".join(f"training.{name}.{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        raise SettingsError(f"{file} can't be used: {faults}.") from None


def stage(main: Callable[[Profile], None], about: str | None) -> None:
    """Run a stage for the profile that the command line names."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="full", help="a profile of params.yaml")
    given = parser.parse_args()
    logs.configure()
    profile = load(given.profile)
    spec = sys.modules[main.__module__].__spec__
    module = spec.name if spec else main.__module__  # run by -m, the module's own name is __main__
    structlog.get_logger().info("stage", of=module, profile=profile.name)
    outputs.begin(profile.name, module)
    main(profile)
