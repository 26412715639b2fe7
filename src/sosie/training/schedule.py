"""When a learner sees what, and how large its steps are."""

import math

import numpy as np
import numpy.typing as npt


def warm_then_cosine(progress: float, warmup: float) -> float:
    """The share of the peak learning rate at `progress` (0 to 1): a linear rise, then half a cosine to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def shuffled(rows: int, epochs: float, seed: int) -> npt.NDArray[np.int64]:
    """Row numbers, int64, in another order each epoch; a broken number of epochs takes a part of the last one."""
    orders = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(math.ceil(epochs))]
    return np.concatenate([np.empty(0, np.int64), *orders])[: round(epochs * rows)]
