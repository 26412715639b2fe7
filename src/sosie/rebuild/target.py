"""The second models: which they are, how far their index is, and whether hours keep it in step."""

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sosie import registry
from sosie.locks import exclusive
from sosie.settings import PROJECT, Settings
from sosie.tables import MODALITIES, Modality

PACKAGED = "packaged"
"""How a person names the models that came with the repository."""

_ABANDONED = "abandoned"


@dataclass(frozen=True)
class Target:
    """Models that are, or may come to be, served. `id` is None for those that came with the repository."""

    id: str | None
    models: Path
    versions: dict[str, str]

    @classmethod
    def of(cls, settings: Settings, id_: str | None) -> "Target":
        """Raises `TerminalError` for an unknown candidate, `ModelError` for a damaged one."""
        if id_ in (None, PACKAGED):
            return cls(None, PROJECT / "models", registry.versions_of(PROJECT / "models"))
        assert id_ is not None
        found = registry.find(settings, id_)
        models = registry.folder(settings, found.id)
        return cls(found.id, models, registry.versions_of(models))

    @property
    def name(self) -> str:
        return self.id or PACKAGED

    def settings(self, settings: Settings) -> Settings:
        """The same settings with these models."""
        return settings.model_copy(update={"models": self.models})

    def modalities(self, settings: Settings) -> list[Modality]:
        """Those whose vectors differ from the live models': the others need no second collection."""
        live = registry.versions_of(settings.models)
        return [modality for modality in MODALITIES if live[modality] != self.versions[modality]]


@dataclass(frozen=True)
class Progress:
    """What second.json holds. `phase`: embed, load, publish, ready; `done` of `total` listings of the phase."""

    id: str | None
    since: str
    phase: str = "embed"
    modality: str = ""
    done: int = 0
    total: int = 0


def progress(settings: Settings) -> Progress | None:
    """How far the second index is; None where none is built, or where it has become the live one."""
    told = _told(settings)
    return None if told is None or told.phase == _ABANDONED or told.id == registry.live_id(settings) else told


def begin(settings: Settings, target: Target) -> bool:
    """Have hours write this version too from now on; returns whether they have done so without a gap before."""
    before = second(settings)
    followed = before is not None and before.id == target.id
    if progress(settings) is None or not followed:
        mark(settings, Progress(target.id, registry.now()))
    return followed


def mark(settings: Settings, told: Progress) -> None:
    registry.write(_pointer(settings), asdict(told))


def rebuilding(settings: Settings) -> AbstractContextManager[None]:
    """One at a time. Raises `StoreBusy` where another rebuild is at work."""
    return exclusive(settings.home / "registry" / "rebuild.lock", 5, "rebuilding the index")


def abandon(settings: Settings) -> Progress | None:
    """Let hours stop writing the second version; upkeep drops its collections after the grace time.

    Raises `StoreBusy` where it is being built: that would mark it as such again.
    """
    with rebuilding(settings):
        told = progress(settings)
        if told is not None:
            mark(settings, replace(told, phase=_ABANDONED, since=registry.now()))
    return told


def close(settings: Settings, target: Target) -> None:
    """Forget the second version where it has become the live one; another that is being built goes on."""
    if (told := _told(settings)) is not None and told.id == target.id:
        _pointer(settings).unlink(missing_ok=True)


def second(settings: Settings) -> Target | None:
    """What hours write beside the live version: the one being built or ready, else the one that was live until lately.

    The latter makes a rollback a matter of seconds; `rebuild.follow_hours` says for how long.
    """
    held = progress(settings)
    if held is not None:
        return Target.of(settings, held.id)
    last = registry.last_move(settings)
    if last is None or "from" not in last or _age_hours(last) > settings.rebuild.follow_hours:
        return None
    if (other := _told(settings)) is not None and other.since >= last["when"]:
        return None  # hours wrote another version for a time, so this one has a gap
    return Target.of(settings, last["from"])


def _age_hours(move: dict[str, Any]) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(move["when"])).total_seconds() / 3600


def _told(settings: Settings) -> Progress | None:
    try:
        return Progress(**json.loads(_pointer(settings).read_text()))
    except FileNotFoundError:
        return None


def _pointer(settings: Settings) -> Path:
    return settings.home / "registry" / "second.json"
