"""How good the served models of a folder are, measured as stage `evaluate` does it: for the gate."""

import json
import math
from pathlib import Path

from sosie.errors import DatasetError
from sosie.evaluate import datasets
from sosie.evaluate.methods import METHODS, Part, Task, run
from sosie.gate import Scores
from sosie.settings import load

METHOD = "sosie"


def measure(tests: Path, models: Path) -> Scores:
    """Figures of the models (text/, image/, decider/) on each dataset with groups below `tests`, by its name."""
    (sosie,) = (method for method in METHODS if method.name == METHOD)
    settings, found = load(models=models), {}
    for folder in sorted(path for path in tests.iterdir() if path.is_dir()):
        dataset = datasets.load(folder)
        if dataset.has_groups:
            part = Part.of(dataset)
            figures = run(sosie, Task(dataset.name, part, part), settings).figures
            # One group alone has no standard error.
            found[dataset.name] = {
                name: None if value is None or math.isnan(value) else value for name, value in figures.items()
            }
    return found


def read(file: Path) -> Scores:
    """The served models' part of what stage `evaluate` wrote. Raises `DatasetError` where it is not there."""
    try:
        scores: Scores = json.loads(file.read_text())[METHOD]
    except (FileNotFoundError, KeyError):
        raise DatasetError(f"{file} has no figures of {METHOD!r}; run `dvc repro` for its profile first.") from None
    return scores
