"""Copies that are mapped into memory say what their Parquet files say."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from structlog.testing import capture_logs

from sosie import decoded, tables
from sosie.lake import Lake
from sosie.tables import TEXT_EMBEDDINGS
from sosie.upkeep.delta import compact


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def rows(*ids: str, value: float = 1.0, stamp: str = "v1") -> pl.DataFrame:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    return pl.DataFrame(
        {
            "listing_id": ids,
            "vector": [[value] * tables.DIM] * len(ids),
            "content_hash": [f"hash-{one}" for one in ids],
            "embedding_version": stamp,
            "event_timestamp": at,
            "created_timestamp": at,
        },
        schema=TEXT_EMBEDDINGS.schema,
    )


def copies(lake: Lake) -> list[Path]:
    return sorted(Path(lake.uri).glob(f"_decoded/{TEXT_EMBEDDINGS.name}/*"))


def same(lake: Lake, stamp: str) -> None:
    mapped = lake.mapped(TEXT_EMBEDDINGS, embedding_version=stamp)
    read = lake.read(TEXT_EMBEDDINGS, pl.col("embedding_version") == stamp)
    assert_frame_equal(mapped, read, check_row_order=False)


def test_a_table_is_mapped_as_it_is_read_whatever_was_done_to_it(lake: Lake) -> None:
    same(lake, "v1")
    assert copies(lake) == []
    lake.append(TEXT_EMBEDDINGS, rows("a", "b"))
    lake.append(TEXT_EMBEDDINGS, rows("a", stamp="v2"))
    same(lake, "v1")
    assert len(copies(lake)) == 1, "no file of another partition was decoded"
    same(lake, "v2")
    lake.append(TEXT_EMBEDDINGS, rows("c", value=2.0))
    lake.upsert(TEXT_EMBEDDINGS, rows("a", value=3.0))
    lake.delete(TEXT_EMBEDDINGS, rows("b").select("listing_id"))
    for stamp in ("v1", "v2"):
        same(lake, stamp)
    compact(lake, TEXT_EMBEDDINGS, 0)
    assert len(copies(lake)) <= 1, "what upkeep deletes leaves no copy"
    same(lake, "v1")
    same(lake, "v2")
    assert len(copies(lake)) == 2


def test_a_file_is_decoded_once(lake: Lake) -> None:
    lake.append(TEXT_EMBEDDINGS, rows("a", "b"))
    same(lake, "v1")
    [copy] = copies(lake)
    before = copy.stat().st_mtime_ns
    same(lake, "v1")
    assert copy.stat().st_mtime_ns == before
    copy.unlink()
    same(lake, "v1")
    assert copies(lake) == [copy]


@pytest.mark.parametrize(
    "torn", [lambda _: b"", lambda whole: whole[:8], lambda whole: whole[:-400] + bytes(390) + whole[-10:]]
)
def test_a_copy_that_was_torn_is_made_again(lake: Lake, torn: Callable[[bytes], bytes]) -> None:
    lake.append(TEXT_EMBEDDINGS, rows("a", "b"))
    same(lake, "v1")
    [copy] = copies(lake)
    whole = copy.read_bytes()
    copy.write_bytes(torn(whole))
    same(lake, "v1")
    assert copy.read_bytes() == whole


def test_a_copy_with_other_columns_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "part-0.parquet"
    pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}).write_parquet(file)
    first = decoded.frame(str(file), tmp_path / "copies", pl.Schema({"a": pl.Int64}))
    assert first.to_dict(as_series=False) == {"a": [1, 2]}
    wanted = pl.Schema({"a": pl.Int64, "b": pl.String, "later": pl.Float32})
    found = decoded.frame(str(file), tmp_path / "copies", wanted)
    assert found.to_dict(as_series=False) == {"a": [1, 2], "b": ["x", "y"], "later": [None, None]}
    assert first["a"].to_list() == [1, 2], "who has mapped a copy keeps it"


def test_what_a_dead_writer_left_is_deleted_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    left, busy = folder / "left.partial", folder / "busy.partial"
    left.touch()
    busy.touch()
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(left, (long_ago, long_ago))
    decoded.forget(folder, [])
    assert sorted(folder.iterdir()) == [busy]


def test_a_file_is_read_where_no_copy_of_it_can_be_written(tmp_path: Path) -> None:
    file, folder = tmp_path / "part-0.parquet", tmp_path / "copies"
    pl.DataFrame({"a": [1]}).write_parquet(file)
    folder.write_text("a file where the folder belongs")
    with capture_logs() as told:
        assert decoded.frame(str(file), folder, pl.Schema({"a": pl.Int64}))["a"].to_list() == [1]
    [warning] = told
    assert warning["log_level"] == "warning"
    assert "can't be written; make room or mend the rights" in warning["event"]


def test_only_partitions_part_a_table(lake: Lake) -> None:
    with pytest.raises(ValueError, match="no partitions by listing_id"):
        lake.mapped(TEXT_EMBEDDINGS, listing_id="a")


def test_types_are_the_tables_whatever_the_files_have(tmp_path: Path) -> None:
    file = tmp_path / "part-0.parquet"
    pl.DataFrame({"a": [1]}, schema={"a": pl.Int64}).write_parquet(file)
    found = decoded.frame(str(file), tmp_path / "copies", pl.Schema({"a": pl.Int32}))
    assert found.schema == {"a": pl.Int32}
