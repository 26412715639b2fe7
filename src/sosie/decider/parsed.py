"""Titles taken apart, in columns: what pair features need of a title, in a shape that a table can keep.

Words, numbers, codes, editions and character n-grams are hashed, each once and rising (hashing trick, Weinberger et al.
2009), so that a set of them is a row of a sparse matrix as it stands.
"""

from collections.abc import Callable, Collection
from itertools import chain

import mmh3
import numpy as np
import polars as pl
import pyarrow as pa

from sosie.decider.titles import DIMENSIONS, Title, parse
from sosie.tables import PARSED

BITS = 17
NGRAMS = (3, 4)

_SETS: dict[str, Callable[[Title], Collection[str]]] = {
    "words": lambda title: title.words,
    "numbers": lambda title: title.numbers,
    "codes": lambda title: title.codes,
    "editions": lambda title: title.editions,
    "spelling": lambda title: ngrams(title.text),
}
MASKS = ("colours", "sizes", "audience")


def ngrams(text: str) -> list[str]:
    """Character n-grams of the title without its blanks, and of its ends: `64 gb` and `64gb` are the same."""
    joined = f"^{text.replace(' ', '')}$"
    return [joined[i : i + n] for n in NGRAMS for i in range(len(joined) - n + 1)]


def parsed(titles: pl.Series) -> pl.DataFrame:
    """A row of `tables.PARSED` for each title, in order; null reads as an empty one."""
    if titles.is_empty():
        return pl.DataFrame(schema=PARSED)
    unique = titles.cast(pl.String).unique(maintain_order=True)
    each = [parse(title) for title in unique]
    quantities = [_extremes(title) for title in each]
    found = pl.DataFrame(
        {
            "text": [title.text for title in each],
            **{name: _hashed([terms(title) for title in each]) for name, terms in _SETS.items()},
            **{name: [getattr(title, name) for title in each] for name in MASKS},
            "least": [least for least, _ in quantities],
            "most": [most for _, most in quantities],
        },
        schema=PARSED,
    )
    places = pl.DataFrame({"title": unique, "row": np.arange(len(unique))})
    asked = pl.DataFrame({"title": titles.cast(pl.String)})
    return found[asked.join(places, on="title", how="left", nulls_equal=True, maintain_order="left")["row"]]


def of(listings: pl.DataFrame) -> pl.DataFrame:
    """The titles of some listings taken apart: as their column `parsed` has it, where they come with one."""
    return listings["parsed"].struct.unnest() if "parsed" in listings.columns else parsed(listings["title"])


def beside(listings: pl.DataFrame) -> pl.DataFrame:
    """The listings with that column, so that who asks them again need not take their titles apart again."""
    return listings.with_columns(of(listings).to_struct("parsed"))


def _hashed(terms: list[Collection[str]]) -> pl.Series:
    """As scikit-learn's FeatureHasher does it without signs; importing that takes longer than an hour's titles do."""
    lengths = np.fromiter(map(len, terms), np.int64, len(terms))
    hashes = np.fromiter(map(mmh3.hash, chain.from_iterable(terms)), np.int64, int(lengths.sum()))
    keys = np.sort((np.repeat(np.arange(len(terms)), lengths) << BITS) + np.abs(hashes) % (1 << BITS))
    keys = keys[np.diff(keys, prepend=-1) > 0]  # two terms may have one hash
    starts = np.searchsorted(keys, np.arange(len(terms) + 1) << BITS)
    found = pa.LargeListArray.from_arrays(pa.array(starts), pa.array((keys % (1 << BITS)).astype(np.int32)))
    return pl.Series(found)


def _extremes(title: Title) -> tuple[list[float], list[float]]:
    """The smallest and the largest quantity of each dimension."""
    if not title.quantities:
        return [], []
    named = [title.quantities.get(dimension, (np.nan,)) for dimension in DIMENSIONS]
    return [values[0] for values in named], [values[-1] for values in named]
