"""Which titles meet in a batch."""

from collections.abc import Iterator

import numpy as np

from sosie.training.text.titles import Ints, Titles

_NEIGHBOURS = 7
"""Groups that come along with a group as its hard negatives."""


class Sampler:
    """Batches of whole groups, each group once an epoch, many beside those that they are easily mistaken for.

    `vectors` [n, d] holds each title's last known vector (unit length); training writes newer ones into it. A group of
    one has no partner, so it comes only as another's neighbour.
    """

    def __init__(self, titles: Titles, vectors: np.ndarray, rows_per_group: int, hard_share: float) -> None:
        self.vectors = vectors
        self.rows_per_group, self.hard_share = rows_per_group, hard_share
        order = np.argsort(titles.groups, kind="stable")
        _, starts = np.unique(titles.groups[order], return_index=True)
        self.members = np.split(order, starts[1:])
        corpora = np.array([titles.corpora[rows[0]] for rows in self.members])
        self.corpora = [np.flatnonzero(corpora == name) for name in np.unique(corpora)]
        self.rows_an_epoch = sum(min(len(rows), rows_per_group) for rows in self.members if len(rows) > 1)

    def epoch(self, batch: int, random: np.random.Generator) -> list[Ints]:
        """Row numbers of each batch, in random order; no batch mixes corpora."""
        made = [rows for groups in self.corpora for rows in self._of_corpus(groups, batch, random)]
        return [made[place] for place in random.permutation(len(made))]

    def _of_corpus(self, groups: Ints, batch: int, random: np.random.Generator) -> Iterator[Ints]:
        centres = np.stack([self.vectors[self.members[group]].mean(0) for group in groups])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        waiting = np.ones(len(groups), dtype=bool)
        rows: list[Ints] = []
        for seed in random.permutation(len(groups)):
            if not waiting[seed] or len(self.members[groups[seed]]) < 2:
                continue
            chosen = [seed]
            if random.random() < self.hard_share:
                near = np.argsort(-(centres @ centres[seed]))[: 4 * _NEIGHBOURS]
                chosen += [place for place in near if waiting[place] and place != seed][:_NEIGHBOURS]
            waiting[chosen] = False
            rows += [self._draw(groups[place], random) for place in chosen]
            if sum(map(len, rows)) >= batch:
                yield np.concatenate(rows)
                rows = []
        if rows:
            yield np.concatenate(rows)

    def _draw(self, group: int, random: np.random.Generator) -> Ints:
        members = self.members[group]
        if len(members) <= self.rows_per_group:
            return members
        return random.choice(members, size=self.rows_per_group, replace=False)
