"""Titles alone by the shipped encoder: row F1 of the plain cosine, and of vectors that are blended with their nearest.

    dvc repro -s prepare@full && python benchmarks/titles_alone.py      # needs data/ as training does (README)

Rows "BERT, kNN" and "BERT, blended with the nearest, kNN" of docs/evaluation.md, by the evaluation's own functions:
thresholds come from the decider's part, figures from the test part. No other model has to be trained for it.
"""

from dataclasses import replace

from sosie.evaluate.methods import METHODS, run
from sosie.settings import settings
from sosie.training import profile
from sosie.training.evaluate import tasks_of


def main() -> None:
    methods = [replace(each, text="text") for each in METHODS if each.name in ("bert", "bert_blended")]
    for task in tasks_of(profile.load("full")):
        for method in methods:
            told = run(method, task, settings()).figures
            f1, error = told["row_f1"], told["row_f1_standard_error"]
            print(f"{task.name:16} {method.label:38} row F1 {f1:.3f} ± {error:.3f}", flush=True)


if __name__ == "__main__":
    main()
