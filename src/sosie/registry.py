"""Models that were trained here and may be served: candidates with their cards, and which of them is live.

    <home>/registry/<id>/text, image, decider   a copy of a trained models folder
    <home>/registry/<id>/card.json              where it came from, and how it measured beside the live models
    <home>/registry/live.json                   the one that is served, and every move that led there

Without live.json the models that came with the repository are live. A process reads it once, with its settings, so a
promotion reaches whatever starts after it. All is written beside and renamed: nobody sees half of it.
"""

import hashlib
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sosie.artifacts import Artifact
from sosie.errors import SettingsError, TerminalError
from sosie.gate import Gain, Gate, Scores, Verdict
from sosie.places import write_atomically
from sosie.settings import PROJECT, Settings, live_models, live_pointer

KINDS = {"text": "text-encoder", "image": "image-encoder", "decider": "decider"}
"""Folder of each model → its kind."""

_A_DAY = 86_400.0
"""Seconds."""

State = Literal["candidate", "rejected", "live", "retired"]


@dataclass(frozen=True)
class Source:
    """What the models were trained by: the profile, the digest of dvc.lock, and the commit where there is one."""

    profile: str
    dvc_lock: str
    commit: str | None


@dataclass(frozen=True)
class Candidate:
    """Models in the registry. `scores` are theirs, `live_scores` those of the models that were `live` then, `gain` is
    what judgements did where they learnt from some."""

    id: str
    versions: Mapping[str, str]
    source: Source
    scores: Scores
    live: str
    live_scores: Scores
    gate: Verdict
    who: str
    when: str
    gain: Gain | None = None

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Candidate":
        gate = Verdict(card["gate"]["passed"], tuple(card["gate"]["reasons"]))
        gain = Gain(**card["gain"]) if card.get("gain") else None
        return cls(**{**card, "source": Source(**card["source"]), "gate": gate, "gain": gain})


def versions_of(models: Path) -> dict[str, str]:
    """The version of each model in a folder that holds text/, image/ and decider/. Raises `ModelError`."""
    return {name: Artifact.load(models / name, kind).version for name, kind in KINDS.items()}


def id_of(versions: Mapping[str, str]) -> str:
    """Short and readable: four digits of each model's version."""
    return "-".join(versions[name][:4] for name in KINDS)


def folder(settings: Settings, id_: str) -> Path:
    return _root(settings) / id_


def source_of(repository: Path, profile: str) -> Source:
    """What the checkout at `repository` tells of its training. Raises `TerminalError` where nothing was trained."""
    lock = repository / "dvc.lock"
    if not lock.is_file():
        raise TerminalError(f"No {lock}: nothing was trained there. Run `dvc repro evaluate@{profile}` first.")
    told = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return Source(profile, digest, told.stdout.strip() or None if told.returncode == 0 else None)


def register(
    settings: Settings,
    models: Path,
    source: Source,
    scores: Scores,
    live_scores: Scores,
    who: str,
    gain: Gain | None = None,
) -> Candidate:
    """Copy a trained models folder into the registry, with a card that tells whether it passes the gate.

    The same models registered again keep their id and get a new card; those that are live keep the one they have.
    Raises `ModelError` where a model is missing or damaged.
    """
    versions = versions_of(models)
    candidate = Candidate(
        id=id_of(versions),
        versions=versions,
        source=source,
        scores=scores,
        live=id_of(versions_of(settings.models)),
        live_scores=live_scores,
        gate=Gate(settings.gate.errors).judge(scores, live_scores, gain),
        who=who,
        when=now(),
        gain=gain,
    )
    place = folder(settings, candidate.id)
    if live_id(settings) == candidate.id:
        return find(settings, candidate.id)
    if place.is_dir():
        write(place / "card.json", asdict(candidate))
        return candidate
    _sweep(_root(settings))
    beside = place.with_name(f".{uuid.uuid4().hex}")
    for name in KINDS:
        shutil.copytree(models / name, beside / name)
    write(beside / "card.json", asdict(candidate))
    beside.rename(place)
    return candidate


