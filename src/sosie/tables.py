"""Every table of the lake: its columns, its key, and which columns say nothing new when they alone differ."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

DIM = 128
"""Width of every vector, in both modalities."""

TIMESTAMP = pl.Datetime("us", "UTC")
VECTOR = pl.List(pl.Float32)  # Delta has no fixed-size lists; `lake` checks the width at every write


@dataclass(frozen=True)
class Table:
    """A Delta table. `key` names one row; `volatile` columns don't make a row a different one."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, pl.DataType | type[pl.DataType]]
    required: frozenset[str] = frozenset()
    volatile: frozenset[str] = frozenset()
    partition_by: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema(self.columns)


FEED: dict[str, pl.DataType | type[pl.DataType]] = {
    "listing_id": pl.String,
    "seller_id": pl.String,
    "marketplace": pl.String,
    "title": pl.String,
    "description": pl.String,
    "brand": pl.String,
    "gtin": pl.String,
    "category": pl.String,
    "price": pl.Float64,
    "currency": pl.String,
    "image_uri": pl.String,
    "image_phash": pl.String,  # 64-bit perceptual hash in hex; ours where we have the picture, else the feed's
    "updated_at": TIMESTAMP,
    "is_deleted": pl.Boolean,
}
"""Columns of a landing file. `FEED_REQUIRED` must be there; the others may be left out."""

FEED_REQUIRED = ("listing_id", "title", "updated_at")

LISTINGS = Table(
    "listings",
    key=("listing_id",),
    columns={
        **FEED,
        "text_hash": pl.String,
        "image_hash": pl.String,
        "content_hash": pl.String,
        "first_seen_run": pl.String,
        "last_changed_run": pl.String,
    },
    required=frozenset({"listing_id", "updated_at", "is_deleted", "content_hash", "first_seen_run"}),
)

CHANGES = Table(
    "changes",
    key=("run_id", "listing_id"),
    columns={
        "run_id": pl.String,
        "listing_id": pl.String,
        "kind": pl.String,  # new, text, image, text_and_image, attributes, deleted
        "text_hash": pl.String,  # set where this run needs a text vector
        "image_hash": pl.String,  # set where this run needs a picture vector
    },
    required=frozenset({"run_id", "listing_id", "kind"}),
    partition_by=("run_id",),
)

QUARANTINE = Table(
    "quarantine",
    key=("run_id", "source_file", "row_number", "rule"),
    columns={
        "run_id": pl.String,
        "source_file": pl.String,
        "row_number": pl.Int64,  # from 0, in the file's own order
        "rule": pl.String,
        "detail": pl.String,
        "listing_id": pl.String,
        "row": pl.String,  # JSON of the row as it came
        "replayed_run": pl.String,
    },
    required=frozenset({"run_id", "source_file", "row_number", "rule", "row"}),
    # A detail may name the time that a row was held against, which is another one in every try.
    volatile=frozenset({"detail"}),
)


def _embeddings(name: str) -> Table:
    return Table(
        name,
        key=("listing_id", "content_hash", "embedding_version", "event_timestamp"),
        columns={
            "listing_id": pl.String,
            "vector": VECTOR,
            "content_hash": pl.String,
            "embedding_version": pl.String,
            "event_timestamp": TIMESTAMP,
            "created_timestamp": TIMESTAMP,
        },
        required=frozenset({"listing_id", "vector", "content_hash", "embedding_version", "event_timestamp"}),
        volatile=frozenset({"created_timestamp"}),
        partition_by=("embedding_version",),
        vectors=("vector",),
    )


TEXT_EMBEDDINGS = _embeddings("text_embeddings")
IMAGE_EMBEDDINGS = _embeddings("image_embeddings")

Modality = Literal["text", "image"]
EMBEDDINGS: dict[Modality, Table] = {"text": TEXT_EMBEDDINGS, "image": IMAGE_EMBEDDINGS}
MODALITIES: tuple[Modality, ...] = tuple(EMBEDDINGS)


def having(modality: Modality) -> pl.Expr:
    """Of rows of LISTINGS: whether one is live and has this modality, and so is to have a vector of it."""
    return ~pl.col("is_deleted") & pl.col(f"{modality}_hash").is_not_null()


