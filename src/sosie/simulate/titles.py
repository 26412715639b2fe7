"""What sellers do to a title before they list the product again."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sosie.simulate import units
from sosie.simulate.words import COUNTS, EMOJI, FILLERS, LANGUAGES, PROMOTIONS, SHORT, TRANSLATIONS

T = TypeVar("T")

GLUE = "\x1f"
"""Stands for a space inside what must stay together, such as a number and its unit."""

_TOGETHER = re.compile(
    rf"{units.QUANTITY.pattern}"
    r"|\b(?:size|sz|eu|uk|ukuran|gr\.|größe|taille|talla)\s(?:\d{1,2}(?:\.5)?|x{0,3}[sml])\b"
    r"|\b(?:set of|pack of|pack de|lot de|lote de|isi|paket|beli) 2\b|\b2(?:er)? (?:pcs|set|stück|pièces|unidades)\b"
    r"|\btwin pack\b",
    re.IGNORECASE,
)
_COUNT = re.compile(r"\b(?:set of 2|2 pcs|pack of 2|twin pack|2-pack)\b|(?<!\w)2x(?!\w)", re.IGNORECASE)
_NEIGHBOURS = {
    key: near
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for key, near in zip(row, (row[max(0, i - 1) : i] + row[i + 1 : i + 2] for i in range(len(row))), strict=True)
}


@dataclass(frozen=True)
class Context:
    """Who writes, and which words (in lower case) carry what the product is."""

    language: str
    protected: frozenset[str]

    def keeps(self, word: str) -> bool:
        """Whether losing or misspelling `word` would make another product of it."""
        bare = word.strip("()[],.:;!").lower()
        return bare in self.protected or any(letter.isdigit() for letter in bare) or GLUE in bare


Change = Callable[[list[str], np.random.Generator, Context], list[str]]


def relist(
    title: str,
    rng: np.random.Generator,
    *,
    language: str | None = None,
    protected: Collection[str] = (),
    strength: float = 1.0,
) -> str:
    """`title` as another seller would write it: a few changes drawn from `CHANGES`, in their order.

    Args:
        title: an English-like product title.
        rng: the only source of chance.
        language: one of `words.LANGUAGES`; drawn where none is given.
        protected: words that are never dropped, shortened or misspelt (they may be translated), beside all numbers.
        strength: factor on each change's probability; 0 gives the title back.
    """
    context = Context(language or _any(LANGUAGES, rng), frozenset(word.lower() for word in protected))
    if rng.random() < 0.5 * strength:
        title = _COUNT.sub(lambda hit: _any(COUNTS[context.language], rng), title)
    if rng.random() < 0.6 * strength:
        title = units.rewrite(title, rng, context.language)
    words = _TOGETHER.sub(lambda hit: hit.group().replace(" ", GLUE), title).split(" ")
    for change, probability in CHANGES:
        if rng.random() < probability * strength:
            words = change(words, rng, context)
    text = " ".join(word for word in words if word).replace(GLUE, " ")
    return re.sub(r" {2,}", " ", text).strip() or title


def reorder(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Move the first words to the end, one word elsewhere, or a stretch about."""
    if len(words) < 3:
        return words
    kind = rng.integers(0, 3)
    if kind == 0:
        cut = int(rng.integers(1, min(3, len(words) - 1) + 1))
        return words[cut:] + words[:cut]
    if kind == 1:
        words = words.copy()
        word = words.pop(int(rng.integers(0, len(words))))
        words.insert(int(rng.integers(0, len(words) + 1)), word)
        return words
    start = int(rng.integers(0, len(words) - 2))
    stretch = words[start : start + 4]
    return words[:start] + [stretch[i] for i in rng.permutation(len(stretch))] + words[start + 4 :]


