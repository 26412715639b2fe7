"""Modules of others that libraries import at once and hardly ever use."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


@contextmanager
def until_used(*names: str) -> Iterator[None]:
    """Modules of these names that are first imported meanwhile run their code when something of them is asked for.

    A library that wants torch for one function of hundreds costs a process a second otherwise. Only for what one thread
    alone would use first: before Python 3.12 a second one finds a module half-way.
    """
    finder = _Deferring(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@dataclass(frozen=True)
class _Deferring(MetaPathFinder):
    names: Sequence[str]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
