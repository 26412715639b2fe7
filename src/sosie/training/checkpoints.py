"""A stage that was interrupted goes on from its last checkpoint, to the very weights that it would have reached."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

METRICS = "metrics.json"


class Checkpoint:
    """One file with the state of each part that has one (model, optimiser, …), of chance, and of what else is given."""

    def __init__(self, file: Path, **parts: Any) -> None:
        self.file, self.parts = file, parts

    def save(self, **more: Any) -> None:
        """Written beside and moved into place: a crash leaves the checkpoint before."""
        held = {name: part.state_dict() for name, part in self.parts.items()}
        partial = self.file.with_suffix(".partial")
        torch.save({"parts": held, "chance": torch.get_rng_state(), **more}, partial)
        partial.replace(self.file)

    def resume(self) -> dict[str, Any]:
        """Bring the parts and chance back to the file, and return what else was saved; empty where there is none."""
        if not self.file.exists():
            return {}
        held: dict[str, Any] = torch.load(self.file, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(held["parts"][name])
        torch.set_rng_state(held["chance"])
        return held


def write_metrics(folder: Path, values: Mapping[str, Any]) -> None:
    """`metrics.json`, as DVC reads it."""
    (folder / METRICS).write_text(json.dumps(dict(values), indent=2) + "\n")