def _sweep(root: Path) -> None:
    """Delete copies that were being made when their process died: none takes a day."""
    for left in root.glob(".*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > _A_DAY:
            shutil.rmtree(left)


def candidates(settings: Settings) -> list[Candidate]:
    """Everything that was registered, oldest first."""
    found = [Candidate.of(json.loads(card.read_text())) for card in _root(settings).glob("[!.]*/card.json")]
    return sorted(found, key=lambda one: (one.when, one.id))


def find(settings: Settings, id_: str) -> Candidate:
    """Raises `TerminalError` naming those that there are."""
    card = folder(settings, id_) / "card.json"
    if not card.is_file():
        known = ", ".join(one.id for one in candidates(settings)) or "none"
        raise TerminalError(f"No candidate {id_!r} in {_root(settings)}. There are: {known}.")
    return Candidate.of(json.loads(card.read_text()))


def live_id(settings: Settings) -> str | None:
    """The promoted candidate; None where the models that came with the repository are live."""
    moves = _moves(settings)
    return moves[-1]["to"] if moves else None


def state(settings: Settings, candidate: Candidate) -> State:
    if candidate.id == live_id(settings):
        return "live"
    if any(move["to"] == candidate.id for move in _moves(settings)):
        return "retired"
    return "candidate" if candidate.gate.passed else "rejected"


def promote(settings: Settings, id_: str, who: str, *, despite_gate: bool = False) -> dict[str, int]:
    """Serve a candidate from now on; returns what the index holds and how pairs were decided again.

    Other embeddings need another index: it is built while hourly runs go on and write both, then models and index are
    switched in one step (see `sosie.rebuild`). A crash leaves the one or the other live as a whole. Run it again then:
    what was done is kept.
    Raises `TerminalError` where the gate failed, `SettingsError` where `models` is pinned, `StoreBusy` where another
    promotion is at work or an hour leaves no gap.
    """
    candidate = find(settings, id_)
    if not (candidate.gate.passed or despite_gate):
        raise TerminalError(
            f"{id_} did not pass the gate: {' '.join(candidate.gate.reasons)} "
            "Train a better one, or promote it with --despite-gate."
        )
    return _serve(settings, id_, "promote", who)


def rollback(settings: Settings, who: str) -> dict[str, int]:
    """Serve what was live before the last promotion that stands. Otherwise as `promote`."""
    standing: list[str] = []
    for move in _moves(settings):
        standing = standing[:-1] if move["how"] == "rollback" else [*standing, move["to"]]
    if not standing:
        raise TerminalError("The models that came with the repository are live; there is nothing to roll back to.")
    return _serve(settings, standing[-2] if standing[1:] else None, "rollback", who)


def _serve(settings: Settings, id_: str | None, how: str, who: str) -> dict[str, int]:
    from sosie import rebuild

    check_switchable(settings)
    return rebuild.serve(settings, rebuild.Target.of(settings, id_), how, who)


def check_switchable(settings: Settings) -> None:
    """Raises `SettingsError` where settings name the models, so that a switch would change nothing."""
    if settings.models_pinned:
        raise SettingsError(
            f"`models` is set to {settings.models}, so a promotion would change nothing; unset SOSIE_MODELS and the "
            "line in params.yaml."
        )
    if chosen := {settings.embedding.text, settings.embedding.image, settings.decider.model} - set(KINDS):
        raise SettingsError(
            f"The models in use are set to {', '.join(sorted(chosen))}, which a candidate does not hold: it has "
            f"{', '.join(KINDS)}. Take embedding.text, embedding.image and decider.model out of the settings."
        )


def commit(settings: Settings, id_: str | None, how: str, who: str, versions: Mapping[str, str]) -> None:
    """The moment of a switch: one rename makes the models live, and says which embeddings the index is to serve."""
    move = {"from": live_id(settings), "to": id_, "how": how, "who": who, "when": now()}
    write(_root(settings) / "live.json", {"id": id_, "versions": dict(versions), "moves": [*_moves(settings), move]})


def committed(settings: Settings) -> dict[str, str]:
    """Version of each model that was made live by the last switch; empty where there was none, or where settings name
    other models than the live ones."""
    pointer = live_pointer(settings.home)
    if not pointer or settings.models != live_models(settings.home):
        return {}
    return dict(pointer.get("versions", {}))


def retired_at(settings: Settings, modality: str, version: str) -> datetime | None:
    """When models with this embedding version last stopped being live; None where they never did."""
    times = [
        move["when"]
        for move in _moves(settings)
        if "from" in move and _version(settings, move["from"], modality) == version
    ]
    return datetime.fromisoformat(max(times)) if times else None


def _version(settings: Settings, id_: str | None, modality: str) -> str | None:
    if id_ is None:
        return versions_of(PROJECT / "models")[modality]
    card = folder(settings, id_) / "card.json"
    return str(json.loads(card.read_text())["versions"][modality]) if card.is_file() else None


def last_move(settings: Settings) -> dict[str, Any] | None:
    """The last switch: from, to (None is what came with the repository), how, who, when."""
    moves = _moves(settings)
    return moves[-1] if moves else None


def _root(settings: Settings) -> Path:
    return settings.home / "registry"


def _moves(settings: Settings) -> list[dict[str, Any]]:
    """Every promotion and rollback, oldest first: to (None is what came with the repository), how, who, when."""
    return list(live_pointer(settings.home).get("moves", ()))


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_atomically(file, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def now() -> str:
    """The time as cards and moves tell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
