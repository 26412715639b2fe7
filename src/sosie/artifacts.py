"""A trained model on disk: a folder with `model.json`, which names every file, its digest and how the model is used.

The version of a model is a short hash of all of that, so whatever can change an output changes the version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sosie.errors import ModelError

CARD = "model.json"


@dataclass(frozen=True)
class Artifact:
    """A model folder whose files were checked. `usage` is what inference must know (max tokens, picture size, …)."""

    folder: Path
    kind: str
    version: str
    usage: Mapping[str, Any]
    about: Mapping[str, Any]

    def file(self, name: str) -> Path:
        return self.folder / name

    @classmethod
    def load(cls, folder: Path, kind: str) -> "Artifact":
        """Read and check. Raises `ModelError` where the card or a file is missing, damaged or of another kind."""
        card_path = folder / CARD
        try:
            card = json.loads(card_path.read_text())
        except FileNotFoundError:
            raise ModelError(
                f"No model in {folder}: {CARD} is missing. "
                "Point SOSIE_MODELS at a folder that has one, or restore it with `git checkout -- models`."
            ) from None
        except json.JSONDecodeError as error:
            raise ModelError(f"{card_path} is no JSON ({error}); restore it with `git checkout -- models`.") from None
        if card.get("kind") != kind:
            raise ModelError(f"{folder} holds a model of kind {card.get('kind')!r}; needed is {kind!r}.")
        for name, digest in card["files"].items():
            path = folder / name
            if not path.is_file() or _digest(path) != digest:
                raise ModelError(
                    f"{path} is missing or is not the file that {CARD} names; restore it with `git checkout`."
                )
        return cls(folder, kind, version_of(card), card["usage"], card["about"])


def save(folder: Path, kind: str, files: list[str], usage: Mapping[str, Any], about: Mapping[str, Any]) -> Artifact:
    """Write the card for `files`, which lie in `folder`. `about` is for readers and does not touch the version."""
    card = {
        "kind": kind,
        "files": {name: _digest(folder / name) for name in sorted(files)},
        "usage": dict(usage),
        "about": dict(about),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return Artifact.load(folder, kind)


def version_of(card: Mapping[str, Any]) -> str:
    """Twelve hex digits over everything that changes an output."""
    decisive = {key: card[key] for key in ("kind", "files", "usage")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
