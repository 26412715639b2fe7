"""What a seller does to a picture, on whole batches of tensors: fast enough to make every training batch anew."""

import io

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

_WORDS = (
    "SALE",
    "NEW",
    "ORIGINAL",
    "READY STOCK",
    "100%",
    "PROMO",
    "FREE SHIPPING",
    "BEST PRICE",
    "shop24",
    "-50%",
    "COD",
)


def overlays(count: int, side: int, rng: np.random.Generator) -> Tensor:
    """[count, 4, side, side] uint8 RGBA: watermarks, price tags, ribbons and banners."""
    made = []
    for _ in range(count):
        layer = Image.new("RGBA", (side, side))
        draw = ImageDraw.Draw(layer)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        ink = (255, 255, 255) if sum(colour) < 380 else (0, 0, 0)
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        font = ImageFont.load_default(size=int(rng.integers(side // 14, side // 6)))
        kind = rng.integers(4)
        if kind == 0:  # a watermark across the picture
            for y in range(int(rng.integers(0, side // 3)), side, int(rng.integers(side // 4, side))):
                draw.text((int(rng.integers(0, side // 3)), y), word, (*colour, int(rng.integers(60, 180))), font)
            layer = layer.rotate(float(rng.uniform(-40, 40)))
        elif kind == 1:  # a ribbon at the top or the bottom
            height = int(rng.integers(side // 10, side // 5))
            top = 0 if rng.random() < 0.5 else side - height
            draw.rectangle((0, top, side, top + height), (*colour, 255))
            draw.text((int(rng.integers(0, side // 2)), top + 1), word, ink, font)
        elif kind == 2:  # a round tag in a corner
            size = int(rng.integers(side // 6, side // 3))
            x, y = (int(value) * (side - size) for value in rng.integers(0, 2, 2))
            draw.ellipse((x, y, x + size, y + size), (*colour, 255))
            draw.text((x + size // 5, y + size // 3), word[:4], ink, font)
        else:  # a logo
            width, height = int(rng.integers(side // 6, side // 2)), int(rng.integers(side // 12, side // 5))
            x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
            draw.rounded_rectangle((x, y, x + width, y + height), 4, (*colour, int(rng.integers(120, 256))))
            draw.text((x + 2, y + 1), word, ink, font)
        made.append(np.asarray(layer))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def relisted(pictures: Tensor, side: int, bank: Tensor, generator: torch.Generator) -> Tensor:
    """Uint8 pictures [n, 3, s, s] → float [n, 3, side, side] in 0…255, each spoilt in its own way."""
    n = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def happens(share: float) -> Tensor:
        return torch.rand(n, generator=generator) < share

    # Crop, frame, stretch, tilt and mirror are one affine map; what lies outside takes the colour of the frame.
    zoom = torch.where(happens(0.35), uniform(1.0, 1.45), uniform(0.62, 1.0))
    zoom = torch.where(happens(0.15), torch.ones(n), zoom)
    stretch = torch.where(happens(0.5), torch.exp(uniform(-0.18, 0.18)), torch.ones(n))
    angle = torch.where(happens(0.25), uniform(-0.14, 0.14), torch.zeros(n))
    mirror = torch.where(happens(0.4), -1.0, 1.0)
    shift = uniform(-1, 1, 2) * (1 - zoom).abs().unsqueeze(1)
    wide, high = zoom * stretch, zoom / stretch
    theta = torch.stack(
        [
            torch.stack([mirror * wide * angle.cos(), -mirror * wide * angle.sin(), shift[:, 0]], 1),
            torch.stack([high * angle.sin(), high * angle.cos(), shift[:, 1]], 1),
        ],
        1,
    )
    frame = torch.where(happens(0.5).view(n, 1, 1, 1), torch.full((n, 3, 1, 1), 255.0), uniform(0, 255, 3, 1, 1))
    where = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    pixels = F.grid_sample(pictures.float() - frame, where, align_corners=False) + frame

    pixels = _recoloured(pixels, generator)
    marked = happens(0.35).nonzero().flatten()
    overlay = bank[torch.randint(len(bank), (len(marked),), generator=generator)].float()
    pixels[marked] = torch.lerp(pixels[marked], overlay[:, :3], overlay[:, 3:] / 255)
    soft = happens(0.25).nonzero().flatten()
    small = F.avg_pool2d(pixels[soft], 2)
    pixels[soft] = F.interpolate(small, size=side, mode="bilinear", align_corners=False)
    return _recompressed(pixels.clamp_(0, 255), happens(0.25), uniform(20, 80))


def _recoloured(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Exposure, contrast, saturation and a slight cast, as one linear map of the colours. Never another hue."""
    n = len(pixels)

    def near_one(width: float, *shape: int) -> Tensor:
        return 1 + width * (2 * torch.rand(n, *shape, generator=generator) - 1)

    some = (torch.rand(n, 1, 1, generator=generator) < 0.65).float()
    saturation, contrast = near_one(0.4, 1, 1), near_one(0.25, 1, 1)
    gain = near_one(0.2, 1, 1) * near_one(0.07, 3, 1)
    map_ = gain * contrast * (torch.eye(3) * saturation + (1 - saturation) / 3)
    offset = gain * (1 - contrast) * pixels[:, :, ::4, ::4].mean((1, 2, 3)).view(n, 1, 1)
    map_ = torch.lerp(torch.eye(3).expand(n, 3, 3), map_, some)
    return torch.baddbmm(offset * some, map_, pixels.flatten(2)).view_as(pixels)


def _recompressed(pixels: Tensor, which: Tensor, quality: Tensor) -> Tensor:
    for index in which.nonzero().flatten().tolist():
        spoilt = io.BytesIO()
        image = Image.fromarray(pixels[index].permute(1, 2, 0).byte().numpy())
        image.save(spoilt, "JPEG", quality=int(quality[index]))
        pixels[index] = torch.from_numpy(np.array(Image.open(spoilt))).permute(2, 0, 1)
    return pixels
