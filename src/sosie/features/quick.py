"""Feast without what makes it slow to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sosie.deferred import until_used


@contextmanager
def lean() -> Iterator[None]:
    """Feast that is imported meanwhile does not check the types of its arguments, and waits for torch until it is used.

    To build those checks typeguard parses a whole module again for each of its methods: seconds of every process that
    uses Feast. Our calls are checked by our own tests. Torch takes another second, for `to_tensor` alone.
    """
    import typeguard

    guarded = typeguard.typechecked
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]
    try:
        with until_used("torch"):
            yield
    finally:
        typeguard.typechecked = guarded


def _as_it_is(target: Any) -> Any:
    return target
