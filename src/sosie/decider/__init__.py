"""Decides whether two listings sell the same product, and says why."""

from sosie.decider import neighbourhood
from sosie.decider.features import FEATURES, NAMES, Feature, pair_features
from sosie.decider.features import REASONS as _OWN
from sosie.decider.model import Calibration, Decider
from sosie.decider.text_features import Vocabulary

REASONS = {**_OWN, **neighbourhood.REASONS}
"""What each of a verdict's reasons tells a person, by its name."""

__all__ = ["FEATURES", "NAMES", "REASONS", "Calibration", "Decider", "Feature", "Vocabulary", "pair_features"]
