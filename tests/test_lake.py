"""The lake on a real Delta folder."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sosie import tables
from sosie.errors import SchemaMismatch, TerminalError
from sosie.lake import Delta, Lake, Written
from sosie.page.tables import OpenLake

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "a läke of #1 {mine}?"))


def embeddings(*ids: str, value: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "listing_id": list(ids),
            "vector": [[value] * tables.DIM] * len(ids),
            "content_hash": [f"hash-{i}" for i in ids],
            "embedding_version": "v1",
            "event_timestamp": NOW,
            "created_timestamp": NOW,
        }
    )


def cluster_rows(*rows: tuple[str, str, str, int, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=tables.CLUSTERS.schema, orient="row")


def test_a_table_that_was_never_written_reads_as_empty_with_its_schema(lake: Lake) -> None:
    for table in tables.ALL:
        assert lake.read(table).schema == table.schema
        assert lake.version(table) == -1


def test_every_table_can_be_created_and_read_back(lake: Lake) -> None:
    lake.create(tables.ALL)
    lake.create(tables.ALL)
    for table in tables.ALL:
        assert lake.read(table).schema == table.schema
        assert lake.version(table) == 0


def test_files_are_found_whatever_their_folder_is_named(lake: Lake) -> None:
    lake.append(tables.TEXT_EMBEDDINGS, embeddings("a", "b"))
    assert lake.read(tables.TEXT_EMBEDDINGS).height == 2
    assert lake.mapped(tables.TEXT_EMBEDDINGS, embedding_version="v1").height == 2
    assert OpenLake(lake.uri).read(tables.TEXT_EMBEDDINGS).height == 2


def test_append_skips_keys_that_are_held_and_makes_no_commit_for_nothing(lake: Lake) -> None:
    assert lake.append(tables.TEXT_EMBEDDINGS, embeddings("a", "b")) == Written(inserted=2)
    version = lake.version(tables.TEXT_EMBEDDINGS)
    assert lake.append(tables.TEXT_EMBEDDINGS, embeddings("a", "b")) == Written(unchanged=2)
    assert lake.version(tables.TEXT_EMBEDDINGS) == version
    assert lake.append(tables.TEXT_EMBEDDINGS, embeddings("b", "c")) == Written(inserted=1, unchanged=1)
    assert lake.read(tables.TEXT_EMBEDDINGS)["listing_id"].sort().to_list() == ["a", "b", "c"]


def test_upsert_tells_new_changed_and_equal_rows_apart(lake: Lake) -> None:
    assert (
        lake.upsert(tables.CLUSTERS, cluster_rows(("a", "c1", "a", 2, "h1"), ("b", "c1", "a", 2, "h1"))).inserted == 2
    )
    written = lake.upsert(
        tables.CLUSTERS,
        cluster_rows(("a", "c1", "a", 2, "h2"), ("b", "c2", "b", 2, "h2"), ("z", "c2", "b", 2, "h2")),
    )
    assert written == Written(inserted=1, updated=1, unchanged=1)
    held = {row[0]: row for row in lake.read(tables.CLUSTERS).iter_rows()}
    assert held["a"][4] == "h1", "a row that differs only in a volatile column is left as it is"
    assert held["b"][1] == "c2"


def test_nulls_in_content_columns_count_as_equal(lake: Lake) -> None:
    row = {"left_id": "a", "right_id": "b", "verdict": "same", "who": "me", "when": NOW, "note": None}
    frame = pl.DataFrame([{**row, "retracted_at": None}], schema=tables.JUDGEMENTS.schema)
    assert lake.upsert(tables.JUDGEMENTS, frame).inserted == 1
    assert lake.upsert(tables.JUDGEMENTS, frame) == Written(unchanged=1)


def test_delete_by_part_of_a_key(lake: Lake) -> None:
    lake.append(tables.TEXT_EMBEDDINGS, embeddings("a", "b", "c"))
    assert lake.delete(tables.TEXT_EMBEDDINGS, pl.DataFrame({"listing_id": ["a", "x"]})) == Written(deleted=1)
    version = lake.version(tables.TEXT_EMBEDDINGS)
    assert lake.delete(tables.TEXT_EMBEDDINGS, pl.DataFrame({"listing_id": ["x"]})) == Written()
    assert lake.version(tables.TEXT_EMBEDDINGS) == version


def test_time_travel_reads_what_was_held_then(lake: Lake) -> None:
    lake.upsert(tables.CLUSTERS, cluster_rows(("a", "c1", "a", 2, "h1")))
    then = lake.version(tables.CLUSTERS)
    lake.upsert(tables.CLUSTERS, cluster_rows(("a", "c9", "a", 2, "h2")))
    assert lake.scan(tables.CLUSTERS, as_of=then).collect()["cluster_id"].item() == "c1"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (embeddings("a").drop("vector"), "lack \\['vector'\\]"),
        (embeddings("a").with_columns(colour=pl.lit("red")), "\\['colour'\\] too many"),
        (embeddings("a").with_columns(listing_id=pl.lit(None, dtype=pl.String)), "1 rows .* have no listing_id"),
        (embeddings("a", "a"), "repeat a key"),
        (embeddings("a").with_columns(vector=pl.lit([1.0, 2.0])), "received widths \\[2\\]"),
        (embeddings("a").with_columns(event_timestamp=pl.lit("yesterday")), "don't have its types"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(lake: Lake, rows: pl.DataFrame, said: str) -> None:
    with pytest.raises(SchemaMismatch, match=said):
        lake.append(tables.TEXT_EMBEDDINGS, rows)
    assert lake.version(tables.TEXT_EMBEDDINGS) == -1


def test_a_table_with_a_file_that_is_cut_short_is_named(lake: Lake) -> None:
    table = tables.TEXT_EMBEDDINGS
    lake.append(table, embeddings("a"))
    (file,) = Path(lake.path(table)).rglob("*.parquet")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    says = re.escape(
        f"Table text_embeddings can't be read: {file} has 100 of its {size:,} bytes. Restore it from a backup."
    )
    for read in (lake.scan, lake.read, partial(lake.mapped, embedding_version="v1")):
        with pytest.raises(TerminalError, match=says):
            read(table)


def test_concurrent_writers_lose_nothing(lake: Lake) -> None:
    lake.create([tables.TEXT_EMBEDDINGS, tables.CLUSTERS])

    def write(number: int) -> None:
        lake.append(tables.TEXT_EMBEDDINGS, embeddings(f"listing-{number}"))
        lake.upsert(tables.CLUSTERS, cluster_rows((f"listing-{number}", f"c{number}", "x", 2, "h1")))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(12)))
    assert lake.read(tables.TEXT_EMBEDDINGS).height == lake.read(tables.CLUSTERS).height == 12


def lists(*numbers: int) -> pl.DataFrame:
    rows = [(number, "text", 0, 7, -1.0, [number + 1], [0.5]) for number in numbers]
    return pl.DataFrame(rows, schema=tables.NEIGHBOURS.schema, orient="row")


def test_a_table_is_written_anew_in_one_commit_and_not_for_nothing(lake: Lake) -> None:
    assert lake.rewrite(tables.NEIGHBOURS, lists(1, 2), 2) == Written(updated=2)
    version = lake.version(tables.NEIGHBOURS)
    assert lake.rewrite(tables.NEIGHBOURS, lists(1, 2), 0) == Written()
    assert lake.version(tables.NEIGHBOURS) == version
    lake.rewrite(tables.NEIGHBOURS, lists(2, 3, 4), 3)
    assert lake.version(tables.NEIGHBOURS) == version + 1
    assert_frame_equal(lake.read(tables.NEIGHBOURS), lists(2, 3, 4), check_row_order=False)
    with pytest.raises(SchemaMismatch, match="repeat a key"):
        lake.rewrite(tables.NEIGHBOURS, lists(5, 5), 2)
    assert lake.read(tables.NEIGHBOURS).height == 3


def test_a_table_written_anew_loses_the_columns_that_it_had_before(lake: Lake) -> None:
    before = pl.DataFrame({"listing_id": ["a"], "source": ["text"], "content": ["a hash"], "near": [["b"]]})
    before.write_delta(lake.path(tables.NEIGHBOURS))
    assert lake.read(tables.NEIGHBOURS).select("number", "source").rows() == [(None, "text")]
    lake.rewrite(tables.NEIGHBOURS, lists(1), 1)
    assert pl.read_delta(Delta(lake.path(tables.NEIGHBOURS))).schema == tables.NEIGHBOURS.schema
    assert_frame_equal(lake.read(tables.NEIGHBOURS), lists(1))
