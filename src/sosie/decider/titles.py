"""A title taken apart: words, numbers, quantities with their units, model codes, colours, sizes, audience, edition."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sosie.decider.lexicon import AUDIENCES, COLOURS, COUNT_BEFORE, EDITIONS, SIZES, UNITS
from sosie.listings import clean_title

DIMENSIONS = tuple(UNITS)
_FACTOR = {unit.casefold(): (dimension, factor) for dimension, units in UNITS.items() for unit, factor in units.items()}
_NUMBER = r"\d+(?:[.,]\d+)*"
_QUANTITY = re.compile(
    rf"(?<![\w.,])({_NUMBER})[\s-]?({'|'.join(sorted(map(re.escape, _FACTOR), key=len, reverse=True))})(?![^\W\d_])"
)
_COUNT = re.compile(rf"\b(?:{'|'.join(COUNT_BEFORE)})\s*:?\s*({_NUMBER})(?!\w)|(?<!\S)x(\d{{1,3}})(?![\w.,])")
_POSSESSIVE = re.compile(r"(?<=\w)['’`]s\b")
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
_CHUNK = re.compile(r"[^\W_]+(?:[-/.][^\W_]+)*")
_THOUSANDS = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_NO_WORD = re.compile(r"[\W_]+")
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_MIN_CODE = 4


def _bits(names: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    return {word: 1 << place for place, words in enumerate(names.values()) for word in words}


_COLOUR, _SIZE, _AUDIENCE = _bits(COLOURS), _bits(SIZES), _bits(AUDIENCES)
_NAMED = frozenset(_COLOUR.keys() | _SIZE.keys() | _AUDIENCE.keys())


@dataclass(frozen=True)
class Title:
    """One parsed title. `quantities` are in base units by dimension; colours, sizes and audience are bit masks."""

    text: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    codes: tuple[str, ...]
    editions: tuple[str, ...]
    quantities: Mapping[str, tuple[float, ...]]
    colours: int
    sizes: int
    audience: int


def parse(title: str | None) -> Title:
    """Take a title apart; null reads as an empty one."""
    text = _plain(clean_title(title or ""))
    quantities, rest = _quantities(text)
    words = tuple(_WORD.findall(text))
    # Sizes and colours are read where no unit was: the m of "2 m" is no medium.
    loose = _NAMED.intersection(rest.split())
    colours, sizes, audience = (_mask(loose, table) for table in (_COLOUR, _SIZE, _AUDIENCE))
    return Title(
        text=" ".join(words),
        words=words,
        numbers=tuple(sorted({_canonical(word) for word in words if word[0].isdigit()})),
        codes=tuple(sorted(_codes(rest))),
        editions=tuple(sorted(EDITIONS.intersection(words))),
        quantities=quantities,
        colours=colours,
        sizes=sizes,
        audience=audience,
    )


def _plain(text: str) -> str:
    """Lower case without accents; a possessive s is no size."""
    text = text.casefold()
    if text.isascii():  # nothing to decompose
        return _POSSESSIVE.sub("", text)
    text = unicodedata.normalize("NFKD", text)
    return _POSSESSIVE.sub("", "".join(sign for sign in text if not unicodedata.combining(sign)))


def _mask(words: Iterable[str], bits: Mapping[str, int]) -> int:
    mask = 0
    for word in words:
        mask |= bits.get(word, 0)
    return mask


def _value(number: str) -> float:
    """`4,5` and `4.5` are four and a half; `1.000` and `1,000` a thousand, as either sign groups digits somewhere."""
    if _THOUSANDS.fullmatch(number) and not number.startswith("0"):
        return float(re.sub(r"[.,]", "", number))
    head, *tail = re.split(r"[.,]", number)
    return float(f"{head}.{''.join(tail) or 0}")


def _canonical(number: str) -> str:
    return f"{_value(number):.6g}"


def _quantities(text: str) -> tuple[dict[str, tuple[float, ...]], str]:
    """Quantities by dimension, and what is left of the text, in words parted by blanks."""
    found: dict[str, set[float]] = {}
    for number, unit in _QUANTITY.findall(text):
        dimension, factor = _FACTOR[unit]
        found.setdefault(dimension, set()).add(_value(number) * factor)
    for before, times in _COUNT.findall(text):
        found.setdefault("count", set()).add(_value(before or times))
    rest = " ".join(_CHUNK.findall(_QUANTITY.sub(" ", text)))
    return {dimension: tuple(sorted(values)) for dimension, values in found.items()}, rest


def _codes(rest: str) -> set[str]:
    """Chunks that mix letters and digits, as model and part numbers do: `mq8n2b/a`, `dvd-2930ci`."""
    joined = (_NO_WORD.sub("", chunk) for chunk in rest.split())
    return {code for code in joined if len(code) >= _MIN_CODE and _LETTER.search(code) and _DIGIT.search(code)}
