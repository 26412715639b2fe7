"""What a reviewer is asked: the first pair that nobody else looks at, and all that is shown of a pair."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from sosie import judgements
from sosie.page import judging
from sosie.page.leases import Leases, Pair
from sosie.page.people import Person
from sosie.page.store import Store
from sosie.report import words
from sosie.tables import SIDES

MOST_REASONS = 6
_TRIED = 20
"""Pairs that are asked for before one is shown that somebody else has."""


def first_free(leases: Leases, waiting: pl.DataFrame, person: Person) -> tuple[Pair, str]:
    """The first of `waiting` that can be had, and who else has it if none can; two who ask at once get two."""
    pairs = waiting.select(SIDES).head(_TRIED).rows()
    for left, right in pairs:
        if not person.may_judge or leases.take((left, right), person.name) == person.name:
            return (left, right), ""
    left, right = pairs[0]
    return (left, right), "somebody else"


def in_full(store: Store, queue: pl.DataFrame, pair: Pair, items: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a pair, whose listings are among `items`; of one that is judged blind no score."""
    left, right = pair
    queued = queue.filter(pl.col("left_id") == left, pl.col("right_id") == right)
    blind = queued.height > 0 and queued["cause"][0] == "sample"
    # Who judges a sample must not lean on what is thought of it.
    held = {} if blind else store.pair(left, right) or {}
    reasons = sorted(held.get("reasons") or (), key=lambda one: -abs(one["contribution"] or 0.0))[:MOST_REASONS]
    said = judgements.said_of(store.standing(), left, right)
    return {
        "left": items[left],
        "right": items[right],
        "titles": words.compared(items[left].title, items[right].title),
        "score": held.get("score"),
        "blocked_by": held.get("blocked_by") or (),
        "reasons": reasons,
        "most": max((abs(one["contribution"] or 0.0) for one in reasons), default=1.0) or 1.0,
        "labels": words.reasons() if reasons else {},
        "queued": queued.row(0, named=True) if queued.height else None,
        "blind": blind,
        "said": said,
        "seen": judging.seen(said),
    }
