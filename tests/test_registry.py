"""Trained models: registered with their figures, held back or let through by the gate, served, and rolled back."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import structlog
from typer.testing import CliRunner

from sosie import fence, pipeline, registry, tables
from sosie import settings as settings_module
from sosie.artifacts import CARD, save
from sosie.cli import EXIT_TERMINAL, app
from sosie.errors import IndexUnavailable, ModelError, SettingsError, TerminalError
from sosie.gate import JUDGED, Gain, Gate, Scores
from sosie.index import open_index, server
from sosie.lake import Lake
from sosie.registry import Source
from sosie.settings import PROJECT, Settings, load
from sosie.simulate import Marketplace, write

SHIPPED = PROJECT / "models"
SOURCE = Source("small", "0123456789ab", None)
WORSE: Scores = {"shopee": {"row_f1": 0.70, "row_f1_standard_error": 0.01}}
BETTER: Scores = {"shopee": {"row_f1": 0.75, "row_f1_standard_error": 0.01}}


def trained(folder: Path, name: str, **usage: object) -> Path:
    """Models like the shipped ones, but that one is used otherwise, and so is of another version."""
    shutil.copytree(SHIPPED, folder)
    card = json.loads((folder / name / CARD).read_text())
    save(folder / name, card["kind"], list(card["files"]), card["usage"] | usage, card["about"])
    return folder


def register(settings: Settings, models: Path, new: Scores = BETTER, live: Scores = WORSE) -> str:
    return registry.register(settings, models, SOURCE, new, live, "ann").id


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home")


@pytest.fixture
def index_up(home: Settings) -> Iterator[None]:
    """The index's server stays up from one use to the next."""
    with server.serve(home):
        yield


@pytest.fixture
def decider(tmp_path: Path) -> Path:
    return trained(tmp_path / "trained", "decider", match_at=0.5)


@pytest.mark.parametrize(
    ("new", "live", "passed", "said"),
    [
        ({"a": (0.80, 0.01)}, {"a": (0.78, 0.01)}, True, "a: 0.7800 → 0.8000 ± 0.0100, better."),
        ({"a": (0.78, 0.01)}, {"a": (0.78, 0.01)}, False, "Better on none."),
        ({"a": (0.80, 0.01), "b": (0.49, 0.02)}, {"a": (0.78, 0.01), "b": (0.50, 0.02)}, True, "b: .* as good."),
        ({"a": (0.80, 0.01), "b": (0.47, 0.02)}, {"a": (0.78, 0.01), "b": (0.50, 0.02)}, False, "b: .* worse."),
        ({"a": (0.80, 0.01)}, {"a": (0.78, 0.01), "b": (0.50, 0.02)}, False, "b was not measured."),
        ({"a": (0.79, None)}, {"a": (0.80, None)}, False, "a: .* worse."),
        ({"a": (0.80, 0.01), "pairs": (None, None)}, {"a": (0.78, 0.01), "pairs": (None, None)}, True, "a: .* better."),
    ],
)
def test_the_gate(new: dict, live: dict, passed: bool, said: str) -> None:
    def scores(of: dict) -> Scores:
        return {name: {"row_f1": f1, "row_f1_standard_error": error} for name, (f1, error) in of.items()}

    verdict = Gate().judge(scores(new), scores(live))
    assert verdict.passed is passed
    with pytest.raises(TerminalError, match=said):
        raise TerminalError(" ".join(verdict.reasons))


def pairs_of(**f1: float) -> Scores:
    return {name: {"f1": value, "f1_standard_error": 0.01} for name, value in f1.items()}


@pytest.mark.parametrize(
    ("new", "live", "passed", "said"),
    [
        (pairs_of(abt=0.84), pairs_of(abt=0.80), True, "abt: 0.8000 → 0.8400 ± 0.0100, better."),
        (pairs_of(abt=0.70), pairs_of(abt=0.80), False, "abt: 0.8000 → 0.7000 ± 0.0100, worse."),
        (pairs_of(), pairs_of(abt=0.80), True, "shopee: .* better.$"),
        (pairs_of(abt=0.80), pairs_of(), True, "shopee: .* better.$"),
    ],
)
def test_the_gate_compares_labelled_pairs_that_both_sides_measured(
    new: Scores, live: Scores, passed: bool, said: str
) -> None:
    verdict = Gate().judge({**BETTER, **new}, {**WORSE, **live})
    assert verdict.passed is passed
    with pytest.raises(TerminalError, match=said):
        raise TerminalError(" ".join(verdict.reasons))


