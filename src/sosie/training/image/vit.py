"""A small vision transformer that sees a picture as a 3×3 grid of cells, and the masked auto-encoder that teaches it.

The *structured* patches: of the nine cells the centre one (where the product is) is always kept and two of the other
eight are drawn at random; the whole picture, shrunk to the size of one cell, is shown beside them. Masked
auto-encoding itself is after He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = 3
"""Cells along each side of the picture."""

CENTRE = CELLS * CELLS // 2

torch.backends.mha.set_fastpath_enabled(False)  # the fused layer can't be exported


@dataclass(frozen=True)
class Shape:
    """Sizes of the encoder. `picture` is the side in pixels and must be a multiple of 3 × `patch`."""

    picture: int = 144
    patch: int = 24
    width: int = 192
    depth: int = 6
    heads: int = 3
    dim: int = 128

    def __post_init__(self) -> None:
        if self.picture % (CELLS * self.patch):
            raise ValueError(
                f"A picture of {self.picture} px can't be cut into {CELLS}×{CELLS} cells of whole {self.patch} px "
                f"patches; take a multiple of {CELLS * self.patch}."
            )

    @property
    def cell(self) -> int:
        """Patches along the side of one cell."""
        return self.picture // self.patch // CELLS

    @property
    def grid_tokens(self) -> int:
        return (CELLS * self.cell) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of the grid, then those of the shrunk picture."""
        return self.grid_tokens + self.cell**2

    def tokens_of_cells(self) -> Tensor:
        """[9, cell²] token numbers of each cell."""
        side = CELLS * self.cell
        numbers = torch.arange(side * side).view(CELLS, self.cell, CELLS, self.cell)
        return numbers.permute(0, 2, 1, 3).reshape(CELLS * CELLS, -1)


def _blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
    )


def to_patches(pixels: Tensor, patch: int) -> Tensor:
    """[n, 3, s, s] pictures → [n, (s / patch)², 3 · patch²], row by row."""
    n, channels, height, width = pixels.shape
    pieces = pixels.reshape(n, channels, height // patch, patch, width // patch, patch)
    return pieces.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * patch * patch)


def structured_choice(n: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """[n, 4 · cell²] tokens that the encoder is shown: the centre, two other cells at random, the shrunk picture."""
    others = torch.tensor([cell for cell in range(CELLS * CELLS) if cell != CENTRE])
    drawn = torch.rand(n, len(others), generator=generator).argsort(1)[:, :2]
    cells = torch.cat([torch.full((n, 1), CENTRE), others[drawn]], 1)
    shrunk = torch.arange(shape.grid_tokens, shape.tokens).expand(n, -1)
    return torch.cat([shape.tokens_of_cells()[cells].flatten(1), shrunk], 1)


def _take(tokens: Tensor, choice: Tensor) -> Tensor:
    return tokens.gather(1, choice.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class Encoder(nn.Module):  # type: ignore[misc]
    """Pictures [n, 3, s, s] with values in 0…255 → unit vectors [n, dim]."""

    def __init__(self, shape: Shape, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.embed = nn.Linear(3 * shape.patch**2, shape.width)
        self.position = nn.Parameter(torch.randn(1, shape.tokens, shape.width) * 0.02)
        self.blocks = _blocks(shape.width, shape.depth, shape.heads)
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(2 * shape.width, shape.dim, bias=False)

    def patches(self, pixels: Tensor) -> Tensor:
        """[n, tokens, 3 · patch²], standardised: the grid, then the shrunk picture."""
        pixels = (pixels - self.mean) / self.std
        shrunk = F.avg_pool2d(pixels, CELLS)
        return torch.cat([to_patches(pixels, self.shape.patch), to_patches(shrunk, self.shape.patch)], 1)

    def states(self, patches: Tensor, choice: Tensor | None = None) -> Tensor:
        """[n, shown, width] of the shown tokens; all where there is no choice."""
        if choice is None:
            tokens = self.embed(patches) + self.position
        else:
            tokens = self.embed(_take(patches, choice)) + _take(self.position.expand(len(choice), -1, -1), choice)
        return self.norm(self.blocks(tokens))

    def pooled(self, pixels: Tensor, choice: Tensor | None = None) -> Tensor:
        """[n, 2 · width] of unit length: the means over the grid's tokens and over those of the shrunk picture."""
        states = self.states(self.patches(pixels), choice)
        grid, shrunk = states[:, : -(self.shape.cell**2)], states[:, -(self.shape.cell**2) :]
        return F.normalize(torch.cat([grid.mean(1), shrunk.mean(1)], 1), dim=1)

    def forward(self, pixels: Tensor, choice: Tensor | None = None) -> Tensor:
        return F.normalize(self.head(self.pooled(pixels, choice)), dim=1)


class Reconstruction(nn.Module):  # type: ignore[misc]
    """The decoder of the masked auto-encoder: from the shown tokens' states to the pixels of the hidden cells."""

    def __init__(self, shape: Shape, width: int = 96, depth: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.narrow = nn.Linear(shape.width, width)
        self.mask = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, shape.tokens, width) * 0.02)
        self.blocks = _blocks(width, depth, 3)
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, 3 * shape.patch**2)

    def loss(self, encoder: Encoder, pixels: Tensor, choice: Tensor) -> Tensor:
        """Mean squared error on the hidden patches, each standardised by its own mean and deviation (as He et al.)."""
        patches = encoder.patches(pixels)
        shown = self.narrow(encoder.states(patches, choice))
        n, width = len(pixels), shown.shape[-1]
        tokens = self.mask.to(shown.dtype).expand(n, self.shape.tokens, width)
        tokens = tokens.scatter(1, choice.unsqueeze(-1).expand(-1, -1, width), shown) + self.position
        hidden = (
            torch.ones(n, self.shape.tokens, dtype=torch.bool).scatter(1, choice, False).nonzero()[:, 1].view(n, -1)
        )
        target = _take(patches, hidden)
        target = (target - target.mean(2, keepdim=True)) / (target.std(2, keepdim=True) + 0.1)
        return F.mse_loss(self.pixels(self.norm(_take(self.blocks(tokens), hidden))), target)
