"""How good the served models of a folder are, measured as stage `evaluate` does it: for the gate."""

import json
import tempfile
from pathlib import Path

from sosie.errors import DatasetError
from sosie.evaluate import datasets
from sosie.evaluate.methods import METHODS, Part, Task, run, run_pairs
from sosie.gate import JUDGED, Scores
from sosie.settings import load

METHOD = "sosie"


def measure(tests: Path, models: Path, judged: Path | None = None) -> Scores:
    """Figures of the models (text/, image/, decider/) on each dataset below `tests`, by its name, and on the judgements
    that are held back in the folder `judged`."""
    from sosie.training.judged.gain import plain

    (sosie,) = (method for method in METHODS if method.name == METHOD)
    settings, found = load(models=models), {}
    for folder in sorted(path for path in tests.iterdir() if path.is_dir()):
        dataset = datasets.load(folder)
        if dataset.has_groups:
            part = Part.of(dataset)
            outcome = run(sosie, Task(dataset.name, part, part), settings)
        else:
            outcome = run_pairs(sosie, dataset, dataset, settings)
        found[dataset.name] = plain(outcome.figures)
    if judged is not None and judged.is_dir():
        from sosie.training.judged.pool import measure as of_judged

        with tempfile.TemporaryDirectory(prefix="sosie-judged-") as cache:
            if figures := of_judged(judged, models, Path(cache)):
                found[JUDGED] = figures
    return found


def read(file: Path) -> Scores:
    """The served models' part of what stage `evaluate` wrote. Raises `DatasetError` where it is not there."""
    try:
        scores: Scores = json.loads(file.read_text())[METHOD]
    except (FileNotFoundError, KeyError):
        raise DatasetError(f"{file} has no figures of {METHOD!r}; run `dvc repro` for its profile first.") from None
    return scores
