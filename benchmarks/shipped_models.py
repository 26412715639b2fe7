"""Rows of docs/evaluation.md that the models in models/ give by themselves, on listings that no training stage saw.

    dvc repro -s prepare@full && python benchmarks/shipped_models.py       # needs data/ as training does (README)
    python benchmarks/shipped_models.py bert bert_blended                  # titles alone: names of `evaluate.methods`

By the evaluation's own functions: thresholds that come with no model are fitted on the decider's part, figures are of
the test part. Nothing has to be trained; rows of models that did not ship (other encoders, other seeds) are not among
them. Prints Markdown.
"""

import argparse
from dataclasses import replace

from sosie.evaluate import datasets, page
from sosie.evaluate.methods import METHODS, Outcome, applies, run, run_pairs
from sosie.settings import PROJECT, load
from sosie.training import profile
from sosie.training.evaluate import tasks_of

SHIPPED = ("bert", "bert_blended", "sosie_text", "sosie_picture", "sosie_untold", "sosie_light", "sosie")


def main(names: list[str]) -> None:
    knobs, settings = profile.load("full"), load(models=PROJECT / "models")
    cache = knobs.work / "scratch" / "shipped_models"
    # The encoder that ships as `text` is the one that training calls by its kind.
    methods = [
        replace(each, text="text") if each.text == "text-bert" else each for each in METHODS if each.name in names
    ]
    for task in tasks_of(knobs):
        found = {each.name: run(each, task, settings, cache) for each in methods if applies(each, task.test.dataset)}
        print(page.of_groups(task.name, found), flush=True)
    pairs: dict[str, dict[str, Outcome]] = {}
    for name in knobs.prepare.pairs:
        fit, test = (datasets.load(knobs.data(part) / name.rpartition("/")[2]) for part in ("decider", "test"))
        pairs[test.name] = {
            each.name: run_pairs(each, fit, test, settings, cache) for each in methods if applies(each, test)
        }
    print(page.of_pairs(pairs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(SHIPPED)}; all by default")
    chosen = parser.parse_args().methods or list(SHIPPED)
    if unknown := sorted({*chosen} - {*SHIPPED}):
        parser.error(f"received {', '.join(unknown)}; methods are {', '.join(SHIPPED)}")
    main(chosen)