def test_the_gate_tells_what_judgements_did_and_refuses_harm() -> None:
    def figures(row: float, macro: float, judged: float) -> Scores:
        own = {"row_f1": row, "row_f1_standard_error": 0.01, "macro_f1": macro}
        return {"shopee": own, **pairs_of(**{JUDGED: judged})}

    helped = Gain(1_498, 642, figures(0.75, 0.951, 0.71), figures(0.752, 0.952, 0.83))
    verdict = Gate().judge(BETTER, WORSE, helped)
    assert verdict.passed
    assert verdict.reasons[-1] == (
        "2,140 judgements, 1,498 of them learnt from: F1 on the 642 held back 0.7100 → 0.8300 ± 0.0100, better; "
        "catalogues' mean macro-F1 0.9510 → 0.9520."
    )
    for having, named in ((figures(0.70, 0.95, 0.83), "shopee"), (figures(0.75, 0.95, 0.60), JUDGED)):
        refused = Gate().judge(BETTER, WORSE, Gain(10, 5, helped.without, having))
        assert not refused.passed
        assert refused.reasons[-1].endswith(f"; worse than without them on {named}.")
        assert Gate(errors=20).judge(BETTER, WORSE, Gain(10, 5, helped.without, having)).passed


def test_a_card_keeps_what_judgements_did(home: Settings, decider: Path) -> None:
    gain = Gain(3, 1, pairs_of(judgements=0.5), pairs_of(judgements=0.6))
    made = registry.register(home, decider, SOURCE, BETTER, WORSE, "ann", gain)
    assert registry.find(home, made.id) == made
    card = registry.folder(home, made.id) / "card.json"
    old = {name: value for name, value in json.loads(card.read_text()).items() if name != "gain"}
    card.write_text(json.dumps(old))
    assert registry.find(home, made.id).gain is None, "a card of before judgements were learnt from"


@pytest.mark.parametrize("damage", [b"{", b"", b"[]", b'{"id": null}', b'{"id": "a", "moves": [1]}', b"\xff\xfe"])
def test_a_damaged_pointer_is_one_clear_sentence(home: Settings, damage: bytes) -> None:
    pointer = home.home / "registry" / "live.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(damage)
    for ask in (lambda: load(home=home.home), lambda: registry.live_id(home), lambda: registry.committed(home)):
        with pytest.raises(ModelError, match=r"live\.json is damaged, so nobody knows .* Restore it from a backup, or"):
            ask()
    pointer.unlink()
    assert registry.live_id(home) is None


def test_a_candidate_tells_where_it_came_from_and_how_it_measured(home: Settings, decider: Path) -> None:
    id_ = register(home, decider)
    (found,) = registry.candidates(home)
    assert found == registry.find(home, id_)
    assert found.versions == registry.versions_of(decider) == registry.versions_of(registry.folder(home, id_))
    assert (found.source, found.who, found.scores, found.live_scores) == (SOURCE, "ann", BETTER, WORSE)
    assert found.live == registry.id_of(registry.versions_of(SHIPPED))
    assert registry.state(home, found) == "candidate"


def test_the_same_models_keep_their_id_and_get_a_new_card(home: Settings, decider: Path) -> None:
    first = register(home, decider)
    assert register(home, decider, new=WORSE, live=BETTER) == first
    (found,) = registry.candidates(home)
    assert registry.state(home, found) == "rejected"


def test_what_is_half_copied_is_not_there(home: Settings, decider: Path) -> None:
    (decider / "image" / CARD).unlink()
    with pytest.raises(ModelError, match="No model in"):
        register(home, decider)
    half = home.home / "registry" / ".1f"
    shutil.copytree(SHIPPED / "text", half / "text")
    assert registry.candidates(home) == []
    with pytest.raises(TerminalError, match=r"No candidate 'abcd' in .*registry. There are: none."):
        registry.find(home, "abcd")


def test_another_decider_is_served_at_once_and_rolled_back(home: Settings, decider: Path) -> None:
    id_ = register(home, decider)
    assert load(home=home.home).models == SHIPPED
    assert registry.promote(home, id_, "ann") == {}
    promoted = load(home=home.home)
    assert promoted.models == registry.folder(home, id_)
    assert registry.state(promoted, registry.find(promoted, id_)) == "live"
    assert register(promoted, decider, new=WORSE) == id_, "registered again, the live one keeps its card"
    assert registry.find(promoted, id_).scores == BETTER

    assert registry.rollback(promoted, "bob") == {}
    assert load(home=home.home).models == SHIPPED
    assert registry.state(home, registry.find(home, id_)) == "retired"
    moves = json.loads((home.home / "registry" / "live.json").read_text())["moves"]
    assert [(move["to"], move["how"], move["who"]) for move in moves] == [
        (id_, "promote", "ann"),
        (None, "rollback", "bob"),
    ]
    with pytest.raises(TerminalError, match="nothing to roll back to"):
        registry.rollback(load(home=home.home), "bob")


def test_rolling_back_goes_back_step_by_step(home: Settings, tmp_path: Path) -> None:
    ids = [register(home, trained(tmp_path / str(at), "decider", match_at=at)) for at in (0.5, 0.6)]
    for id_ in ids:
        registry.promote(load(home=home.home), id_, "ann")
    seen = []
    for _ in ids:
        registry.rollback(load(home=home.home), "ann")
        seen.append(registry.live_id(home))
    assert seen == [ids[0], None]


