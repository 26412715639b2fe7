"""The text encoders in torch: BERT over word pieces or over characters, states of several layers, one vector a title.

Of the first paper is the shape: token states of the last layers go through a small CNN, and what it finds joins the
mean of the last layer. A linear head reduces the two to 128 numbers. The convolution is written as one matrix product
over each token and its neighbours, so that it is quantised like all the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.tables import DIM


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens, padding left out: [n, tokens, width] and [n, tokens] → [n, width]."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


class Aggregator(nn.Module):  # type: ignore[misc]  # torch is not followed
    """States of the last `layers` layers → pooled features [n, 2 · width], of unit length.

    Half of them are the mean of the last layer, where the base has learned to keep a sentence's meaning; the others are
    the mean over tokens of a convolution of three tokens over all the layers' states, narrowed first.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.narrow = nn.Linear(layers * width, width)
        self.convolution = nn.Linear(3 * width, width)

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        inside = mask.unsqueeze(-1).to(states[-1].dtype)
        narrow = F.gelu(self.narrow(torch.cat(list(states[-self.layers :]), -1))) * inside
        before, after = F.pad(narrow, (0, 0, 1, 0))[:, :-1], F.pad(narrow, (0, 0, 0, 1))[:, 1:]
        found = F.gelu(self.convolution(torch.cat([before, narrow, after], -1)))
        pooled = [F.normalize(masked_mean(each, mask), dim=1) for each in (states[-1], found)]
        return torch.cat(pooled, 1) * 0.5**0.5


class TitleEncoder(nn.Module):  # type: ignore[misc]
    """A title's tokens → (`pooled` [n, 2 · width], `vector` [n, 128]), both of unit length.

    `bert` is transformers' BertModel; with `characters` its word-piece table gives way to a character CNN.
    """

    def __init__(self, bert: Any, layers: int, characters: "CharacterCnn | None" = None) -> None:
        super().__init__()
        self.bert = bert
        width = bert.config.hidden_size
        self.characters = characters
        self.aggregator = Aggregator(width, layers)
        self.head = nn.Linear(2 * width, DIM, bias=False)

    def pooled(self, tokens: Tensor, mask: Tensor) -> Tensor:
        given = {"input_ids": tokens} if self.characters is None else {"inputs_embeds": self.characters(tokens)}
        states = self.bert(**given, attention_mask=mask, output_hidden_states=True).hidden_states
        return self.aggregator(states, mask)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pooled(tokens, mask)
        return pooled, F.normalize(self.head(pooled), dim=1)


_FILTERS = {1: 32, 2: 64, 3: 128, 4: 128, 5: 128}
"""Width of a convolution in letters → how many of them."""


class CharacterCnn(nn.Module):  # type: ignore[misc]
    """Bytes of words → word embeddings (El Boukkouri et al. 2020, CharacterBERT, arXiv:2010.10392).

    int64 [n, words, letters], 0 where there is no letter → [n, words, width]. Convolutions of several widths, the
    largest answer of each, a highway layer, a projection. `spread` is the standard deviation of the embeddings that
    these replace: BERT's are so small that steps of a usual size in a bare projection would drown the words.
    """

    spread: Tensor

    def __init__(self, width: int, symbols: int, spread: float = 1.0, letter: int = 24) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor(spread))
        self.letters = nn.Embedding(symbols, letter, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(letter, many, wide) for wide, many in _FILTERS.items())
        found = sum(_FILTERS.values())
        self.highway = nn.Linear(found, 2 * found)
        self.projection = nn.Linear(found, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, words, letters = tokens.shape
        spelt = self.letters(tokens.reshape(n * words, letters)).transpose(1, 2)
        found = torch.cat([F.relu(convolution(spelt)).amax(-1) for convolution in self.convolutions], 1)
        change, gate = self.highway(found).chunk(2, 1)
        found = torch.lerp(found, F.relu(change), torch.sigmoid(gate))
        projected: Tensor = self.projection(found) * self.spread
        return projected.reshape(n, words, -1)


@dataclass(frozen=True)
class Encoded:
    """Titles as token numbers: `tokens[i]` is int64 [length_i] (word pieces) or [length_i, letters] (characters)."""

    tokens: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def padded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(tokens, mask) of some rows, padded to their own longest."""
        lengths = np.array([len(self.tokens[row]) for row in rows])
        shape = (len(rows), int(lengths.max()), *self.tokens[rows[0]].shape[1:])
        padded = np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            padded[place, : lengths[place]] = self.tokens[row]
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        return torch.from_numpy(padded), torch.from_numpy(mask)

    def in_like_lengths(self, rows: np.ndarray, size: int) -> list[np.ndarray]:
        """`rows` cut into pieces of at most `size` that need little padding."""
        order = np.argsort([len(self.tokens[row]) for row in rows], kind="stable")
        return [rows[order[start : start + size]] for start in range(0, len(rows), size)]


def encode(
    model: TitleEncoder, encoded: Encoded, rows: np.ndarray, hidden: float = 0.0, piece: int = 32
) -> tuple[Tensor, Tensor]:
    """(pooled, vector) of some rows, in their order; pieces of like lengths spare the work on padding.

    Each token but the first, which is no word, is hidden from the model with the probability `hidden`, so that it does
    not learn to know a title by one of its words.
    """
    pieces = encoded.in_like_lengths(rows, piece)
    found = []
    for part in pieces:
        tokens, mask = encoded.padded(part)
        if hidden:
            mask[:, 1:] *= (torch.rand(mask[:, 1:].shape) >= hidden).long()
        found.append(model(tokens, mask))
    place = {int(row): at for at, row in enumerate(np.concatenate(pieces))}
    back = torch.tensor([place[int(row)] for row in rows])
    return torch.cat([pooled for pooled, _ in found])[back], torch.cat([vector for _, vector in found])[back]
