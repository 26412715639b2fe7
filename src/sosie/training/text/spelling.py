"""The character CNN learns to spell: from a word's letters to the embeddings that its word pieces had.

From random weights it would give the transformer noise, and the transformer would learn to give every title the same
vector, before it had learned to read. Words whose embeddings are known are the cheapest teachers (Pinter et al. 2017,
"Mimicking word embeddings using subword RNNs", arXiv:1707.06961).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import structlog
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from sosie.embedding.characters import spell, words
from sosie.training.schedule import warm_then_cosine
from sosie.training.text.model import CharacterCnn

log = structlog.get_logger()

_BATCH = 512
_RATE = 2e-3
_WARMUP = 0.1


class Words(NamedTuple):
    """`letters` int64 [n, LETTERS] and `embeddings` float32 [n, width], a row a word and each end of a title.

    `shares` float64 [n] says how often each is shown: by the square root of how often titles have it.
    """

    letters: Tensor
    embeddings: Tensor
    shares: np.ndarray


def taught_words(titles: Sequence[str], tokenizer: Tokenizer, table: nn.Embedding) -> Words:
    """The words of the titles, each with the mean of its pieces' embeddings in `table`."""
    counts = Counter(word for title in titles for word in words(title))
    tokenizer.no_truncation()
    found = tokenizer.encode_batch(list(counts), add_special_tokens=False)
    known = {word: pieces.ids for word, pieces in zip(counts, found, strict=True) if pieces.ids}
    start, *_, end = spell("a", 3)
    ends = [[tokenizer.token_to_id(name)] for name in ("[CLS]", "[SEP]")]
    letters = [start, end, *(spell(word, 3)[1] for word in known)]
    with torch.no_grad():
        embeddings = [table.weight[ids].mean(0) for ids in (*ends, *known.values())]
    often = np.sqrt([len(titles), len(titles), *(counts[word] for word in known)])
    return Words(torch.from_numpy(np.stack(letters)), torch.stack(embeddings), often / often.sum())


def learn(characters: CharacterCnn, taught: Words, epochs: float, seed: int) -> float:
    """Train `characters` in place; the share of the embeddings' variance that it did not find, in the last epoch."""
    variance = float(taught.embeddings.var(0).mean())
    optimiser = torch.optim.AdamW(characters.parameters(), lr=_RATE, weight_decay=0.01)
    batch = min(_BATCH, len(taught.letters))
    steps = math.ceil(epochs * len(taught.letters) / batch)
    order = np.random.default_rng(seed).choice(len(taught.letters), steps * batch, p=taught.shares)
    missed: list[float] = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = _RATE * warm_then_cosine(step / steps, _WARMUP)
        rows = torch.from_numpy(order[step * batch : (step + 1) * batch])
        found = characters(taught.letters[rows].unsqueeze(1)).squeeze(1)
        loss = (found - taught.embeddings[rows]).square().mean() / variance
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        missed.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            log.info("spelling", step=step + 1, of=steps, words=len(taught.letters), missed=round(missed[-1], 4))
    return float(np.mean(missed[-math.ceil(steps / max(epochs, 1)) :])) if missed else 1.0
