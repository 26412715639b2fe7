"""Lexical retrieval against brute force."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import lexical
from sosie.decider.parsed import parsed
from sosie.decider.text_features import Vocabulary
from sosie.settings import Blocking

WORDS = ["acme", "kettle", "kx200", "kx-200", "steel", "1l", "1000ml", "red", "blue", "Wasserkocher"]
VOCABULARY = Vocabulary.fit(pl.Series([f"{a} {b}" for a in WORDS for b in WORDS]))
titles = st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=12)


@settings(deadline=None)
@given(titles, st.integers(1, 5), st.integers(0, 11))
def test_the_nearest_are_those_that_brute_force_finds(titles: list[str], k: int, asked: int) -> None:
    ids = pl.Series([f"id{number:02d}" for number in range(len(titles))])
    held = lexical.weighed(parsed(pl.Series(titles, dtype=pl.String))["spelling"], VOCABULARY)
    asking = ids.head(asked % len(titles) + 1)
    found = lexical.join(asking, ids, held, k, 0.1, threads=1)
    similarity = (held @ held.T).toarray()
    np.fill_diagonal(similarity, -1)
    for place, one in enumerate(asking):
        mine = found.filter(pl.col("query_id") == one)
        best = np.sort(similarity[place])[::-1][:k]
        assert np.allclose(mine["similarity"].to_numpy(), best[best > 0.1], atol=1e-5)
        assert one not in mine["listing_id"].to_list()


def test_codes_and_units_meet_across_their_spellings() -> None:
    listings = pl.DataFrame(
        {
            "listing_id": ["a", "b", "c", "d"],
            "title": ["Acme KX-200 kettle", "kettle acme kx200 PROMO", "Nordic lamp 40W", None],
        }
    )
    found = lexical.neighbours(listings["listing_id"], listings, VOCABULARY, Blocking(), threads=1)["lexical"]
    assert found.select("query_id", "listing_id").rows() == [("a", "b"), ("b", "a")]


def test_it_can_be_left_out() -> None:
    listings = pl.DataFrame({"listing_id": ["a", "b"], "title": ["x y z", "x y z"]})
    assert lexical.neighbours(listings["listing_id"], listings, VOCABULARY, Blocking(lexical_neighbours=0)) == {}
