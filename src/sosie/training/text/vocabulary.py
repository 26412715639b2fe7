"""A word-piece vocabulary that fits the titles, with embeddings carried over from the base's own.

A base trained on English cuts `gamis` into three pieces. Each new whole word gets the mean of its old pieces'
embeddings (fast vocabulary transfer, Gee et al. 2022, arXiv:2402.09977), and pieces that no title needs go: sequences
get shorter, and so does the table.
"""

import json
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Matrix = npt.NDArray[np.float32]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FREQUENT = 14_000
"""The base's table is in order of frequency; so many of its first entries stay, for titles of other domains."""

_STEM = 4
"""Word pieces up to this many letters stay, so that any new word can be spelt."""


def fit(base: Tokenizer, titles: Iterable[str], new_words: int, min_count: int) -> tuple[Tokenizer, list[list[int]]]:
    """The new tokenizer, and for each of its tokens the base's tokens that it is made of.

    New are the words seen at least `min_count` times that save most pieces, `new_words` at most.
    """
    words = Counter[str]()
    for title in titles:
        text = base.normalizer.normalize_str(title)
        words.update(word for word, _ in base.pre_tokenizer.pre_tokenize_str(text))
    old = base.get_vocab()
    pieces = {word: base.encode(word, add_special_tokens=False).tokens for word in words}
    saved = {
        word: count * (len(pieces[word]) - 1)
        for word, count in words.items()
        if count >= min_count and word not in old and word.isalpha() and "[UNK]" not in pieces[word]
    }
    added = sorted(saved, key=lambda word: (-saved[word], word))[:new_words]
    used = {piece for tokens in pieces.values() for piece in tokens}
    kept = sorted((token for token in old if _stays(token, old[token], used)), key=lambda token: old[token])
    tokens = [*SPECIAL, *(token for token in kept if token not in SPECIAL), *added]
    parts = [[old[token]] if token in old else base.encode(token, add_special_tokens=False).ids for token in tokens]
    return _with_vocabulary(base, tokens), parts


def transferred(table: Matrix, parts: list[list[int]]) -> Matrix:
    """Embeddings [new tokens, width]: the mean of the old rows that each new token is made of."""
    return np.stack([table[rows].mean(axis=0) for rows in parts]).astype(np.float32)


def _stays(token: str, place: int, used: set[str]) -> bool:
    if token.startswith("[unused"):
        return False
    stem = token.removeprefix("##")
    return token in used or place < _FREQUENT or (stem.isascii() and len(stem) <= _STEM and token != stem)


def _with_vocabulary(base: Tokenizer, tokens: list[str]) -> Tokenizer:
    """The base tokenizer with other tokens; its normaliser and its special tokens' roles stay."""
    described = json.loads(base.to_str())
    numbers = {token: number for number, token in enumerate(tokens)}
    described["model"]["vocab"] = numbers
    for token in described["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for token in described["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [numbers[name] for name in token["tokens"]]
    for side in ("sep", "cls"):
        if side in described["post_processor"]:
            name = described["post_processor"][side][0]
            described["post_processor"][side] = [name, numbers[name]]
    described["truncation"] = described["padding"] = None
    return Tokenizer.from_str(json.dumps(described))