def drop(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Leave out one or two words that aren't protected."""
    loose = [i for i, word in enumerate(words) if not context.keeps(word)]
    if len(words) < 4 or len(loose) < 2:
        return words
    gone = set(rng.choice(loose, int(rng.integers(1, 3)), replace=False).tolist())
    return [word for i, word in enumerate(words) if i not in gone]


def shorten(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Abbreviate, or write with or without a hyphen."""
    return [
        _any(SHORT[word.lower()], rng)
        if word.lower() in SHORT and not context.keeps(word) and rng.random() < 0.7
        else word.replace("-", _any(("", " "), rng))
        if "-" in word and not context.keeps(word) and rng.random() < 0.4
        else word
        for word in words
    ]


def translate(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Swap words for the seller's language, or say some of them twice, once in each language."""
    if context.language == "en":
        return words
    lexicon, twice = TRANSLATIONS[context.language], rng.random() < 0.35
    known = {word: lexicon[word.lower()].replace(" ", GLUE) for word in words if word.lower() in lexicon}
    if twice:
        return words + [other for other in dict.fromkeys(known.values()) if rng.random() < 0.7]
    return [known[word] if word in known and rng.random() < 0.75 else word for word in words]


def misspell(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """One or two slips of the finger in words of five letters or more."""
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha() and not context.keeps(word)]
    if not long:
        return words
    words = words.copy()
    for i in rng.choice(long, min(len(long), int(rng.integers(1, 3))), replace=False).tolist():
        words[i] = _slip(words[i], rng)
    return words


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    kind = rng.integers(0, 4)
    if kind == 0:
        return before + after
    if kind == 1:
        return before + letter + letter + after
    if kind == 2:
        return before + after[0] + letter + after[1:]
    return before + _any(_NEIGHBOURS.get(letter.lower(), letter), rng) + after


def fill(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Add one or two words that say nothing."""
    words = words.copy()
    for _ in range(int(rng.integers(1, 3))):
        words.insert(int(rng.integers(1, len(words) + 1)), _any(FILLERS[context.language], rng))
    return words


def promote(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Shout before or after the title, in the seller's language or in English."""
    wording = PROMOTIONS[context.language if rng.random() < 0.85 else "en"]
    for _ in range(int(rng.integers(1, 3))):
        shout = _any(_WRAPS, rng).format(_any(wording, rng))
        words = [shout, *words] if rng.random() < 0.55 else [*words, shout]
    return words


def decorate(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """Emoji before or after."""
    for _ in range(int(rng.integers(1, 3))):
        symbol = _any(EMOJI, rng) * int(rng.choice([1, 1, 1, 2, 3]))
        words = [symbol, *words] if rng.random() < 0.5 else [*words, symbol]
    return words


def separate(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """A dash, a stroke or a comma between two parts, or the last part in brackets."""
    if len(words) < 3:
        return words
    at = int(rng.integers(1, len(words)))
    if rng.random() < 0.25:
        return [*words[:at], f"({words[at]}", *words[at + 1 :], ")"] if at < len(words) - 1 else words
    return [*words[:at], _any(("-", "|", "/", ",", "–", ":"), rng), *words[at:]]


def recase(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    """All capitals, all small, or Capitals On Each."""
    style: Callable[[str], str] = _any((str.upper, str.upper, str.lower, str.title), rng)
    return [style(word) for word in words]


def scramble(words: list[str], rng: np.random.Generator, context: Context) -> list[str]:
    r"""Text that a careless export wrote as the bytes it is made of: `b"caf\xc3\xa9"`."""
    text = " ".join(words).replace(GLUE, " ")
    if text.isascii() or '"' in text or "\\" in text:
        return words
    literal = "".join(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in text.encode())
    return [f'b"{literal}"']


def _any(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(0, len(choices)))]


_WRAPS = ("{}", "{}", "{}!", "[{}]", "({})", "*{}*", "{} -", "#{}", "!!{}!!")

CHANGES: tuple[tuple[Change, float], ...] = (
    (reorder, 0.45),
    (drop, 0.18),
    (shorten, 0.30),
    (translate, 0.40),
    (misspell, 0.14),
    (fill, 0.15),
    (separate, 0.22),
    (recase, 0.25),
    (promote, 0.30),
    (decorate, 0.12),
    (scramble, 0.06),
)
"""Each change and the share of re-listed titles that it touches, in the order in which a seller would make them."""
