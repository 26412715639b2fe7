"""Pair features: what a title says, symmetric in its sides, blind to the rest of the catalogue."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from sosie.decider.features import FEATURES, NAMES, pair_features
from sosie.decider.text_features import Vocabulary
from sosie.decider.titles import parse
from sosie.errors import SchemaMismatch, UnknownListing

TITLES = [
    "Apple iPhone 8 Plus 64GB Space Grey",
    "apple iphone 8 plus 64 gb gold",
    "Minyak Goreng Bimoli 1L",
    "minyak goreng bimoli 1000 ml promo",
    "Minyak Goreng Bimoli 2 Liter",
    "Denon DVD-2930CI player",
    "denon dvd2930ci",
    "Denon DVD-3800BDCI player",
    "Kaos Polos Pria Hitam Size M",
    "Kaos Polos Wanita Putih Size XL",
    "Masker 3 ply isi 50 pcs",
    "Masker 3 ply isi 100 pcs",
]
VOCABULARY = Vocabulary.fit(pl.Series(TITLES))


def listings(titles: list[str | None], **columns: list[object]) -> pl.DataFrame:
    ids = [f"l{place:02}" for place in range(len(titles))]
    return pl.DataFrame({"listing_id": ids, "title": pl.Series(titles, dtype=pl.String), **columns})


def vectors(*rows: tuple[str, list[float]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"listing_id": pl.String, "vector": pl.List(pl.Float32)}, orient="row")


def features(left: str | None, right: str | None, **columns: list[object]) -> dict[str, float]:
    pairs = pl.DataFrame({"left_id": ["l00"], "right_id": ["l01"]})
    row = pair_features(pairs, listings([left, right], **columns), None, None, VOCABULARY)[0]
    return dict(zip(NAMES, row.tolist(), strict=True))


@pytest.mark.parametrize(
    ("title", "quantities"),
    [
        ("Sirup 1L", {"volume": (1000.0,)}),
        ("Sirup 1.000 ml", {"volume": (1000.0,)}),
        ("Sirup 0,5 liter", {"volume": (500.0,)}),
        ("Tape 12 mm x 4,5 m", {"length": (12.0, 4500.0)}),
        ("Beras 2kg", {"weight": (2000.0,)}),
        ("Masker isi 50 pcs", {"count": (50.0,)}),
        ("Gelas 1 lusin", {"count": (12.0,)}),
        ("Soap pack of 3", {"count": (3.0,)}),
        ("Sabun x3", {"count": (3.0,)}),
        ("iPhone 64GB", {"storage": (65536.0,)}),
        ("Kaos size m", {}),
        ("Seri A 12", {}),
    ],
)
def test_quantities_are_read_in_base_units(title: str, quantities: dict[str, tuple[float, ...]]) -> None:
    assert dict(parse(title).quantities) == quantities


def test_a_title_is_taken_apart() -> None:
    title = parse("Women's Denon DVD-2930CI, Hitam  Size M")
    assert title.codes == ("dvd2930ci",)
    assert title.colours == parse("black").colours != parse("white").colours
    assert title.sizes == parse("medium").sizes
    assert title.audience == parse("wanita").audience
    assert parse(r"b'caf\xc3\xa9 64GB'").text == parse("Café 64 gb").text == "cafe 64 gb"
    assert parse(None).text == ""


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("Bimoli 1L", "bimoli 1000 ml", {"quantity_conflicts": 0, "quantity_agreements": 1}),
        ("Bimoli 1L", "Bimoli 2L", {"quantity_conflicts": 1, "quantity_agreements": 0, "numbers_agree": -1}),
        ("Bimoli 1L", "Bimoli", {"quantity_one_sided": 1, "quantity_conflicts": 0}),
        ("Masker", "Masker isi 50", {"pack_ratio": np.log(50)}),
        ("Denon DVD-2930CI", "denon dvd2930ci", {"codes_agree": 1, "codes_shared": 1}),
        ("Denon DVD-2930CI", "Denon DVD-3800BDCI", {"codes_agree": -1}),
        ("Kaos hitam", "Kaos black", {"colours": 1}),
        ("Kaos hitam", "Kaos white", {"colours": -1}),
        ("Kaos hitam", "Kaos", {"colours": 0}),
        ("Kaos size M", "Kaos size XL", {"sizes": -1}),
        ("Sepatu pria", "Men shoe", {"audience": 1}),
        ("Red shoe!", "red SHOE", {"same_title": 1, "word_tfidf": 1, "ngram_tfidf": 1, "spelling": 1}),
        ("iPhone 8 64gb", "iPhone 8 64 GB", {"ngram_tfidf": 1, "word_jaccard": 1}),
    ],
)
def test_what_two_titles_have_in_common(left: str, right: str, expected: dict[str, float]) -> None:
    found = features(left, right)
    assert {name: pytest.approx(found[name], abs=1e-4) for name in expected} == expected


def test_attributes_agree_contradict_or_are_unknown() -> None:
    found = features(
        "a", "b", gtin=["00-123", "123"], brand=["Nike", " nike "], category=["x", "y"],
        price=[10.0, 20.0], currency=["USD", "USD"], image_hash=["h", "h"],
        image_phash=["ff00ff00ff00ff00", "FF00FF00FF00FF01"],
    )  # fmt: skip
    assert (found["same_gtin"], found["same_brand"], found["same_category"]) == (1, 1, 0)
    assert found["price_ratio"] == pytest.approx(np.log(2))
    assert (found["same_picture"], found["phash_distance"]) == (1, 1)
    other = features("a", "b", price=[10.0, 20.0], currency=["USD", "IDR"], image_phash=["zz", "ff00ff00ff00ff00"])
    assert np.isnan(other["price_ratio"])
    assert np.isnan(other["phash_distance"])


def test_vectors_may_be_missing() -> None:
    pairs = pl.DataFrame({"left_id": ["l00", "l00"], "right_id": ["l01", "l02"]})
    text = vectors(("l00", [1, 0]), ("l01", [0.6, 0.8]))
    values = pair_features(pairs, listings(["a", "b", "c"]), text, None, VOCABULARY)
    table = dict(zip(NAMES, values.T, strict=True))
    np.testing.assert_allclose(table["text_cosine"], [0.6, np.nan], rtol=1e-6)
    assert table["text_missing"].tolist() == [0, 1]
    assert np.isnan(table["image_cosine"]).all()
    assert table["image_missing"].tolist() == [2, 2]


def test_unfit_input_is_named() -> None:
    pairs = pl.DataFrame({"left_id": ["l00"], "right_id": ["nobody"]})
    with pytest.raises(UnknownListing, match="nobody"):
        pair_features(pairs, listings(["a"]), None, None, VOCABULARY)
    known = pl.DataFrame({"left_id": ["l00"], "right_id": ["l01"]})
    with pytest.raises(SchemaMismatch, match="twice"):
        pair_features(known, listings(["a", "b"]), vectors(("l00", [1]), ("l00", [1])), None, VOCABULARY)
    with pytest.raises(SchemaMismatch, match="widths"):
        pair_features(known, listings(["a", "b"]), vectors(("l00", [1]), ("l01", [1, 0])), None, VOCABULARY)


def test_no_pairs_no_rows() -> None:
    none = pl.DataFrame(schema={"left_id": pl.String, "right_id": pl.String})
    assert pair_features(none, listings(["a"]), None, None, VOCABULARY).shape == (0, len(FEATURES))


def test_the_vocabulary_comes_back_as_it_was_saved(tmp_path) -> None:
    VOCABULARY.save(tmp_path / "vocabulary.npz")
    again = Vocabulary.load(tmp_path / "vocabulary.npz")
    np.testing.assert_array_equal(again.word_idf, VOCABULARY.word_idf)
    np.testing.assert_array_equal(again.ngram_idf, VOCABULARY.ngram_idf)


def test_every_feature_says_what_it_means() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(feature.reason and feature.push in (-1, 0, 1) for feature in FEATURES)


ANY_TITLE = st.one_of(
    st.none(), st.sampled_from(TITLES), st.text(max_size=40),
    st.from_regex(r"[0-9.,]{1,6} ?(ml|kg|x|pcs|\")", fullmatch=True)
)  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(titles=st.lists(ANY_TITLE, min_size=3, max_size=6), seed=st.integers(0, 99))
def test_features_are_symmetric_and_depend_on_the_pair_alone(titles: list[str | None], seed: int) -> None:
    """Sides turned round, other listings gone, rows shuffled: the numbers of a pair stay the same to the bit."""
    catalogue = listings(titles)
    random = np.random.default_rng(seed)
    text = vectors(*((name, random.normal(size=4).tolist()) for name in catalogue["listing_id"][1:]))
    pairs = pl.DataFrame({"left_id": ["l00", "l01", "l00"], "right_id": ["l01", "l02", "l02"]})
    whole = pair_features(pairs, catalogue.sample(fraction=1, shuffle=True, seed=seed), text, None, VOCABULARY)
    turned = pair_features(
        pairs.rename({"left_id": "right_id", "right_id": "left_id"}), catalogue, text, None, VOCABULARY
    )
    alone = pair_features(pairs[1:2], catalogue[1:3], text, None, VOCABULARY)
    np.testing.assert_array_equal(whole, turned)
    np.testing.assert_array_equal(whole[1:2], alone)
    assert not np.isinf(whole).any()


@settings(deadline=None, max_examples=30)
@given(left=ANY_TITLE, right=ANY_TITLE)
def test_titles_with_their_words_sorted_are_compared_as_rapidfuzz_does(left: str | None, right: str | None) -> None:
    expected = np.float32(fuzz.token_sort_ratio(parse(left).text, parse(right).text)) / np.float32(100)
    assert features(left, right)["spelling_sorted"] == expected


def test_parts_side_by_side_are_what_one_thread_works_out(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = listings([*TITLES, None])
    ids = catalogue["listing_id"].to_list()
    pairs = pl.DataFrame([(a, b) for a in ids for b in ids if a < b], schema=["left_id", "right_id"], orient="row")
    whole = pair_features(pairs, catalogue, None, None, VOCABULARY, threads=1)
    monkeypatch.setattr("sosie.decider.features._AT_ONCE", 7)
    parts = pair_features(pairs, catalogue, None, None, VOCABULARY, threads=3)
    np.testing.assert_array_equal(parts, whole)
