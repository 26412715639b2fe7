"""The models that do without a transformer beside the default ones: F1 on listings that no training stage saw.

    python benchmarks/light_models.py [--size small|standard|large] [--json FILE]

Datasets, scored rows and pools are those of docs/evaluation.md, cut by stage `prepare` where that has not run yet. The
small size has the generated marketplace alone; without data/shopee all sizes have.
"""

from sosie.bench import Figure, Size, script
from sosie.evaluate import datasets
from sosie.evaluate.methods import METHODS, Outcome, run, run_pairs
from sosie.settings import PROJECT, load
from sosie.training import prepare, profile
from sosie.training.evaluate import tasks_of

DEFAULT, LIGHT = (next(each for each in METHODS if each.name == name) for name in ("sosie", "sosie_light"))


def measure(size: Size) -> list[Figure]:
    whole = size != "small" and (PROJECT / "data" / "shopee").exists()
    knobs = profile.load("full" if whole else "small")
    if not knobs.data("test").exists():
        prepare.main(knobs)
    settings = load(models=PROJECT / "models")
    cache = knobs.work / "scratch" / "light_models"
    found = []
    for task in tasks_of(knobs):
        both = [run(method, task, settings, cache) for method in (LIGHT, DEFAULT)]
        found.append(beside(f"F1 of a row, {task.name}", "row_f1", *both))
    for name in knobs.prepare.pairs:
        fit, test = (datasets.load(knobs.data(part) / name.rpartition("/")[2]) for part in ("decider", "test"))
        both = [run_pairs(method, fit, test, settings, cache) for method in (LIGHT, DEFAULT)]
        found.append(beside(f"F1 of labelled pairs, {test.name}", "f1", *both))
    return found


def beside(name: str, figure: str, light: Outcome, default: Outcome) -> Figure:
    values = [outcome.figures[figure] or 0.0 for outcome in (light, default)]
    return Figure(name, values[0], "F1", "the default models", values[1])


if __name__ == "__main__":
    script(measure, __doc__)
