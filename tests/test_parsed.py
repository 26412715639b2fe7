"""Titles taken apart, in columns and in the lake: the same as when each is parsed where it is needed."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sosie import spellings
from sosie.decider import parsed
from sosie.decider.features import pair_features
from sosie.decider.text_features import Vocabulary, of_unit_length, rows
from sosie.decider.titles import DIMENSIONS, parse
from sosie.lake import Lake
from sosie.listings import sha256
from sosie.tables import PARSED, SPELLINGS

WORDS = ["Café", "KX-200", "2x500 ml", "1,5 kg", "XL", "red", "Hitam", "Women's", "64gb", "pro", "—", "1.000", "٣"]
VOCABULARY = Vocabulary.fit(pl.Series(WORDS))
some_titles = st.lists(st.none() | st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=8)
two_or_more = some_titles.filter(lambda titles: len(titles) > 1)


def listed(titles: list[str | None]) -> pl.DataFrame:
    ids = [f"id{number}" for number in range(len(titles))]
    frame = pl.DataFrame({"listing_id": ids, "title": pl.Series(titles, dtype=pl.String)})
    return frame.with_columns(text_hash=sha256("title"))


@settings(deadline=None)
@given(some_titles)
def test_a_row_says_what_parsing_its_title_says(titles: list[str | None]) -> None:
    rows = parsed.parsed(pl.Series(titles, dtype=pl.String))
    assert dict(rows.schema) == PARSED
    for row, title in zip(rows.iter_rows(named=True), map(parse, titles), strict=True):
        assert row["text"] == title.text
        assert {name: row[name] for name in parsed.MASKS} == {name: getattr(title, name) for name in parsed.MASKS}
        for name in ("words", "numbers", "codes", "editions", "spelling"):
            assert row[name] == sorted(set(row[name]))
        for name in ("numbers", "codes", "editions"):
            assert len(row[name]) == len(getattr(title, name))
        for column, place in (("least", 0), ("most", -1)):
            named = dict(zip(DIMENSIONS, row[column], strict=True)) if row[column] else {}
            told = {dimension: value for dimension, value in named.items() if not np.isnan(value)}
            assert told == pytest.approx({of: values[place] for of, values in title.quantities.items()})


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_titles, some_titles)
def test_the_lake_gives_back_what_parsing_gives_and_is_told_no_title_twice(
    tmp_path_factory: pytest.TempPathFactory, first: list[str | None], second: list[str | None]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for titles in (first, second):
        listings = listed(titles)
        told = spellings.kept(lake, listings, "run")
        assert_frame_equal(
            told, parsed.parsed(listings["title"]).with_columns(_nothing(listings, name) for name in PARSED)
        )
    written = lake.version(SPELLINGS)
    assert spellings.kept(lake, listed(first), "run", columns=["text"]).columns == ["text"]
    assert lake.version(SPELLINGS) == written
    held = lake.read(SPELLINGS)
    assert held["text_hash"].sort().to_list() == sorted(
        {*listed(first)["text_hash"], *listed(second)["text_hash"]} - {None}
    )


def _nothing(listings: pl.DataFrame, column: str) -> pl.Expr:
    """A listing without a title has no row in the lake."""
    return pl.when(pl.lit(listings["title"].is_not_null())).then(pl.col(column)).alias(column)


def test_titles_of_another_manner_are_taken_apart_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, listings = Lake(str(tmp_path)), listed(["red kettle KX-200", None])
    monkeypatch.setattr(spellings, "manner", lambda: "of before")
    lake.upsert(SPELLINGS, _blank(listings.head(1)))
    assert spellings.kept(lake, listings, "run")["text"].to_list() == ["", None]
    monkeypatch.undo()
    assert spellings.kept(lake, listings, "run")["text"].to_list() == ["red kettle kx 200", None]
    assert lake.read(SPELLINGS)["manner"].to_list() == [spellings.manner()]


def _blank(listings: pl.DataFrame) -> pl.DataFrame:
    return listings.select("text_hash", manner=pl.lit("of before")).hstack(parsed.parsed(pl.Series([""])))


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_terms_have_the_places_and_rows_the_length_that_scikit_learn_gives_them(titles: list[str]) -> None:
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.preprocessing import normalize

    texts = [parse(title).text for title in titles]
    hasher = FeatureHasher(n_features=1 << parsed.BITS, input_type="string", alternate_sign=False)
    wanted = hasher.transform([parsed.ngrams(text) for text in texts])
    spelling = parsed.parsed(pl.Series(titles))["spelling"]
    assert [row.to_list() for row in spelling] == [sorted(row.indices) for row in wanted]
    weighted = rows(spelling, VOCABULARY.ngram_idf)
    np.testing.assert_array_equal(of_unit_length(weighted).toarray(), normalize(weighted).toarray())


@settings(deadline=None)
@given(two_or_more)
def test_pairs_look_the_same_whether_titles_come_taken_apart_or_not(titles: list[str | None]) -> None:
    listings = listed(titles)
    pairs = pl.DataFrame({"left_id": ["id0"], "right_id": ["id1"]})
    plain = pair_features(pairs, listings, None, None, VOCABULARY)
    np.testing.assert_array_equal(plain, pair_features(pairs, parsed.beside(listings), None, None, VOCABULARY))
    # As the lake has it, where a listing without a title has nothing.
    kept = parsed.parsed(listings["title"]).with_columns(_nothing(listings, name) for name in PARSED)
    from_lake = listings.with_columns(kept.to_struct("parsed"))
    np.testing.assert_array_equal(plain, pair_features(pairs, from_lake, None, None, VOCABULARY))
