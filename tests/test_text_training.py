"""What trains the title encoders, small: vocabulary, batches, losses, resuming, export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie.embedding.characters import LETTERS, SYMBOLS, spell

torch = pytest.importorskip("torch")

from sosie.training.losses import ArcFace, supervised_contrastive  # noqa: E402
from sosie.training.profile import Metric  # noqa: E402
from sosie.training.schedule import shuffled, warm_then_cosine  # noqa: E402
from sosie.training.text import base, graph, spelling, vocabulary  # noqa: E402
from sosie.training.text.batches import Sampler  # noqa: E402
from sosie.training.text.metric import learn  # noqa: E402
from sosie.training.text.model import CharacterCnn, Encoded, TitleEncoder, encode  # noqa: E402
from sosie.training.text.titles import Titles  # noqa: E402

WORDS = ("gamis", "syari", "bludru", "iphone", "silver", "64gb", "tas", "wanita", "kulit", "botol")
KNOBS = Metric(
    loss="contrastive", epochs=3, batch=12, rate=1e-3, head_rate=3e-3, rows_per_group=3, hard_share=0.5,
    temperature=0.1, margin=0.3, scale=16, warmup=0.1, hidden=0.15,
)  # fmt: skip


def titles(groups: int = 12) -> Titles:
    """Two corpora; the titles of a group share three words."""
    random = np.random.default_rng(3)
    texts, numbers, corpora = [], [], []
    for group in range(groups):
        shared = random.choice(WORDS, 3, replace=False)
        for _ in range(1 + group % 4):
            texts.append(" ".join(random.permutation([*shared, random.choice(WORDS)])))
            numbers.append(group)
            corpora.append("one" if group % 2 else "two")
    return Titles(texts, np.array(numbers), corpora)


def small_model(seed: int = 0, *, characters: bool = False) -> TitleEncoder:
    base.declare_missing_ops()
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False)
    return TitleEncoder(bert, 2, CharacterCnn(32, SYMBOLS) if characters else None)


def tokens(texts: list[str]) -> Encoded:
    return Encoded([np.array([1, *(3 + WORDS.index(word) for word in text.split()), 2]) for text in texts])


# ── Vocabulary ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, Any, list[list[int]]]:
    _, old = base.load(base.PACKAGED)
    new, parts = vocabulary.fit(old, ["gamis syari bludru terbaru"] * 5 + ["kulkas"], new_words=10, min_count=3)
    return old, new, parts


def test_frequent_words_become_one_token_each(fitted: tuple[Any, Any, list[list[int]]]) -> None:
    old, new, parts = fitted
    assert new.encode("Gamis SYARI").tokens == ["[CLS]", "gamis", "syari", "[SEP]"]
    assert len(old.encode("gamis syari").tokens) > 4
    assert "kulkas" not in new.get_vocab()  # seen too rarely
    assert len(parts) == new.get_vocab_size() < old.get_vocab_size()
    table = np.random.default_rng(0).normal(size=(old.get_vocab_size(), 4)).astype(np.float32)
    moved = vocabulary.transferred(table, parts)
    pieces = old.encode("gamis", add_special_tokens=False).ids
    np.testing.assert_allclose(moved[new.token_to_id("gamis")], table[pieces].mean(0), atol=1e-6)
    np.testing.assert_array_equal(moved[new.token_to_id("the")], table[old.token_to_id("the")])
    assert [new.token_to_id(name) for name in vocabulary.SPECIAL] == list(range(5))


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz 0123456789-/.", min_size=1, max_size=30))
def test_any_latin_title_can_still_be_spelt(fitted: tuple[Any, Any, list[list[int]]], title: str) -> None:
    assert "[UNK]" not in fitted[1].encode(title).tokens


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(2, 12))
def test_spelling_fits_its_frame(title: str, most: int) -> None:
    found = spell(title, most)
    assert found.shape[1] == LETTERS
    assert 2 <= len(found) <= most
    assert 0 <= found.min() <= found.max() < SYMBOLS
    assert (found[:, 0] > 0).all()


def test_case_and_accents_are_not_spelt() -> None:
    np.testing.assert_array_equal(spell("CAFÉ Crème", 8), spell("cafe creme", 8))
    assert not np.array_equal(spell("mq8n2b", 8), spell("mq8n2c", 8))


# ── Batches, losses, schedule ────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_each_group_comes_once_and_corpora_stay_apart(seed: int, hard_share: float) -> None:
    made = titles(30)
    vectors = np.random.default_rng(seed).normal(size=(len(made), 8)).astype(np.float32)
    batches = Sampler(made, vectors, 3, hard_share).epoch(12, np.random.default_rng(seed))
    for rows in batches:
        assert len({made.corpora[row] for row in rows}) == 1
    rows = np.concatenate(batches)
    assert len(rows) == len(set(rows.tolist()))
    sizes = np.bincount(made.groups)
    drawn = np.bincount(made.groups[rows], minlength=len(sizes))
    assert (drawn[sizes > 1] == np.minimum(sizes[sizes > 1], 3)).all()


def test_contrast_pulls_partners_together() -> None:
    apart = torch.nn.functional.normalize(torch.eye(4, 8), dim=1)
    groups = torch.tensor([0, 0, 1, 1])
    together = torch.nn.functional.normalize(torch.eye(2, 8).repeat_interleave(2, 0), dim=1)
    assert supervised_contrastive(together, groups, 0.1) < 1e-3 < supervised_contrastive(apart, groups, 0.1)
    assert supervised_contrastive(apart, torch.arange(4), 0.1) == 0  # nobody has a partner


def test_a_margin_makes_the_right_answer_harder() -> None:
    arcface = ArcFace(torch.eye(3, 8), scale=16)
    vectors = torch.nn.functional.normalize(torch.eye(3, 8) + 0.3, dim=1)
    losses = [arcface(vectors, torch.arange(3), margin).item() for margin in (0.0, 0.2, 0.4)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    plain = torch.nn.functional.cross_entropy(16 * vectors @ torch.eye(3, 8).T, torch.arange(3))
    assert losses[0] == pytest.approx(plain.item(), abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 50), st.floats(0, 3))
def test_every_epoch_sees_every_row(rows: int, epochs: float) -> None:
    order = shuffled(rows, epochs, 1)
    assert len(order) == round(epochs * rows)
    whole = len(order) // rows
    assert all(sorted(order[e * rows : (e + 1) * rows].tolist()) == list(range(rows)) for e in range(whole))


def test_rates_rise_then_fall() -> None:
    assert [warm_then_cosine(at, 0.1) for at in (0, 0.05, 0.1, 1)] == pytest.approx([0, 0.5, 1, 0])


# ── Learning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def start(made: Titles) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(len(made), 128)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("loss", ["contrastive", "arcface"])
def test_what_was_interrupted_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Any
) -> None:
    from sosie.training.text import metric

    monkeypatch.setattr(metric, "_SAVE_EVERY", 1)
    made, knobs = titles(), KNOBS.model_copy(update={"loss": loss})
    for name in ("straight", "halted"):
        (tmp_path / name).mkdir()
    straight = small_model()
    history = learn(straight, tokens(made.texts), made, start(made), knobs, 5, tmp_path / "straight")
    assert loss == "arcface" or history[-1]["loss"] < history[0]["loss"]  # a growing margin makes it harder

    class Halted(Exception):
        pass

    saved = 0
    save = metric.Checkpoint.save

    def halt(self: Any, **more: Any) -> None:
        nonlocal saved
        save(self, **more)
        saved += 1
        if saved == 4:
            raise Halted

    monkeypatch.setattr(metric.Checkpoint, "save", halt)
    with pytest.raises(Halted):
        learn(small_model(), tokens(made.texts), made, start(made), knobs, 5, tmp_path / "halted")
    resumed = small_model(seed=99)
    learn(resumed, tokens(made.texts), made, start(made), knobs, 5, tmp_path / "halted")
    for (name, one), other in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_letters_come_to_mean_what_the_word_pieces_meant() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    pieces = {name: place for place, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    table = torch.nn.Embedding(len(pieces), 32)
    with torch.no_grad():
        table.weight.mul_(0.04)  # as small as BERT's
    words = spelling.taught_words(titles().texts, Tokenizer(WordPiece(pieces, unk_token="[UNK]")), table)
    assert len(words.letters) == len(words.embeddings) == len({w for t in titles().texts for w in t.split()}) + 2
    torch.manual_seed(0)
    characters = CharacterCnn(32, SYMBOLS, float(table.weight.detach().std()))
    assert spelling.learn(characters, words, epochs=150, seed=1) < 0.2
    spelt = characters(torch.from_numpy(spell("iphone", 3)).unsqueeze(0)).squeeze(0)
    wanted = table.weight[[pieces["[CLS]"], pieces["iphone"], pieces["[SEP]"]]]
    assert torch.nn.functional.cosine_similarity(spelt, wanted, dim=1).min() > 0.9


def test_half_precision_trains_too_and_gives_vectors_of_unit_length(tmp_path: Path) -> None:
    made, model = titles(), small_model()
    knobs = KNOBS.model_copy(update={"bfloat16": True})
    history = learn(model, tokens(made.texts), made, start(made), knobs, 5, tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    held = torch.load(tmp_path / "last.pt", weights_only=True)["vectors"]
    assert held.dtype == torch.float32
    torch.testing.assert_close(held.norm(dim=1), torch.ones(len(made)), atol=1e-5, rtol=0)


def test_an_epoch_cut_short_is_told_of_too(tmp_path: Path) -> None:
    made = titles()
    history = learn(
        small_model(), tokens(made.texts), made, start(made), KNOBS.model_copy(update={"epochs": 0.5}), 5, tmp_path
    )
    assert [round(entry["epoch"], 1) for entry in history] == [0.5]


def test_an_encoder_that_does_worse_than_untrained_features_is_told_of(tmp_path: Path) -> None:
    from sosie.training.reduction import Features, reduce_to_128

    made = titles(60)
    codes = np.unique(made.groups, return_inverse=True)[1].astype(np.int64)
    random = np.tile(start(made), 2) / 2**0.5
    right = np.eye(256, dtype=np.float32)[codes]
    for untrained, seen, learned in ((random, right, True), (right, random, False)):
        features = Features(seen, seen, made.groups, untrained)
        told = reduce_to_128(tmp_path / "some.npz", features, np.eye(128, 256, dtype=np.float32))
        assert told["learned"] is learned


def test_a_graph_that_lost_too_much_is_not_exported() -> None:
    from sosie.errors import ModelError
    from sosie.training.quantise import held_to_parity

    assert held_to_parity("bert", {"cosine_mean": 0.998})
    with pytest.raises(ModelError, match=r"mean cosine of 0\.97"):
        held_to_parity("bert", {"cosine_mean": 0.97})


def test_a_title_has_one_vector_whatever_is_beside_it() -> None:
    model, texts = small_model().eval(), titles().texts
    encoded = tokens(texts)
    with torch.inference_mode():
        _, whole = encode(model, encoded, np.arange(len(texts)))
        _, turned = encode(model, encoded, np.arange(len(texts))[::-1].copy(), piece=2)
    torch.testing.assert_close(whole, turned.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("characters", [False, True])
def test_the_served_graph_gives_what_was_trained(tmp_path: Path, characters: bool) -> None:
    from sosie.embedding.text import run_sorted, session_of

    model = small_model(characters=characters).eval()
    texts = titles().texts
    encoded = Encoded([spell(text, 12) for text in texts]) if characters else tokens(texts)
    graph.export_pooled(model, tmp_path / "pooled.onnx")
    head = model.head.weight.detach().numpy()
    graph.attach_head(tmp_path / "pooled.onnx", head, tmp_path / "whole.onnx")
    served = run_sorted(session_of(tmp_path / "whole.onnx", 1), encoded.tokens, 4, 128)
    with torch.inference_mode():
        _, trained = encode(model, encoded, np.arange(len(texts)))
    np.testing.assert_allclose(served, trained.numpy(), atol=1e-5)