SIDES = ["left_id", "right_id"]
"""The two listings of a pair, the lesser id first."""

PAIRS = Table(
    "pairs",
    key=("left_id", "right_id"),
    columns={
        "left_id": pl.String,
        "right_id": pl.String,
        "score": pl.Float64,
        "first_score": pl.Float64,  # of the two listings by themselves; what other pairs see of this one
        "verdict": pl.String,  # match, review, no_match (near misses only)
        "reasons": pl.List(pl.Struct({"feature": pl.String, "value": pl.Float64, "contribution": pl.Float64})),
        "blocked_by": pl.List(pl.String),  # the sources below that proposed it
        "decider_version": pl.String,
        "embedding_version": pl.String,
        "run_id": pl.String,
    },
    required=frozenset({"left_id", "right_id", "score", "verdict"}),
    volatile=frozenset({"run_id"}),
)

NEIGHBOURS = Table(
    "neighbours",
    key=("number", "source", "turn"),
    columns={
        "number": pl.Int64,  # of a listing (sosie.neighbours.numbers): read whole each hour, where ids would be heavy
        "source": pl.String,  # a list (pipeline/retrieval.py: limits) or an exact key (blocking.KEYS)
        "turn": pl.Int32,  # a later row takes the place of those before (sosie.neighbour_lists)
        "content_hash": pl.Int64,  # number of what the listing said when it was last matched; null: it has no row now
        "reach": pl.Float32,  # whoever is more similar than this is on the list; -1: everybody is
        "others": pl.List(pl.Int64),  # numbers of its neighbours, nearest first, with some to spare; none at a key
        "similarities": pl.List(pl.Float32),
    },
    required=frozenset({"number", "source", "turn"}),
)

_TERMS = pl.List(pl.Int32)
PARSED: dict[str, pl.DataType | type[pl.DataType]] = {
    "text": pl.String,  # lower case, words alone
    "words": _TERMS,  # hashed, as the other terms
    "numbers": _TERMS,
    "codes": _TERMS,
    "editions": _TERMS,
    "spelling": _TERMS,  # character n-grams
    "colours": pl.Int32,  # bits, one a colour
    "sizes": pl.Int32,
    "audience": pl.Int32,
    "least": VECTOR,  # quantity of each dimension in base units, NaN where none is named; empty where none at all is
    "most": VECTOR,
}
"""A title taken apart, by `sosie.decider.parsed`."""

SPELLINGS = Table(
    "spellings",
    key=("text_hash",),
    columns={
        "text_hash": pl.String,  # of a title
        **PARSED,
        "manner": pl.String,  # how it was parsed and hashed
    },
    required=frozenset({"text_hash", *PARSED, "manner"}),
)

RECIPES = Table(
    "recipes",
    key=("name",),
    columns={
        "name": pl.String,  # pairs: what all rows of `pairs` were made by
        "recipe": pl.String,  # JSON of models, limits and the catalogue's order of magnitude
    },
    required=frozenset({"name", "recipe"}),
)

REGROUP = Table(
    "regroup",
    key=("listing_id",),
    columns={"listing_id": pl.String, "run_id": pl.String},
    required=frozenset({"listing_id"}),
    volatile=frozenset({"run_id"}),
)
"""Listings whose pairs changed and whose clusters were not looked at since: handed from `match` to `cluster`."""

JUDGEMENTS = Table(
    "judgements",
    key=("left_id", "right_id", "who", "when"),
    columns={
        "left_id": pl.String,
        "right_id": pl.String,
        "verdict": pl.String,  # same, different
        "who": pl.String,
        "when": TIMESTAMP,
        "note": pl.String,
        "retracted_at": TIMESTAMP,
    },
    required=frozenset({"left_id", "right_id", "verdict", "who", "when"}),
)

CLUSTERS = Table(
    "clusters",
    key=("listing_id",),
    columns={
        "listing_id": pl.String,
        "cluster_id": pl.String,
        "canonical_id": pl.String,
        "size": pl.Int64,
        "changed_run": pl.String,
    },
    required=frozenset({"listing_id", "cluster_id", "canonical_id", "size"}),
    volatile=frozenset({"changed_run"}),
)

