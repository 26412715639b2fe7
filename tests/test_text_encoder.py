"""The text encoders on their real weights: the one that is served by default, and the one without a transformer."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.embedding.text import GRAPH, TextEncoder
from sosie.errors import ModelError

MODELS = Path(__file__).resolve().parents[1] / "models"
MODEL, LIGHT = MODELS / "text", MODELS / "light" / "text"

TITLES = [
    "Apple iPhone 8 Plus 64GB Silver",
    "iphone 8 plus 64 gb silver apple",
    "Maling TTS Canned Pork Luncheon Meat 397 gr",
    "Double Tape 3M VHB 12 mm x 4,5 m ORIGINAL / DOUBLE FOAM TAPE",
    "🔥 PROMO 🔥 Paper Bag Victoria Secret",
    "Nike Men Blue T20 Indian Cricket Jersey",
    "x",
    "tas wanita " * 80,
]


@pytest.fixture(scope="module", params=[MODEL, LIGHT], ids=["bert", "static"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    return TextEncoder.load(request.param, threads=1)


def test_vectors_are_unit_length_and_128_wide(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TITLES, 3)
    assert vectors.shape == (len(TITLES), 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_same_product_is_nearest(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TITLES, 8)
    similar = vectors @ vectors[0]
    assert similar[1] > 0.8
    assert similar[1] > similar[2:].max() + 0.3


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(len(TITLES))), st.integers(1, 9))
def test_a_title_has_one_vector_whatever_its_batch(encoder: TextEncoder, order: list[int], batch_size: int) -> None:
    alone = np.concatenate([encoder.encode([title], 1) for title in TITLES])
    together = encoder.encode([TITLES[place] for place in order], batch_size)
    assert (together * alone[order]).sum(axis=1).min() > 0.9999


def test_repeated_titles_get_equal_vectors(encoder: TextEncoder) -> None:
    vectors = encoder.encode([TITLES[0], TITLES[2], TITLES[0]], 2)
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_nothing_in_nothing_out(encoder: TextEncoder) -> None:
    assert encoder.encode([], 32).shape == (0, 128)


def test_any_text_can_be_encoded(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["", " ", "\u0000", "日本語のタイトル", "e\u0301" * 300], 2)
    assert np.isfinite(vectors).all()


def test_tokens_beyond_the_limit_say_nothing(encoder: TextEncoder) -> None:
    long = "tas " * 100
    np.testing.assert_array_equal(encoder.encode([long], 1), encoder.encode([long + "wanita merah"], 1))


GOLDEN = {
    # First numbers of the vector under one version: a change here is a change of what every index holds.
    MODEL: {
        "Apple iPhone 8 Plus 64GB Silver": (-0.0817, 0.0352, -0.0410, 0.1973),
        "Paper Bag Victoria Secret": (-0.3492, 0.0504, 0.1312, 0.0010),
    },
    LIGHT: {
        "Apple iPhone 8 Plus 64GB Silver": (0.0893, 0.0404, 0.0638, 0.0361),
        "Paper Bag Victoria Secret": (0.0856, -0.0590, 0.0207, -0.0207),
    },
}


def test_golden_vectors(encoder: TextEncoder) -> None:
    for title, start in GOLDEN[encoder.artifact.folder].items():
        np.testing.assert_allclose(encoder.encode([title], 1)[0, :4], start, atol=2e-3)


def test_a_sum_of_whole_numbers_is_the_same_in_any_batch() -> None:
    light = TextEncoder.load(LIGHT, threads=1)
    alone = np.concatenate([light.encode([title], 1) for title in TITLES])
    np.testing.assert_array_equal(light.encode(TITLES, len(TITLES)), alone)


def test_version_is_of_the_files(encoder: TextEncoder, tmp_path: Path) -> None:
    assert len(encoder.version) == 12
    copy = Path(copytree(encoder.artifact.folder, tmp_path / "copy"))
    assert TextEncoder.load(copy, threads=1).version == encoder.version


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = Path(copytree(MODEL, tmp_path / "damaged"))
    with (folder / GRAPH).open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"\0" * 64)
    with pytest.raises(ModelError, match=GRAPH):
        TextEncoder.load(folder)


def test_quantised_products_stay_close_and_apart_from_their_batch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from sosie.embedding.text import session_of
    from sosie.training.quantise import quantise

    random = np.random.default_rng(5)
    weight = random.normal(size=(64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "tokens", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "tokens", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "full.onnx")
    quantise(tmp_path / "full.onnx", tmp_path / "small.onnx")
    session = session_of(tmp_path / "small.onnx", 1)
    x = random.normal(size=(2, 5, 64)).astype(np.float32)
    x[1] *= 1_000  # a loud neighbour in the batch
    got = session.run(None, {"x": x})[0]
    want = x @ weight
    assert np.abs(got[0] - want[0]).max() < 0.03 * np.abs(want[0]).max()
    np.testing.assert_array_equal(session.run(None, {"x": x[:1]})[0][0], got[0])
