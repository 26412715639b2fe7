"""Vectors blended with their nearest."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sosie.evaluate import blending, knn


@given(
    hnp.arrays(np.int8, st.tuples(st.integers(0, 12), st.just(4)), elements=st.integers(-9, 9)),
    st.sampled_from(blending.POWERS),
)
def test_each_takes_its_nearest_in_and_stays_of_unit_length(drawn: np.ndarray, power: int) -> None:
    drawn = drawn.astype(np.float32) + np.float32(0.25)  # none is of length 0
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    mixed = blending.blended(vectors, power)
    assert mixed.shape == vectors.shape
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    if len(vectors) > 1:
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -np.inf)
        for row, nearest in enumerate(similar.max(axis=1)):
            others = np.flatnonzero(similar[row] > nearest - 1e-6)  # any of those that are as near
            sums = vectors[row] + max(nearest, 0) ** power * vectors[others]
            wanted = sums / np.linalg.norm(sums, axis=1, keepdims=True)
            assert np.abs(wanted - mixed[row]).max(axis=1).min() < 1e-4


def test_two_that_are_nearest_to_each_other_overtake_two_that_are_not() -> None:
    """Cosines 0.6 and 0.7: the second is as a listing with a nearer friend elsewhere sees a stranger."""
    vectors = np.zeros((5, 4), np.float32)
    vectors[0, 0] = 1
    vectors[1, :2] = 0.6, 0.8
    vectors[2, 2] = 1
    vectors[3, 2:] = 0.7, 0.51**0.5
    vectors[4, 2:] = 0.75, 0.4375**0.5
    before, mixed = vectors @ vectors.T, blending.blended(vectors, 2)
    after = mixed @ mixed.T
    assert before[2, 3] > before[0, 1]
    assert after[0, 1] > before[0, 1] + 0.1
    assert after[0, 1] > after[2, 3]


def test_the_power_is_fitted_where_the_threshold_is() -> None:
    groups = np.array([0, 0, 1, 1])
    rows = np.array([True, True, False, False])
    by_power = {
        2: knn.Links(np.array([[0, 2]]), np.array([0.9], np.float32)),
        4: knn.Links(np.array([[0, 1], [0, 2]]), np.array([0.8, 0.5], np.float32)),
        8: knn.Links(np.array([[0, 1], [0, 2]]), np.array([0.4, 0.6], np.float32)),
    }
    power, threshold, links = blending.fit(by_power.__getitem__, groups, rows=rows)
    assert (power, round(threshold, 6)) == (4, 0.8)
    assert links is by_power[4]