HELD_MERGES = Table(
    "held_merges",
    key=("left_id", "right_id"),
    columns={
        "left_id": pl.String,
        "right_id": pl.String,
        "cause": pl.String,  # weak_link, cluster_too_large, judged_different
        "clusters": pl.List(pl.String),  # of the two listings, where they are in one: what did not become one
        "run_id": pl.String,
    },
    required=frozenset({"left_id", "right_id", "cause"}),
    volatile=frozenset({"run_id"}),
)
"""Matches whose two listings were not joined, and why: what a person has to look at."""

CANONICAL_CHOICES = Table(
    "canonical_choices",
    key=("listing_id", "who", "when"),
    columns={"listing_id": pl.String, "who": pl.String, "when": TIMESTAMP},
    required=frozenset({"listing_id", "who", "when"}),
)

CLUSTER_EVENTS = Table(
    "cluster_events",
    # All that it says: a cluster may grow in each try of an hour, and a try that died tells the same again.
    key=("run_id", "kind", "cluster_id", "before", "after", "joined", "left"),
    columns={
        "run_id": pl.String,
        "kind": pl.String,  # formed, grew, shrank, merged, split, dissolved
        "cluster_id": pl.String,  # the cluster that the event is told of
        "before": pl.List(pl.String),  # cluster ids
        "after": pl.List(pl.String),
        "joined": pl.List(pl.String),  # listing ids that came
        "left": pl.List(pl.String),  # listing ids that went
    },
    required=frozenset({"run_id", "kind", "cluster_id"}),
)

DECISIONS = Table(
    "decisions",
    # With the time of writing: what was said of an hour and corrected later stays told as it was said then.
    key=("listing_id", "event_timestamp", "created_timestamp"),
    columns={
        "listing_id": pl.String,
        "is_duplicate": pl.Boolean,
        "cluster_id": pl.String,
        "canonical_id": pl.String,
        "score": pl.Float64,
        "event_timestamp": TIMESTAMP,
        "created_timestamp": TIMESTAMP,
        "run_id": pl.String,
    },
    required=frozenset({"listing_id", "is_duplicate", "event_timestamp", "created_timestamp"}),
    volatile=frozenset({"run_id"}),
)

ALERTS = Table(
    "alerts",
    key=("key", "channel"),
    columns={
        "key": pl.String,
        "severity": pl.String,  # info, warning, critical
        "text": pl.String,
        "channel": pl.String,
        "state": pl.String,  # pending, sent, failed, dead, silenced
        "attempts": pl.Int64,
        "run_id": pl.String,
    },
    required=frozenset({"key", "severity", "text", "channel", "state"}),
)

SILENCES = Table(
    "silences",
    key=("rule", "since"),
    columns={
        "rule": pl.String,
        "since": TIMESTAMP,
        "until": TIMESTAMP,
        "who": pl.String,
        "note": pl.String,
    },
    required=frozenset({"rule", "since", "until", "who"}),
)

RUNS = Table(
    "runs",
    key=("run_id",),
    columns={
        "run_id": pl.String,
        # succeeded, refused, or running where an hour that succeeded is run again; of what is no hour: promote,
        # rollback, upkeep.
        "state": pl.String,
        "started_at": TIMESTAMP,
        "finished_at": TIMESTAMP,
        "seconds": pl.Float64,
        "files": pl.List(pl.Struct({"path": pl.String, "sha256": pl.String, "bytes": pl.Int64, "rows": pl.Int64})),
        "steps": pl.List(
            pl.Struct(
                {
                    "name": pl.String,
                    "seconds": pl.Float64,
                    "peak_memory_bytes": pl.Int64,
                    "counts": pl.List(pl.Struct({"name": pl.String, "value": pl.Int64})),
                }
            )
        ),
        "text_version": pl.String,
        "image_version": pl.String,
        "decider_version": pl.String,
    },
    required=frozenset({"run_id", "state"}),
    volatile=frozenset({"started_at"}),
)

ALL = (
    LISTINGS, CHANGES, QUARANTINE, TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS, NEIGHBOURS, SPELLINGS, RECIPES, PAIRS, REGROUP,
    JUDGEMENTS, CLUSTERS, HELD_MERGES, CANONICAL_CHOICES, CLUSTER_EVENTS, DECISIONS, ALERTS, SILENCES, RUNS,
)  # fmt: skip
