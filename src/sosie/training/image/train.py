"""Stage `train_image`: metric learning of both picture encoders on re-listings of pictures.

`mae` goes on from the masked auto-encoder: structured patches of two re-listings of one product are pulled together
against all others of the batch (InfoNCE, after van den Oord et al., arXiv:1807.03748, in the symmetric form of SimCLR,
arXiv:2002.05709), then the same with whole pictures, as the encoder is used later. `efficientnet_b3` has no
pretrained weights to start from, so it learns from `mae` first, then the products as classes with an angular margin.
"""

import shutil

import torch
from torch import Tensor

from sosie.training.checkpoints import write_metrics
from sosie.training.image import efficientnet, vectors
from sosie.training.image.pretrain import trainer_of
from sosie.training.profile import Profile, stage

_AT_ONCE = 64


def main(profile: Profile) -> None:
    train_mae(profile)
    if not efficientnet.is_trained(profile):
        train_efficientnet(profile)


def train_mae(profile: Profile) -> None:
    """Write work/image/mae."""
    out = profile.work / "image" / "mae"
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "last.pt").exists():
        shutil.copyfile(profile.work / "image" / "pretrained" / "last.pt", out / "last.pt")
    trainer = trainer_of(profile, "mae")
    trainer.run()
    write_metrics(out, {"pictures": len(trainer.seen.pixels), **trainer.history[-1]})


def train_efficientnet(profile: Profile) -> None:
    """Write work/image/efficientnet_b3, with `mae` as its teacher."""
    teacher = vectors.load(profile, "mae")

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def taught(pixels: Tensor) -> Tensor:
        return torch.cat([teacher(piece.float()) for piece in pixels.split(_AT_ONCE)]).clone()

    efficientnet.train(profile, taught, vectors.side(profile, "mae"))


if __name__ == "__main__":
    stage(main, __doc__)
