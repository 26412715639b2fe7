"""The metrics against a brute-force oracle that works on sets."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from sosie.evaluate import knn, metrics

unhurried = settings(deadline=None)  # a first call pays for imports
labels = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@st.composite
def linked(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    groups = draw(labels)
    every = list(combinations(range(len(groups)), 2))
    pairs = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    return groups, pairs


def sets_of_pairs(n: int, pairs: list[tuple[int, int]]) -> list[set[int]]:
    found = [{row} for row in range(n)]
    for left, right in pairs:
        found[left].add(right)
        found[right].add(left)
    return found


def sets_of_labels(of: list[int]) -> list[set[int]]:
    return [{other for other, label in enumerate(of) if label == mine} for mine in of]


def oracle(found: list[set[int]], true: list[set[int]]) -> dict[str, tuple[float, float, float]]:
    """Every number from its textbook definition."""
    both = list(zip(found, true, strict=True))
    precision = float(np.mean([len(a & b) / len(a) for a, b in both]))
    recall = float(np.mean([len(a & b) / len(b) for a, b in both]))
    row = float(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in both]))
    said = {frozenset((row, other)) for row, others in enumerate(found) for other in others if other != row}
    real = {frozenset((row, other)) for row, others in enumerate(true) for other in others if other != row}
    pairwise = (
        len(said & real) / len(said) if said else 1.0,
        len(said & real) / len(real) if real else 1.0,
        2 * len(said & real) / (len(said) + len(real)) if said or real else 1.0,
    )
    return {
        "row": (precision, recall, row),
        "pairwise": pairwise,
        "bcubed": (precision, recall, 2 * precision * recall / (precision + recall)),
    }


def as_tuples(scores: metrics.Scores) -> dict[str, tuple[float, float, float]]:
    return {name: (s["precision"], s["recall"], s["f1"]) for name, s in scores.to_dict().items()}


def as_pairs(pairs: list[tuple[int, int]]) -> metrics.Ints:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@unhurried
@given(linked())
def test_pairs_score_as_their_sets_do(case: tuple[list[int], list[tuple[int, int]]]) -> None:
    groups, pairs = case
    got = metrics.score(metrics.counts_of_pairs(as_pairs(pairs), np.array(groups)))
    want = oracle(sets_of_pairs(len(groups), pairs), sets_of_labels(groups))
    for family, numbers in as_tuples(got).items():
        assert numbers == pytest.approx(want[family])


@unhurried
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=14))
def test_clusters_score_as_their_sets_do(rows: list[tuple[int, int]]) -> None:
    predicted, groups = (list(column) for column in zip(*rows, strict=True))
    got = metrics.score(metrics.counts_of_clusters(np.array(predicted), np.array(groups)))
    want = oracle(sets_of_labels(predicted), sets_of_labels(groups))
    for family, numbers in as_tuples(got).items():
        assert numbers == pytest.approx(want[family])


@unhurried
@given(labels)
def test_the_truth_itself_is_perfect(groups: list[int]) -> None:
    truth = np.array(groups)
    for family in as_tuples(metrics.score(metrics.counts_of_clusters(truth, truth))).values():
        assert family == pytest.approx((1, 1, 1))


@unhurried
@given(linked(), st.data())
def test_scopes_add_up_to_the_whole(case: tuple[list[int], list[tuple[int, int]]], data: st.DataObject) -> None:
    groups, pairs = case
    counts = metrics.counts_of_pairs(as_pairs(pairs), np.array(groups))
    part = np.array(data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups))))
    assert counts.of(part).row_f1.sum() + counts.of(~part).row_f1.sum() == pytest.approx(counts.row_f1.sum())


def test_standard_error_is_that_of_the_mean_where_every_row_is_its_own_group() -> None:
    values = np.random.default_rng(3).random(400)
    want = values.std(ddof=1) / np.sqrt(400)
    assert metrics.standard_error(values, np.arange(400)) == pytest.approx(want)


def test_standard_error_grows_where_rows_of_a_group_agree() -> None:
    values = np.random.default_rng(3).random(100)
    alone = metrics.standard_error(values, np.arange(100))
    assert metrics.standard_error(np.repeat(values, 4), np.repeat(np.arange(100), 4)) == pytest.approx(alone)


@unhurried
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_binary_scores_agree_with_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    predicted, actual = (np.array(column) for column in zip(*rows, strict=True))
    want = f1_score(actual, predicted, zero_division=1.0)
    assert metrics.binary(predicted, actual).f1 == pytest.approx(want)
    macro = f1_score(actual, predicted, average="macro", labels=[False, True], zero_division=1.0)
    assert metrics.macro_f1(predicted, actual) == pytest.approx(macro)


def test_pair_recall_is_the_share_of_true_pairs() -> None:
    groups = metrics.codes(pl.Series(["a", "a", "a", "b"]))
    assert metrics.pair_recall(as_pairs([(0, 1), (0, 3)]), groups) == pytest.approx(1 / 3)


@st.composite
def scored(draw: st.DrawFn) -> tuple[knn.Links, metrics.Ints, np.ndarray, metrics.Ints]:
    groups, pairs = draw(linked())
    scores = draw(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75]), min_size=len(pairs), max_size=len(pairs)))
    rows = np.array(draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups))))
    free = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = knn.Links(as_pairs(pairs), np.array(scores, dtype=np.float32))
    return links, np.array(groups), rows, as_pairs(free)


@unhurried
@given(scored())
def test_no_threshold_is_better_than_the_fitted_one(
    case: tuple[knn.Links, metrics.Ints, np.ndarray, metrics.Ints],
) -> None:
    links, groups, rows, free = case

    def quality(threshold: float) -> float:
        pairs = knn.union(links.above(threshold), free)
        return float(metrics.counts_of_pairs(pairs, groups).row_f1[rows].sum())

    fitted = knn.fit_threshold(links, groups, rows=rows, free=free)
    assert quality(fitted) == pytest.approx(max(quality(t) for t in (0.0, 0.2, 0.4, 0.6, 2.0)))


@unhurried
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 99))
def test_nearest_finds_each_rows_best(n: int, k: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    want = {
        tuple(sorted((row, int(other)))) for row in range(n) for other in np.argsort(-similar[row])[: min(k, n - 1)]
    }
    assert {tuple(pair) for pair in knn.nearest(vectors, k, block=7).pairs.tolist()} == want
