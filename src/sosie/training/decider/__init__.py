"""The deciders: pools of candidate pairs, boosting, calibration, thresholds."""
