"""What trains the title encoder without a transformer, small: rarity, metric learning, the graph that is served."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.embedding.text import run_sorted, session_of
from sosie.tables import DIM

torch = pytest.importorskip("torch")

from sosie.training.light.text import StaticEncoder, graph, learn, rarity, vectors  # noqa: E402
from sosie.training.profile import Light  # noqa: E402
from sosie.training.text.model import Encoded  # noqa: E402
from sosie.training.text.titles import Titles  # noqa: E402

PIECES, START = 60, 1
KNOBS = Light(
    epochs=4, crossed_epochs=4, batch=12, rate=2e-2, rows_per_group=3, hard_share=0.5, temperature=0.1, warmup=0.1
)
bags = st.lists(st.lists(st.integers(0, PIECES - 1), min_size=1, max_size=12), min_size=1, max_size=9)


def titles(groups: int = 20) -> tuple[Titles, Encoded]:
    """Titles of a group share two pieces and have others of their own."""
    random = np.random.default_rng(3)
    rows, numbers = [], []
    for group in range(groups):
        for _ in range(2 + group % 3):
            rows.append(np.array([START, 2 + group, 2 + groups + group, *random.integers(2, PIECES, 4)]))
            numbers.append(group)
    texts = [str(number) for number in range(len(rows))]
    return Titles(texts, np.array(numbers), ["one"] * len(rows)), Encoded(rows)


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(PIECES, DIM)).astype(np.float32) * 0.1


def lead(encoder: StaticEncoder, known: Titles, encoded: Encoded) -> float:
    """How much nearer titles of one group lie than others do, by the mean cosine."""
    found = vectors(encoder, encoded)
    cosines, same = found @ found.T, known.groups[:, None] == known.groups
    apart = ~np.eye(len(found), dtype=bool)
    return float(cosines[same & apart].mean() - cosines[~same].mean())


def test_titles_of_a_group_come_to_lie_together() -> None:
    known, encoded = titles()
    encoder = StaticEncoder(table())
    before = lead(encoder, known, encoded)
    history = learn(encoder, encoded, known, KNOBS, seed=7)
    assert len(history) == KNOBS.epochs
    assert history[-1] < history[0]
    assert lead(encoder, known, encoded) > before + 0.2


def test_training_gives_the_same_table_again() -> None:
    known, encoded = titles()
    tables = []
    for _ in range(2):
        encoder = StaticEncoder(table())
        learn(encoder, encoded, known, KNOBS, seed=7)
        tables.append(encoder.table.detach().numpy())
    np.testing.assert_array_equal(*tables)


def test_what_all_titles_have_says_nothing_and_what_none_has_most() -> None:
    encoded = Encoded([np.array([START, 2, 2]), np.array([START, 3])])
    weights = rarity(encoded, 5)
    assert weights[START] == 0
    assert 0 < weights[2] == weights[3] < weights[4]


@settings(deadline=None, max_examples=40)
@given(bags, st.integers(1, 4))
def test_the_served_graph_gives_what_was_trained_in_any_batch(served: Any, rows: list[list[int]], batch: int) -> None:
    tokens = [np.array(row) for row in rows]
    found = run_sorted(served, tokens, batch, DIM, 1)
    alone = np.concatenate([run_sorted(served, [row], 1, DIM, 1) for row in tokens])
    np.testing.assert_array_equal(found, alone)
    assert (found * vectors(StaticEncoder(table()), Encoded(tokens))).sum(axis=1).min() > 0.99


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("static") / "encoder.onnx"
    onnx.save(graph(table()), file)
    return session_of(file)
