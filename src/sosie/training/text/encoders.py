"""The trained title encoders, by name: how each is built, what tokens it takes, and vectors of many titles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from sosie.embedding.characters import SYMBOLS, spell
from sosie.training.profile import Profile
from sosie.training.text import base
from sosie.training.text.model import CharacterCnn, Encoded, TitleEncoder
from sosie.training.text.pretrain import TOKENIZER, tokenised
from sosie.training.text.pretrain import WEIGHTS as PRETRAINED

Array = npt.NDArray[np.float32]

NAMES = ("bert", "character_bert")
WEIGHTS = "encoder.pt"
_AT_ONCE = 64


def folder(profile: Profile, name: str) -> Path:
    return profile.work / "text" / name


def tokenizer_file(profile: Profile) -> Path:
    return profile.work / "text" / "pretrained" / TOKENIZER


def pieces(profile: Profile) -> Tokenizer:
    """The word pieces of the trained vocabulary."""
    return Tokenizer.from_file(str(tokenizer_file(profile)))


def tokeniser(profile: Profile, name: str) -> Callable[[list[str]], Encoded]:
    """From titles to the tokens that an encoder takes."""
    if name == "character_bert":
        return lambda texts: Encoded([spell(text, profile.text.max_tokens) for text in texts])
    known = pieces(profile)
    return lambda texts: tokenised(known, texts, profile.text.max_tokens)


def fresh_bert(profile: Profile) -> TitleEncoder:
    """The pretrained trunk with a new aggregator and head."""
    return TitleEncoder(_trunk(profile), profile.text.layers)


def fresh_character_bert(profile: Profile) -> tuple[TitleEncoder, CharacterCnn]:
    """The trained `bert` with a new character CNN in place of its word pieces, and that CNN."""
    teacher = load(profile, "bert")
    table = teacher.bert.get_input_embeddings().weight
    characters = CharacterCnn(table.shape[1], SYMBOLS, float(table.detach().std()))
    model = TitleEncoder(teacher.bert, profile.text.layers, characters)
    model.load_state_dict(teacher.state_dict(), strict=False)
    return model, characters


def load(profile: Profile, name: str) -> TitleEncoder:
    """A trained encoder, ready for use."""
    bert = _trunk(profile)
    characters = CharacterCnn(bert.config.hidden_size, SYMBOLS) if name == "character_bert" else None
    model = TitleEncoder(bert, profile.text.layers, characters)
    model.load_state_dict(torch.load(folder(profile, name) / WEIGHTS, weights_only=True))
    model.eval()
    return model


def head(profile: Profile, name: str) -> Array:
    """The reduction that metric learning found, float32 [128, 2 · width]."""
    return np.asarray(load(profile, name).head.weight.detach().numpy(), dtype=np.float32)


def vectors(model: TitleEncoder, encoded: Encoded) -> tuple[Array, Array]:
    """(pooled [n, 2 · width], vector [n, 128]), float32 of unit length, in the order of the titles."""
    was_training = model.training
    model.eval()
    pooled = np.empty((len(encoded), model.head.in_features), np.float32)
    reduced = np.empty((len(encoded), model.head.out_features), np.float32)
    with torch.inference_mode():
        for rows in encoded.in_like_lengths(np.arange(len(encoded)), _AT_ONCE):
            found = model(*encoded.padded(rows))
            pooled[rows], reduced[rows] = (each.numpy() for each in found)
    model.train(was_training)
    return pooled, reduced


def _trunk(profile: Profile) -> Any:
    """BERT with the fitted vocabulary and the pretrained weights."""
    bert, _ = base.load(profile.text.base)
    weights = torch.load(profile.work / "text" / "pretrained" / PRETRAINED, weights_only=True)
    table = weights["embeddings.word_embeddings.weight"]
    bert.set_input_embeddings(torch.nn.Embedding(*table.shape))
    bert.load_state_dict(weights)
    return bert
