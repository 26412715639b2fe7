"""What a matcher hands over to be scored."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sosie.evaluate.dataset import Dataset
from sosie.evaluate.datasets import split
from sosie.evaluate.metrics import Ints, codes


@dataclass(frozen=True)
class Labelled:
    """A dataset with its truth as numbers: `groups` int64 [n] and `train` bool [n], in the order of its listings."""

    dataset: Dataset
    groups: Ints
    train: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, dataset: Dataset) -> "Labelled":
        rows = dataset.listings.select("listing_id").join(
            dataset.truth, on="listing_id", how="left", maintain_order="left"
        )
        return cls(dataset, codes(rows["group"]), (split(rows["group"]) == "train").to_numpy())


@dataclass(frozen=True)
class Matching:
    """Found duplicates by row number. Pairs are int64 [m, 2], each unordered pair once.

    Where there are `clusters` (int64 [n]) they are the answer, else a row's set is what `pairs` link it to directly.
    `variants` are answers of the same run that are worth knowing beside it, in either form.
    """

    pairs: Ints
    candidates: Ints
    thresholds: Mapping[str, Any]
    clusters: Ints | None = None
    variants: Mapping[str, Ints] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


class Clock:
    """Seconds by stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 2)
