"""Decides whether two listings sell the same product, and says why."""

from sosie.decider.features import FEATURES, NAMES, REASONS, Feature, pair_features
from sosie.decider.model import Calibration, Decider
from sosie.decider.text_features import Vocabulary

__all__ = ["FEATURES", "NAMES", "REASONS", "Calibration", "Decider", "Feature", "Vocabulary", "pair_features"]
