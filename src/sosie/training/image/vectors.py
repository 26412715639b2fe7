"""The two trained picture encoders, by name, and features of many pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sosie.embedding.image import squeezed
from sosie.training.image import efficientnet
from sosie.training.image.pretrain import recipe_of
from sosie.training.image.vit import Encoder
from sosie.training.profile import Profile

Array = npt.NDArray[np.float32]

NAMES = ("mae", "efficientnet_b3")
_AT_ONCE = 64


def load(profile: Profile, name: str) -> Any:
    """A trained encoder, ready for use: an `Encoder` or an `EfficientNet`."""
    if name == "efficientnet_b3":
        return efficientnet.load(profile)
    model = Encoder(recipe_of(profile).shape, (0.0,) * 3, (1.0,) * 3)
    held = torch.load(profile.work / "image" / name / "last.pt", weights_only=True)
    model.load_state_dict(held["encoder"])
    model.eval()
    return model


def side(profile: Profile, name: str) -> int:
    """Side of the square that an encoder sees, in pixels."""
    return recipe_of(profile).picture if name == "mae" else efficientnet.recipe_of(profile).picture


def full_width(profile: Profile, name: str, pictures: Sequence[bytes]) -> Array:
    """Pooled features before the head, float32 [n, width] of unit length."""
    model, size = load(profile, name), side(profile, name)
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _AT_ONCE):
            pixels = np.stack([squeezed(data, size) for data in pictures[start : start + _AT_ONCE]])
            found.append(model.pooled(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy())
    return np.concatenate(found)


def learned_head(profile: Profile, name: str) -> Array:
    """The reduction that metric learning found, float32 [128, width]: a vector is the unit of `full_width @ head.T`."""
    return np.asarray(load(profile, name).head.weight.detach().numpy(), dtype=np.float32)
