"""How differently two samples of scores are spread."""

import numpy as np
import numpy.typing as npt

BINS = 10


def population_stability(before: npt.ArrayLike, now: npt.ArrayLike) -> float:
    """Population stability index of two samples of scores from 0 to 1, over ten equal bins; symmetric, 0 if alike.

    0.1 is commonly read as some difference, 0.25 as much (Siddiqi, Credit Risk Scorecards, 2006). Half a score is added
    to each bin, so that an empty one costs no infinity.
    """
    shares = []
    for sample in (before, now):
        counts, _ = np.histogram(np.asarray(sample), bins=BINS, range=(0.0, 1.0))
        shares.append((counts + 0.5) / (counts.sum() + BINS / 2))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
