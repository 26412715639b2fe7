"""Titles as words of letters, for encoders that read characters instead of word pieces."""

import re
import unicodedata

import numpy as np
import numpy.typing as npt

LETTERS = 16
"""Bytes of a word that are read; longer words keep their start and, in the last place, an end mark."""

_PAD, _START, _END, _FIRST, _LAST, _BYTES = 0, 1, 2, 3, 4, 5
SYMBOLS = _BYTES + 256
"""Nothing, the ends of a title, the ends of a word, and every byte of UTF-8."""

_WORD = re.compile(r"\w+|[^\w\s]")

Ints = npt.NDArray[np.int64]


def words(title: str) -> list[str]:
    """A title's words and signs in lower case without accents."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", title.lower()) if not unicodedata.combining(sign))
    return _WORD.findall(plain)


def spell(title: str, max_words: int) -> Ints:
    """int64 [words, LETTERS]: a mark for the start, the title's words and signs, an end; `max_words` rows at most."""
    rows = [[_START], *([*word.encode()] for word in words(title)[: max_words - 2]), [_END]]
    spelt = np.zeros((len(rows), LETTERS), dtype=np.int64)
    for place, row in enumerate(rows):
        if 0 < place < len(rows) - 1:
            row = [_FIRST, *(byte + _BYTES for byte in row[: LETTERS - 2]), _LAST]
        spelt[place, : len(row)] = row
    return spelt
