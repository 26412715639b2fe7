"""Feast without what makes it slow to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unguarded() -> Iterator[None]:
    """Classes of Feast that are imported meanwhile do not check the types of their arguments.

    To build those checks typeguard parses a whole module again for each of its methods: seconds of every process that
    uses Feast. Our calls are checked by our own tests.
    """
    import typeguard

    guarded = typeguard.typechecked
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = guarded


def _as_it_is(target: Any) -> Any:
    return target
