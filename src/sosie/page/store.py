"""What the page reads: rows by scans that filter first, and small frames that are kept until a table moves on."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any, TypeVar

import polars as pl

from sosie import judgements, review_queue
from sosie.page.tables import OpenLake
from sosie.report.data import Listing, listings
from sosie.sampling import Shares
from sosie.settings import Settings, live_models
from sosie.tables import CLUSTERS, HELD_MERGES, JUDGEMENTS, PAIRS, Table

T = TypeVar("T")


class Store:
    """The lake as the page sees it. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lake = OpenLake(settings.lake_uri)
        self._kept: dict[str, tuple[tuple[int, ...], Any]] = {}
        self._locks: dict[str, Lock] = {}
        self._guard = Lock()

    @property
    def settings(self) -> Settings:
        """The settings with the models that are live now: this process outlives a promotion."""
        if self._settings.models_pinned:
            return self._settings
        return self._settings.model_copy(update={"models": live_models(self._settings.home)})

    def derived(self, name: str, tables: Sequence[Table], make: Callable[[], T]) -> T:
        """What `make` gives, made again only after one of `tables` has a new version."""
        with self._guard:
            lock = self._locks.setdefault(name, Lock())
        with lock:
            stamp = tuple(self.lake.version(table) for table in tables)
            held = self._kept.get(name)
            if held is None or held[0] != stamp:
                held = (stamp, make())
                self._kept[name] = held
        made: T = held[1]
        return made

    def queue(self) -> pl.DataFrame:
        """All that waits for a person (see `sosie.review_queue`), most valuable first, and among it what is sampled."""
        waiting = self.derived("waiting", (PAIRS, CLUSTERS, HELD_MERGES), lambda: review_queue.waiting(self.lake))
        sampled = self.derived("sampled", (PAIRS, CLUSTERS), lambda: review_queue.sampled(self.lake))

        def make() -> pl.DataFrame:
            ranked = review_queue.ranked(waiting, self.standing(), self.lake)
            return review_queue.asked(
                ranked, sampled, self.standing(), Shares(asked.learning_share, asked.random_share)
            )

        asked = self._settings.review
        return self.derived("queue", (PAIRS, CLUSTERS, HELD_MERGES, JUDGEMENTS), make)

    def standing(self) -> pl.DataFrame:
        """The judgements that hold, one a pair."""
        return self.derived("standing", (JUDGEMENTS,), lambda: judgements.standing(self.lake))

    def listings(self, ids: Iterable[str]) -> dict[str, Listing]:
        """Each of `ids`; one that the lake does not hold appears by its id alone."""
        return listings(self.lake, ids)

    def pair(self, left: str, right: str) -> dict[str, Any] | None:
        """The decided pair as the lake holds it."""
        rows = self.lake.read(PAIRS, (pl.col("left_id") == left) & (pl.col("right_id") == right))
        return rows.row(0, named=True) if rows.height else None
