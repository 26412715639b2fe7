"""Rows of embeddings and their vectors, which are read apart: each listing gets its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sosie.lake import Lake
from sosie.pipeline.embed import current, in_parts, latest, located, newest
from sosie.tables import DIM, TEXT_EMBEDDINGS
from sosie.upkeep.history import _old_rows
from sosie.vectors import matrix

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
IDS = pl.Series("listing_id", list("abcz"))


def rows(ids: str, *, at: datetime = NOON, content: str = "now") -> pl.DataFrame:
    """Of each listing a vector along its own axis."""
    return pl.DataFrame(
        {
            "listing_id": list(ids),
            "vector": [np.eye(DIM, dtype=np.float32)[ord(one) - ord("a")].tolist() for one in ids],
            "content_hash": [f"{content} {one}" for one in ids],
            "embedding_version": "v",
            "event_timestamp": at,
            "created_timestamp": at,
        },
        schema=TEXT_EMBEDDINGS.schema,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A table in which two writers put the same three rows at once."""
    lake = Lake(str(tmp_path / "lake"))
    lake.append(TEXT_EMBEDDINGS, rows("z"))
    lake.append(TEXT_EMBEDDINGS, rows("abc"))
    rows("abc").write_delta(lake.path(TEXT_EMBEDDINGS), mode="append")
    assert lake.read(TEXT_EMBEDDINGS).height == 7
    return lake


def axes(ids: pl.Series, vectors: np.ndarray) -> dict[str, str]:
    return dict(zip(ids, (chr(ord("a") + int(vector.argmax())) for vector in vectors), strict=True))


def test_each_listing_gets_its_own_vector_where_two_writers_put_the_same_rows(lake: Lake) -> None:
    own = dict(zip(IDS, IDS, strict=True))
    listings = pl.DataFrame({"listing_id": IDS, "text_hash": "now " + IDS, "is_deleted": False})
    for found in (latest(lake, "text", "v", IDS), current(lake, "text", "v", listings)):
        assert axes(found["listing_id"], matrix(found)) == own
    ids, vectors = located(lake, "text", "v", listings)
    assert axes(ids, vectors[:]) == own
    parts = list(in_parts(lake, "text", "v", newest(lake, "text", "v", IDS), 3))
    assert [part.height for part in parts] == [3, 1]
    assert axes(pl.concat(parts)["listing_id"], matrix(pl.concat(parts))) == own


def test_a_row_that_went_while_it_was_read_takes_no_other_vector(lake: Lake) -> None:
    told = newest(lake, "text", "v", IDS)
    lake.delete(TEXT_EMBEDDINGS, pl.DataFrame({"listing_id": ["b"]}))
    (part,) = in_parts(lake, "text", "v", told, told.height)
    assert axes(part["listing_id"], matrix(part)) == {"a": "a", "c": "c", "z": "z"}


def test_what_is_known_of_a_listing_now_is_not_superseded_by_its_own_double(lake: Lake) -> None:
    later = NOON + timedelta(days=1)
    lake.append(TEXT_EMBEDDINGS, rows("a", at=later, content="later"))
    assert _old_rows(lake, TEXT_EMBEDDINGS, later + timedelta(days=1), rows("").select("listing_id"), "r") == 2
    held = lake.read(TEXT_EMBEDDINGS).select("listing_id", "content_hash").unique().sort("listing_id")
    assert held.rows() == [("a", "later a"), ("b", "now b"), ("c", "now c"), ("z", "now z")]