def test_pinned_models_are_not_promoted_over(home: Settings, decider: Path) -> None:
    id_ = register(home, decider)
    with pytest.raises(SettingsError, match="unset SOSIE_MODELS"):
        registry.promote(load(home=home.home, models=decider), id_, "ann")
    with pytest.raises(SettingsError, match=r"set to decider-mlp, which a candidate does not hold"):
        registry.promote(load(home=home.home, decider={"model": "decider-mlp"}), id_, "ann")


def test_models_that_were_live_once_may_be_pinned(home: Settings, decider: Path) -> None:
    registry.promote(home, register(home, decider), "ann")
    pinned = load(home=home.home, models=PROJECT / "models")
    with fence.sharing(pinned):  # a step: whatever is promoted, these models are the ones that were asked for
        assert pinned.models_pinned
    with pytest.raises(SettingsError, match="unset SOSIE_MODELS"):
        registry.rollback(pinned, "ann")


@pytest.fixture
def shell(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """`sosie …` over this home: exit code and output."""
    monkeypatch.setenv("SOSIE_HOME", str(home.home))
    monkeypatch.setenv("COLUMNS", "200")

    def sosie(*arguments: str) -> tuple[int, str]:
        settings_module.settings.cache_clear()
        told = CliRunner().invoke(app, list(arguments))
        return told.exit_code, " ".join(told.output.split())

    yield sosie
    settings_module.settings.cache_clear()
    structlog.reset_defaults()  # the command logs to the runner's stderr, which is closed by now


def test_the_shell_says_which_models_are_pinned(
    decider: Path, shell: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "SOSIE_MODELS" not in shell("models")[1]
    monkeypatch.setenv("SOSIE_MODELS", str(decider))
    assert f"SOSIE_MODELS names {decider}: whoever has it set uses those." in shell("models")[1]


def test_the_shell_lists_refuses_promotes_and_rolls_back(
    home: Settings, decider: Path, shell: Callable[..., tuple[int, str]]
) -> None:
    id_ = register(home, decider, new=WORSE, live=BETTER)
    code, told = shell("models")
    assert (code, "rejected" in told, "0.7500 → 0.7000 ± 0.0100, worse." in told) == (0, True, True)
    code, told = shell("promote", id_)
    assert (code, "did not pass the gate" in told) == (EXIT_TERMINAL, True)
    code, told = shell("promote", id_, "--despite-gate")
    assert (code, f"{id_} is live" in told, "No pair was decided again" in told) == (0, True, True)
    assert "live" in shell("models")[1]
    assert "came with the repository is live" in shell("rollback")[1]

    assert shell("promote", id_, "--despite-gate")[0] == 0
    listed = {"listing_id": "a", "content_hash": "a", "first_seen_run": "2026-01-05T00", "is_deleted": False}
    frame = pl.DataFrame([listed | {"updated_at": datetime.now(UTC)}], schema=tables.LISTINGS.schema)
    Lake(home.lake_uri).upsert(tables.LISTINGS, frame)
    assert "No pair was decided again" in shell("promote", id_, "--despite-gate")[1], "it is live already"


# --- other embeddings, over a real lake and index --------------------------------------------------------------------


@pytest.mark.usefixtures("index_up")
def test_other_embeddings_take_their_index_with_them(home: Settings, tmp_path: Path) -> None:
    market = tmp_path / "market"
    write(market, Marketplace(listings=40, hours=2, seed=4, with_pictures=False))
    hours = sorted(folder.name for folder in (market / "landing").glob("*T*"))

    def run(hour: str) -> pipeline.Run:
        return pipeline.Run.of(hour, settings=load(home=home.home, landing=market / "landing"))

    def served() -> str | None:
        with open_index(home) as index:
            return index.version("text")

    pipeline.run_all(run(hours[0]))
    id_ = register(home, trained(tmp_path / "trained", "text", max_tokens=12))
    old, new = (registry.versions_of(models)["text"] for models in (SHIPPED, registry.folder(home, id_)))
    assert served() == old

    away = home.model_copy(update={"milvus_uri": "http://127.0.0.1:9", "milvus_timeout_seconds": 1.0})
    with pytest.raises(IndexUnavailable):
        registry.promote(away, id_, "ann")
    assert (registry.live_id(home), served()) == (None, old)

    second = run(hours[1])
    pipeline.run_all(second)
    counts = registry.promote(home, id_, "ann")
    assert (registry.live_id(home), served()) == (id_, new)
    assert counts["text_held"] == Lake(home.lake_uri).read(tables.LISTINGS, ~pl.col("is_deleted")).height
    again = run(hours[1])
    assert again.settings.models == registry.folder(home, id_)
    pipeline.run_all(again)

    registry.rollback(again.settings, "ann")
    assert (registry.live_id(home), served()) == (None, old)
