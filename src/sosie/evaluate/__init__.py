"""How good Sosie is on labelled listings, beside baselines that the same command runs."""

from sosie.evaluate.dataset import Dataset
from sosie.evaluate.datasets import load, split_of
from sosie.evaluate.evaluation import MATCHERS, Evaluation, evaluate
from sosie.evaluate.table import render

__all__ = ["MATCHERS", "Dataset", "Evaluation", "evaluate", "load", "render", "split_of"]
