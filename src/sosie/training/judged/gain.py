"""What judgements are worth: the same recipe with and without them, on judgements held back and on every test set."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from sosie.errors import DatasetError
from sosie.evaluate import datasets
from sosie.evaluate.methods import METHODS, Figures, Task, applies, run, run_pairs
from sosie.gate import JUDGED, Gain, Scores
from sosie.settings import Settings
from sosie.training.decider.train import UNJUDGED
from sosie.training.judged.data import Judged
from sosie.training.judged.pool import measure as of_judged
from sosie.training.profile import Profile

FILE = "judgements.json"


def measure(
    profile: Profile, tasks: list[Task], having: Mapping[str, Figures], settings: Settings, cache: Path
) -> Gain:
    """Figures of the decider without judgements, beside those of the one with them, `having`, on each test dataset.

    Where no judgement was learnt from there is one decider, and only what people said of it to measure.
    """
    learnt = Judged.read(profile.judged("learn")).pairs.height
    held, models = profile.judged("held"), profile.models
    judged = of_judged(held, models, cache)
    having = {**having, **({JUDGED: judged} if judged else {})}
    without: dict[str, Figures] = {}
    if learnt:
        (sosie,) = (method for method in METHODS if method.name == "sosie")
        method = replace(sosie, decider=UNJUDGED)
        without = {task.name: plain(run(method, task, settings, cache).figures) for task in tasks}
        for folder in sorted(path for path in profile.data("test").iterdir() if path.is_dir()):
            test = datasets.load(folder)
            if not test.has_groups and applies(method, test):
                without[test.name] = plain(run_pairs(method, test, test, settings, cache).figures)
        if judged:
            without[JUDGED] = of_judged(held, models, cache, UNJUDGED)
    return Gain(learnt, Judged.read(held).pairs.height, without, having)


def plain(figures: Figures) -> Figures:
    """Figures as JSON can hold them: one group alone has no standard error."""
    return {name: None if value is None or math.isnan(value) else value for name, value in figures.items()}


def write(gain: Gain, file: Path) -> None:
    file.write_text(json.dumps(asdict(gain), indent=2, allow_nan=False) + "\n")


def read(file: Path) -> Gain | None:
    """What stage `evaluate` wrote; None where no judgement was learnt from."""
    found = _read(file)
    return found if found and found.learnt else None


def judged_scores(file: Path) -> Scores:
    """The figures of the trained models on held-back judgements, by their name; empty where there are none."""
    found = _read(file)
    return {JUDGED: found.having[JUDGED]} if found and JUDGED in found.having else {}


def _read(file: Path) -> Gain | None:
    if not file.is_file():
        return None
    try:
        return Gain(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{file} is damaged ({error}); run `dvc repro` for its profile again.") from None
