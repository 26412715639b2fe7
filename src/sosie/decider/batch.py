"""Listings made ready once, so that many pairs of them can be compared in whole columns."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from sosie.decider import parsed
from sosie.decider.text_features import Compared, Floats, Quantities, Rows, Vocabulary, Weighted
from sosie.errors import SchemaMismatch, UnknownListing
from sosie.tables import FEED

ATTRIBUTES = (
    "brand",
    "gtin",
    "category",
    "price",
    "currency",
    "image_hash",
    "image_phash",
)
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_BITS_SET = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


class Prepared:
    """Everything about single listings that pair features need; nothing of it depends on the other listings."""

    def __init__(
        self,
        listings: pl.DataFrame,
        text_vectors: pl.DataFrame | None,
        image_vectors: pl.DataFrame | None,
        vocabulary: Vocabulary,
    ) -> None:
        self.ids = listings["listing_id"]
        known = {**FEED, "image_hash": pl.String}
        self.rows = listings.with_columns(
            (pl.col(name) if name in listings.columns else pl.lit(None)).cast(known[name]).alias(name)
            for name in ATTRIBUTES
        )
        self.text = vectors_of(self.ids, text_vectors, "text")
        self.image = vectors_of(self.ids, image_vectors, "image")
        self._vocabulary = vocabulary

    @cached_property
    def parsed(self) -> pl.DataFrame:
        return parsed.of(self.rows).with_columns(pl.col("text").fill_null(""))

    @cached_property
    def words(self) -> Weighted:
        return Weighted.of(self.parsed["words"], self._vocabulary.word_idf)

    @cached_property
    def ngrams(self) -> Weighted:
        return Weighted.of(self.parsed["spelling"], self._vocabulary.ngram_idf)

    @cached_property
    def numbers(self) -> Weighted:
        return Weighted.of(self.parsed["numbers"], self._vocabulary.word_idf)

    @cached_property
    def codes(self) -> Weighted:
        return Weighted.of(self.parsed["codes"], self._vocabulary.word_idf)

    @cached_property
    def editions(self) -> Weighted:
        return Weighted.of(self.parsed["editions"], self._vocabulary.word_idf)

    @cached_property
    def quantities(self) -> Quantities:
        return Quantities.of(self.parsed["least"], self.parsed["most"])

    @cached_property
    def masks(self) -> dict[str, Rows]:
        """Bit masks of colours, sizes and audiences, int64 `[listings]`."""
        return {name: self.parsed[name].fill_null(0).cast(pl.Int64).to_numpy() for name in parsed.MASKS}

    @cached_property
    def texts(self) -> list[str]:
        return self.parsed["text"].to_list()

    @cached_property
    def sorted_texts(self) -> list[str]:
        """The same with each one's words in order."""
        return [text and " ".join(sorted(text.split(" "))) for text in self.texts]

    @cached_property
    def codes_of(self) -> dict[str, Rows]:
        """Each attribute as numbers, equal where the value is equal after folding case and blanks; -1 where null."""
        folded = {
            name: self.rows[name].cast(pl.String).str.to_lowercase().str.strip_chars().replace("", None)
            for name in ("brand", "category", "currency", "image_hash")
        }
        folded["gtin"] = self.rows["gtin"].str.replace_all(r"\D", "").str.strip_chars_start("0").replace("", None)
        folded["text"] = self.parsed["text"].replace("", None)
        folded["first"] = folded["text"].str.split(" ").list.first()
        return {name: column.rank("dense").cast(pl.Int64).fill_null(-1).to_numpy() for name, column in folded.items()}

    @cached_property
    def price(self) -> Floats:
        price = self.rows["price"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        return np.where(price > 0, price, np.nan)

    @cached_property
    def phash(self) -> tuple[Bytes, Mask]:
        """Perceptual hashes as 8 bytes `[listings, 8]`, and whether there is one of 64 bits."""
        column = self.rows["image_phash"].str.to_lowercase()
        good = column.str.contains(r"^[0-9a-f]{16}$").fill_null(False).to_numpy()
        held = "".join(value if fine else "0" * 16 for value, fine in zip(column, good, strict=True))
        return np.frombuffer(bytes.fromhex(held), dtype=np.uint8).reshape(-1, 8), good

    def places(self, ids: pl.Series) -> Rows:
        """Row of each id. Raises `UnknownListing` naming one that is not here."""
        known = pl.DataFrame({"id": self.ids, "row": np.arange(len(self.ids))})
        rows = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")["row"]
        if missing := rows.null_count():
            example = ids.filter(rows.is_null())[0]
            raise UnknownListing(
                f"{missing} sides of pairs are not among the {len(self.ids)} listings given to the decider, "
                f"{example} for one; pass the listings of both sides of every pair."
            )
        return rows.to_numpy()


def vectors_of(ids: pl.Series, vectors: pl.DataFrame | None, modality: str) -> Floats:
    """Vectors `[listings, width]` float32 in the order of `ids`, a row of NaN where a listing has none.

    `vectors` has listing_id and vector, one row a listing, all of one width.
    """
    if vectors is None or vectors.is_empty():
        return np.full((len(ids), 1), np.nan, dtype=np.float32)
    held = vectors.filter(pl.col("vector").is_not_null())
    if held["listing_id"].n_unique() != held.height:
        raise SchemaMismatch(f"{modality} vectors name a listing twice; pass the one of the current embedding version.")
    width = held["vector"].list.len().unique() if held.schema["vector"] == pl.List else None
    if width is not None and len(width) != 1:
        raise SchemaMismatch(f"{modality} vectors have the widths {sorted(width)}; they must all have one.")
    matrix = held["vector"].to_numpy() if width is None else held["vector"].explode().to_numpy().reshape(-1, width[0])
    numbered = pl.DataFrame({"listing_id": held["listing_id"], "row": np.arange(held.height)})
    rows = pl.DataFrame({"listing_id": ids}).join(numbered, on="listing_id", how="left", maintain_order="left")["row"]
    found = rows.is_not_null().to_numpy()
    aligned = np.full((len(ids), matrix.shape[1]), np.nan, dtype=np.float32)
    aligned[found] = matrix[rows.drop_nulls().to_numpy()]
    return aligned


@dataclass(frozen=True)
class Batch:
    """Pairs by the rows of their listings. What several features need is worked out once."""

    listings: Prepared
    left: Rows
    right: Rows

    def __len__(self) -> int:
        return len(self.left)

    def cosine(self, modality: str) -> Floats:
        """Inner product of the two vectors, NaN where one is missing.

        To six digits: the last bits of a vector depend on what else was in its batch, and two equal pictures would be
        now 1 and now a hair less, which trees tell apart.
        """
        vectors: Floats = getattr(self.listings, modality)
        cosines = np.einsum("ij,ij->i", vectors[self.left], vectors[self.right])
        return np.asarray(np.round(cosines, 6), dtype=np.float32)

    def missing(self, modality: str) -> Floats:
        """How many of the two listings have no vector."""
        absent = np.isnan(getattr(self.listings, modality)[:, 0])
        return np.asarray(absent[self.left].astype(np.float32) + absent[self.right], dtype=np.float32)

    @cached_property
    def words(self) -> Compared:
        return self.listings.words.compare(self.left, self.right)

    @cached_property
    def _ngrams_shared(self) -> Floats:
        return self.listings.ngrams.shared(self.left, self.right)

    def ngram_overlap(self) -> Floats:
        """Share of the n-grams, by idf, of the title with fewer of them that the other has too."""
        total = self.over(self.listings.ngrams.total, smaller=True)
        return np.asarray(self._ngrams_shared / np.maximum(total, 1), dtype=np.float32)

    def ngram_coverage(self) -> Floats:
        """Share of the n-grams, by idf, of the title with more of them that the other has too."""
        total = self.over(self.listings.ngrams.total, smaller=False)
        return np.asarray(self._ngrams_shared / np.maximum(total, 1), dtype=np.float32)

    @cached_property
    def numbers(self) -> Compared:
        return self.listings.numbers.compare(self.left, self.right)

    @cached_property
    def codes(self) -> Compared:
        return self.listings.codes.compare(self.left, self.right)

    @cached_property
    def editions(self) -> Compared:
        return self.listings.editions.compare(self.left, self.right)

    @cached_property
    def quantities(self) -> Floats:
        return self.listings.quantities.difference(self.left, self.right)

    def masked(self, name: str) -> Floats:
        """1 some in common, -1 both name some and none in common, 0 one side names none."""
        mask = self.listings.masks[name]
        left, right = mask[self.left], mask[self.right]
        both = (left > 0) & (right > 0)
        return np.where(both, np.where(left & right, 1.0, -1.0), 0.0).astype(np.float32)

    def equal(self, attribute: str) -> Floats:
        """1 equal, 0 different, NaN where a side is null."""
        codes = self.listings.codes_of[attribute]
        left, right = codes[self.left], codes[self.right]
        return np.where((left < 0) | (right < 0), np.nan, left == right).astype(np.float32)

    def fuzzy(self, scorer: Callable[..., float], scale: float = 1.0, *, words_sorted: bool = False) -> Floats:
        """A rapidfuzz scorer over the normalised titles, divided by `scale`."""
        from rapidfuzz import process

        texts = self.listings.sorted_texts if words_sorted else self.listings.texts
        scores = process.cpdist(
            [texts[row] for row in self.left.tolist()],
            [texts[row] for row in self.right.tolist()],
            scorer=scorer,
            dtype=np.float32,
            workers=1,
        )
        return np.asarray(scores / np.float32(scale), dtype=np.float32)

    def phash_distance(self) -> Floats:
        """Bits in which the 64-bit perceptual hashes differ, NaN where a side has none."""
        hashes, good = self.listings.phash
        bits = _BITS_SET[hashes[self.left] ^ hashes[self.right]].sum(axis=1, dtype=np.float32)
        return np.where(good[self.left] & good[self.right], bits, np.nan).astype(np.float32)

    def price_ratio(self) -> Floats:
        """|log ratio| of the prices, NaN where one is missing or the currencies differ."""
        price, currency = self.listings.price, self.listings.codes_of["currency"]
        ratio = np.abs(np.log(price[self.left]) - np.log(price[self.right]))
        return np.where(currency[self.left] == currency[self.right], ratio, np.nan).astype(np.float32)

    def over(self, values: Floats, smaller: bool) -> Floats:
        """The smaller or the larger of a number that each listing has."""
        left, right = values[self.left], values[self.right]
        return (np.minimum(left, right) if smaller else np.maximum(left, right)).astype(np.float32)
