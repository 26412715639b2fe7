"""Near perceptual hashes against brute force."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import phashes
from sosie.settings import Blocking

FLOOR = Blocking().min_phash_similarity
CENTRES = (0x94974F937D4C2433, 0xAF3F9460C2838F0F)
flips = st.sets(st.integers(0, 63), max_size=12)
hashes = st.builds(
    lambda centre, bits, upper: format(centre ^ sum(1 << bit for bit in bits), "016X" if upper else "016x"),
    st.sampled_from(CENTRES), flips, st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.one_of(hashes, st.none(), st.just("no hash")), min_size=1, max_size=14), st.integers(1, 4),
       st.integers(0, 13), st.sampled_from([1 - 1 / 64, 1 - 3 / 64, FLOOR, 1 - 9 / 64]))  # fmt: skip
def test_the_nearest_are_those_that_brute_force_finds(sent: list[str | None], k: int, asked: int, floor: float) -> None:
    ids = [f"id{number:02d}" for number in range(len(sent))]
    asking = pl.Series(ids).head(asked % len(ids) + 1)
    found = phashes.join(asking, pl.DataFrame({"listing_id": ids, "image_phash": sent}), k, floor)
    codes = {one: int(code, 16) for one, code in zip(ids, sent, strict=True) if code not in (None, "no hash")}
    expected = []
    for one in asking:
        near = [
            (one, other, np.float32(1 - bits / 64))
            for other, code in codes.items()
            if one in codes and 0 < (bits := (codes[one] ^ code).bit_count()) <= (1 - floor) * 64 + 1e-6
        ]
        expected += sorted(near, key=lambda row: (-row[2], row[1]))[:k]
    assert found.rows() == [(one, other, float(similarity)) for one, other, similarity in expected]


def test_a_placeholder_that_thousands_share_fills_nobodys_list_beyond_k() -> None:
    same, near = format(CENTRES[0], "016x"), format(CENTRES[0] ^ 3, "016x")
    ids = [f"id{number:04d}" for number in range(3_000)]
    listings = pl.DataFrame({"listing_id": ids, "image_phash": [near, *[same] * 2_999]})
    found = phashes.neighbours(listings["listing_id"], listings, Blocking(phash_neighbours=5))["near_phash"]
    assert found.filter(pl.col("query_id") == "id0000")["listing_id"].to_list() == ids[1:6]
    assert found.filter(pl.col("query_id") != "id0000")["listing_id"].unique().to_list() == ["id0000"]
    assert found.height == 5 + 2_999


def test_it_can_be_left_out() -> None:
    listings = pl.DataFrame({"listing_id": ["a", "b"], "image_phash": ["0" * 16, "0" * 15 + "1"]})
    assert phashes.neighbours(listings["listing_id"], listings, Blocking(phash_neighbours=0)) == {}
    assert phashes.neighbours(listings["listing_id"], listings, Blocking())["near_phash"].height == 2
