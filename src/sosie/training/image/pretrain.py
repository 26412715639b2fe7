"""Stage `pretrain_image`: masked auto-encoding on structured patches of the pictures (`vit.py` tells which)."""

from typing import Any

import torch

from sosie.training.checkpoints import write_metrics
from sosie.training.image.data import Pictures
from sosie.training.image.trainer import Recipe, Trainer
from sosie.training.profile import Profile, stage


def recipe_of(profile: Profile) -> Recipe:
    knobs: dict[str, Any] = dict(profile.image.mae)
    return Recipe(seed=profile.seed, **knobs)


def trainer_of(profile: Profile, name: str) -> Trainer:
    """A trainer at work/image/<name>, with what it held when it was last there."""
    recipe = recipe_of(profile)
    if profile.image.threads:
        torch.set_num_threads(profile.image.threads)
    pictures = Pictures.read(profile.data("encoder"), recipe.stored_side)
    trainer = Trainer(recipe, pictures, profile.work / "image" / name)
    trainer.resume()
    return trainer


def main(profile: Profile) -> None:
    trainer = trainer_of(profile, "pretrained")
    trainer.run(until=trainer.recipe.reconstruct_epochs)
    write_metrics(trainer.work, {"pictures": len(trainer.seen.pixels), **(trainer.history or [{}])[-1]})


if __name__ == "__main__":
    stage(main, __doc__)
