"""Stage `pretrain_text`: the base's vocabulary is fitted to the titles, and masked words are guessed in them.

Masked-language modelling (Devlin et al. 2019, arXiv:1810.04805) alone would make the model forget what the base knows
of whole sentences, so each title's mean vector is held to the base's own at the same time.
"""

import math
from pathlib import Path

import numpy as np
import structlog
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.training.checkpoints import Checkpoint, write_metrics
from sosie.training.profile import Profile, stage
from sosie.training.schedule import shuffled, warm_then_cosine
from sosie.training.text import base, vocabulary
from sosie.training.text.model import Encoded, masked_mean
from sosie.training.text.titles import Titles

log = structlog.get_logger()

TOKENIZER = "tokenizer.json"
WEIGHTS = "bert.pt"
SENTENCES = "base_vectors.npy"
"""The base's mean vector of each title, float32 of unit length: where training looks for its first neighbours."""

_MASKED = 0.15
_KEEP_GEOMETRY = 5.0
_WARMUP = 0.1
_SAVE_EVERY = 100


def main(profile: Profile) -> None:
    torch.manual_seed(profile.seed)
    if profile.text.threads:
        torch.set_num_threads(profile.text.threads)
    out = profile.work / "text" / "pretrained"
    out.mkdir(parents=True, exist_ok=True)
    titles = Titles.read(profile.data("encoder"))
    bert, old = base.load(profile.text.base)
    knobs = profile.text.pretrain
    new, parts = vocabulary.fit(old, titles.texts, knobs.new_words, knobs.min_count)
    new.save(str(out / TOKENIZER))
    log.info("vocabulary", tokens=len(parts), was=old.get_vocab_size(), **_lengths(old, new, titles.texts))

    taught = base_vectors(bert, tokenised(old, titles.texts, profile.text.max_tokens), out)
    table = bert.get_input_embeddings().weight.detach().numpy()
    embedding = nn.Embedding.from_pretrained(torch.from_numpy(vocabulary.transferred(table, parts)), freeze=False)
    bert.set_input_embeddings(embedding)
    history = _train(bert, new, tokenised(new, titles.texts, profile.text.max_tokens), taught, profile, out)
    torch.save(bert.state_dict(), out / WEIGHTS)
    (out / "last.pt").unlink(missing_ok=True)
    write_metrics(out, {**(history[-1] if history else {}), **_lengths(old, new, titles.texts), "tokens": len(parts)})


def tokenised(tokenizer: Tokenizer, texts: list[str], max_tokens: int) -> Encoded:
    """Token numbers of each title, cut at `max_tokens`."""
    tokenizer.enable_truncation(max_tokens)
    return Encoded([np.array(found.ids, dtype=np.int64) for found in tokenizer.encode_batch(texts)])


def _lengths(old: Tokenizer, new: Tokenizer, texts: list[str]) -> dict[str, float]:
    """Mean number of tokens of a title under either vocabulary."""
    return {
        name: round(float(np.mean([len(found.ids) for found in tokenizer.encode_batch(texts)])), 2)
        for name, tokenizer in (("tokens_a_title", new), ("tokens_a_title_before", old))
    }


def base_vectors(bert: nn.Module, encoded: Encoded, out: Path) -> np.ndarray:
    """The base's mean vectors [n, width] of unit length, kept in `out`."""
    file = out / SENTENCES
    if file.exists() and len(held := np.load(file)) == len(encoded):
        return np.asarray(held)
    bert.eval()
    vectors = np.empty((len(encoded), bert.config.hidden_size), np.float32)
    with torch.inference_mode():
        for rows in encoded.in_like_lengths(np.arange(len(encoded)), 64):
            tokens, mask = encoded.padded(rows)
            states = bert(input_ids=tokens, attention_mask=mask).last_hidden_state
            vectors[rows] = F.normalize(masked_mean(states, mask), dim=1).numpy()
    np.save(file, vectors)
    return vectors


class _Guess(nn.Module):  # type: ignore[misc]  # torch is not followed
    """States of masked tokens → scores over the vocabulary, whose embeddings are the output layer too."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        tokens, width = embedding.weight.shape
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(tokens))
        self.embedding = embedding

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(self.transform(states), self.embedding.weight, self.bias)


def _train(
    bert: nn.Module, tokenizer: Tokenizer, encoded: Encoded, taught: np.ndarray, profile: Profile, out: Path
) -> list[dict[str, float]]:
    """Guess masked tokens; the history of both losses."""
    knobs = profile.text.pretrain
    both = nn.ModuleDict({"bert": bert, "guess": _Guess(bert.get_input_embeddings())})
    optimiser = torch.optim.AdamW(both.parameters(), lr=knobs.rate, weight_decay=0.01)
    order = shuffled(len(encoded), knobs.epochs, profile.seed)
    steps = math.ceil(len(order) / knobs.batch)
    checkpoint = Checkpoint(out / "last.pt", both=both, optimiser=optimiser)
    held = checkpoint.resume()
    history: list[dict[str, float]] = held.get("history", [])
    both.train()
    losses: list[tuple[float, float]] = []
    for step in range(held.get("step", 0), steps):
        optimiser.param_groups[0]["lr"] = knobs.rate * warm_then_cosine(step / steps, _WARMUP)
        rows = order[step * knobs.batch : (step + 1) * knobs.batch]
        tokens, mask = encoded.padded(rows)
        spoilt, hidden = _mask(tokens, mask, tokenizer)
        states = bert(input_ids=spoilt, attention_mask=mask).last_hidden_state
        guessed = F.cross_entropy(both["guess"](states[hidden]), tokens[hidden])
        kept = 1 - (F.normalize(masked_mean(states, mask), dim=1) * torch.from_numpy(taught[rows])).sum(1).mean()
        optimiser.zero_grad()
        (guessed + _KEEP_GEOMETRY * kept).backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        losses.append((guessed.item(), kept.item()))
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            masked, distance = np.mean(losses, axis=0).round(4).tolist()
            history.append({"step": step + 1, "masked_loss": masked, "distance_to_base": distance})
            log.info("masked words", of=steps, **history[-1])
            checkpoint.save(step=step + 1, history=history)
            losses = []
    return history


def _mask(tokens: Tensor, mask: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """(tokens with 15 % hidden, where): of the hidden ones 80 % read [MASK], 10 % another token, 10 % themselves."""
    ends = torch.tensor([tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")])
    hidden = mask.bool() & ~torch.isin(tokens, ends) & (torch.rand(tokens.shape) < _MASKED)
    hidden[0, 1] = True  # one at least, or there is nothing to learn from
    kind = torch.rand(tokens.shape)
    other = torch.randint(len(vocabulary.SPECIAL), tokenizer.get_vocab_size(), tokens.shape)
    spoilt = torch.where(hidden & (kind < 0.8), torch.tensor(tokenizer.token_to_id("[MASK]")), tokens)
    return torch.where(hidden & (kind >= 0.9), other, spoilt), hidden


if __name__ == "__main__":
    stage(main, __doc__)
