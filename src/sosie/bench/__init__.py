"""Benchmarks under one roof: what one hands over, how two sides are timed, and how all are run and shown.

A benchmark is a file of `benchmarks/` with a function `measure(size) -> list[Figure]`. Every figure stands beside a
peer that was measured in the same run, or beside a limit. `sosie bench` runs each in a process of its own.
"""

from sosie.bench.figures import SIZES, Figure, Size, against, within
from sosie.bench.script import script
from sosie.bench.timing import interleaved

__all__ = ["SIZES", "Figure", "Size", "against", "interleaved", "script", "within"]
