"""The landing folder: which files a run takes, how rows are read, and what a bad file is told."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from homes import AS_A_USER, heeds_permissions
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sosie import landing
from sosie.errors import BatchRejected, SettingsError, StoreBusy
from sosie.landing import LandingFile, casting
from sosie.tables import FEED

HOUR = "2026-11-20T09"
HEADER = b"listing_id,title,updated_at\n"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GOOD = pl.DataFrame({"listing_id": ["a", "b"], "title": ["Blue mug", "Red mug"], "updated_at": [NOON, NOON]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / HOUR).mkdir()
    return tmp_path


def put(folder: Path, content: bytes | str | pl.DataFrame, name: str = f"{HOUR}/feed.csv") -> LandingFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return next(file for file in landing.files(folder, "2100-01-01T00", {}) if file.path == name)


def read_csv(folder: Path, text: bytes | str, **options: bool) -> pl.DataFrame:
    return landing.read(folder, put(folder, text), **options)


def read_parquet(folder: Path, rows: pl.DataFrame | bytes, **options: bool) -> pl.DataFrame:
    return landing.read(folder, put(folder, rows, f"{HOUR}/feed.parquet"), **options)


class TestFiles:
    def test_a_run_catches_up_and_leaves_what_others_took(self, folder: Path) -> None:
        old = put(folder, GOOD, "2026-11-20T07/a.parquet")
        put(folder, GOOD, "2026-11-20T08/b.parquet")
        put(folder, GOOD, "2026-11-20T09/a.parquet")
        put(folder, GOOD, "2026-11-20T10/a.parquet")
        done = {old.key: "2026-11-20T07"}
        assert [file.path for file in landing.files(folder, HOUR, done)] == [
            "2026-11-20T08/b.parquet",
            "2026-11-20T09/a.parquet",
        ]

    def test_an_hour_run_again_takes_its_own_files_again(self, folder: Path) -> None:
        file = put(folder, GOOD, f"{HOUR}/a.parquet")
        assert landing.files(folder, HOUR, {file.key: HOUR}) == [file]
        assert landing.files(folder, "2026-11-20T10", {file.key: HOUR}) == []

    def test_a_file_whose_content_changed_is_another_file(self, folder: Path) -> None:
        taken = put(folder, GOOD, f"{HOUR}/a.parquet")
        mended = put(folder, GOOD.head(1), f"{HOUR}/a.parquet")
        assert landing.files(folder, "2026-11-20T10", {taken.key: HOUR}) == [mended]

    def test_hours_are_told_by_folder_or_name_and_files_of_no_hour_come_first(self, folder: Path) -> None:
        for name in ("z.csv", "feed_2026-11-20T08.csv", f"{HOUR}/deep/er/x.csv.gz", f"{HOUR}/2026-11-20T06.csv"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        assert [(file.hour, file.path) for file in landing.files(folder, HOUR, {})] == [
            (None, "z.csv"),
            ("2026-11-20T06", f"{HOUR}/2026-11-20T06.csv"),
            ("2026-11-20T08", "feed_2026-11-20T08.csv"),
            (HOUR, f"{HOUR}/deep/er/x.csv.gz"),
        ]

    @pytest.mark.parametrize(
        ("path", "hour"),
        [
            ("2026-11-20T09/x.csv", "2026-11-20T09"),
            ("2026-11-20T09-15-00.csv", "2026-11-20T09"),
            ("2026-13-20T09/x.csv", None),
            ("2026-11-20T25/x.csv", None),
            ("12026-11-20T09/x.csv", None),
            ("2026-11-20/x.csv", None),
        ],
    )
    def test_only_real_hours_count(self, path: str, hour: str | None) -> None:
        assert landing.hour_of(path) == hour

    def test_pictures_unfinished_and_hidden_files_are_passed_over(self, folder: Path) -> None:
        kept = put(folder, GOOD, f"{HOUR}/a.parquet")
        for name in ("a.parquet.tmp", ".a.parquet", "_a.parquet", "_temporary/a.parquet", "pictures/a.csv", "a.jpg"):
            (folder / HOUR / name).parent.mkdir(exist_ok=True)
            (folder / HOUR / name).write_bytes(b"x")
        assert landing.files(folder, HOUR, {}) == [kept]

    def test_links_that_leave_the_landing_are_ignored_and_told(self, folder: Path, tmp_path_factory) -> None:
        outside = tmp_path_factory.mktemp("outside")
        GOOD.write_parquet(outside / "secret.parquet")
        (folder / HOUR / "link.parquet").symlink_to(outside / "secret.parquet")
        (folder / "linked").symlink_to(outside)
        with capture_logs() as logs:
            assert landing.files(folder, HOUR, {}) == []
        assert {(entry["event"], Path(entry["path"]).name) for entry in logs} == {
            ("landing_link_ignored", "link.parquet"),
            ("landing_link_ignored", "linked"),
        }

    def test_no_landing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"no landing folder .* point SOSIE_LANDING at the right one"):
            landing.files(tmp_path / "nowhere", HOUR, {})

    @heeds_permissions
    @pytest.mark.parametrize("shut", [HOUR, f"{HOUR}/feed.parquet"])
    def test_what_can_not_be_read_is_told_and_never_passed_over(self, folder: Path, shut: str) -> None:
        put(folder, GOOD, f"{HOUR}/feed.parquet")
        (folder / shut).chmod(0)
        code = f"import pathlib, sosie.landing; sosie.landing.files(pathlib.Path({str(folder)!r}), {HOUR!r}, {{}})"
        told = subprocess.run([*AS_A_USER, sys.executable, "-c", code], capture_output=True, text=True, check=False)
        last = told.stderr.splitlines()[-1]
        assert last.startswith(f"sosie.errors.StoreBusy: The landing folder {folder} can't be read in full"), told
        assert f"Permission denied: '{folder / shut}'" in last

    def test_a_file_that_changes_or_goes_after_it_was_found(self, folder: Path) -> None:
        file = put(folder, "listing_id,title,updated_at\na,b,2026-01-01\n")
        (folder / file.path).write_text("listing_id,title,updated_at\na,b,2026-01-01\nc,d,2026-01-01\n")
        with pytest.raises(StoreBusy, match=r"still being written\. Run the hour again"):
            landing.read(folder, file)
        (folder / file.path).unlink()
        with pytest.raises(StoreBusy, match="is gone from"):
            landing.read(folder, file)


class TestBadFiles:
    """Each is refused as a whole, in a sentence that says what it is and what to do."""

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            (
                "feed.parquet",
                b"listing_id,title\n1,2\n",
                "looks like CSV with the header 'listing_id,title'; export it as",
            ),
            ("feed.parquet", b"<!DOCTYPE html><html>", "looks like an HTML page (often a log-in or error page"),
            (
                "feed.parquet",
                b"Not found",
                "is no Parquet file though so named: it looks like plain text that begins 'Not f",
            ),
            ("feed.parquet", b'{"error": 500}', "looks like JSON"),
            ("feed.parquet", b"PK\x03\x04xxxx", "looks like a zip file or Excel workbook"),
            ("feed.parquet", bytes(range(128, 160)), "neither text nor a known format (first bytes 80 81 82"),
            ("feed.parquet", b"", "is empty (0 bytes); land the file again in full"),
            ("feed.csv", b"", "is empty (0 bytes)"),
            ("feed.csv", b"\n \n", "is empty (only white space)"),
            ("feed.csv", HEADER, "is empty (0 rows under its header)"),
            ("feed.csv", b"<html><body>Sign in</body></html>", "is no CSV file though so named: it looks like an HTML"),
            ("feed.csv", b"\x1f\x8b\x08\x00", "is no CSV file though so named: it looks like a gzip file"),
            ("feed.csv", HEADER + b"a,Caf\xe9,2026-01-01\n", "is not UTF-8: byte 0xe9 in line 2 can't be decoded"),
            ("feed.csv", "listing_id,title\n".encode("utf-16"), "is written in UTF-16; export it as UTF-8"),
            ("feed.csv", b"listing_id,title,title\na,b,c\n", "the header names 'title' more than once"),
            (
                "feed.csv",
                HEADER + b'a,"open,x\nb,c,x\n',
                "a quote that opens in line 2 is never closed, which swallows",
            ),
            (
                "feed.csv",
                HEADER + b'a,b,x\nc,d,"x\ne,f,x\n',
                "a quote that opens in line 3 is never closed, which swallows all 2 lines",
            ),
            (
                "feed.csv",
                b'listing_id,title,"updated_at\na,b,x\n',
                "a quote that opens in line 1 is never closed, which swallows all 2 lines",
            ),
            ("feed.csv.gz", HEADER, "is no gzip file though so named: it looks like CSV"),
            ("feed.csv.gz", gzip.compress(HEADER * 100, mtime=0)[:30], "is a truncated or damaged gzip file"),
        ],
    )
    def test_what_the_bytes_are_is_said(self, folder: Path, name: str, content: bytes, says: str) -> None:
        file = put(folder, content, f"{HOUR}/{name}")
        with pytest.raises(BatchRejected, match=re.escape(says)) as caught:
            landing.read(folder, file)
        assert str(caught.value).startswith(f"{HOUR}/{name}")

    @pytest.mark.parametrize("name", ["feed.csv", "feed.csv.gz"])
    def test_more_bytes_than_the_setting_allows_are_not_read(self, folder: Path, name: str) -> None:
        text = HEADER + b"a,Blue mug,2026-11-20T12:00:00Z\n" * 1_000_000
        file = put(folder, gzip.compress(text, 1) if name.endswith(".gz") else text, f"{HOUR}/{name}")
        del text
        tracemalloc.start()
        try:
            with pytest.raises(
                BatchRejected, match=rf"{name} has more than 1,000,000 bytes.*validation\.max_file_bytes"
            ):
                landing.read(folder, file, max_bytes=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()

    def test_parquet_that_grows_when_it_is_unpacked_is_not_read(self, folder: Path) -> None:
        said = "validation.max_file_bytes"
        alike = pl.DataFrame({"listing_id": [f"{n:04}" for n in range(1_000)], "title": "mug", "updated_at": NOON})
        cases = {
            "pressed": alike.with_columns(description=pl.col("listing_id").repeat_by(100).list.join("")),
            "many": alike.with_columns(pl.lit(None, pl.String).alias(name) for name in ("brand", "gtin", "category")),
            "dictionary": alike.with_columns(description=pl.lit("word " * 100)),
        }
        for name, rows in cases.items():
            file = put(folder, rows, f"{HOUR}/{name}.parquet")
            assert landing.read(folder, file, max_bytes=10_000_000).height == 1_000
            with pytest.raises(BatchRejected, match=said):
                landing.read(folder, file, max_bytes=max(file.bytes, 40_000))

    def test_parquet_that_is_cut_short_damaged_or_without_rows(self, folder: Path) -> None:
        whole = folder / "whole"
        GOOD.write_parquet(whole)
        data = whole.read_bytes()
        with pytest.raises(
            BatchRejected, match=r"is a truncated Parquet file: .* bytes, and its closing mark is missing"
        ):
            read_parquet(folder, data[: len(data) // 2])
        with pytest.raises(BatchRejected, match="is a damaged Parquet file"):
            read_parquet(folder, data[:4] + bytes(len(data) - 8) + data[-4:])
        with pytest.raises(BatchRejected, match=r"is empty \(0 rows\); leave the file out"):
            read_parquet(folder, GOOD.clear())

    def test_a_missing_column_is_named_with_what_was_perhaps_meant(self, folder: Path) -> None:
        with pytest.raises(BatchRejected) as caught:
            read_csv(folder, "listing_id,tittle,updated_at\na,Mug,2026-01-01\n")
        assert str(caught.value) == (
            f"{HOUR}/feed.csv lacks the mandatory column title; it has listing_id, tittle, updated_at. "
            "Is 'tittle' meant to be 'title'? Add or rename what is missing and land the file again."
        )

    def test_schema_drift_is_refused_and_can_be_allowed(self, folder: Path) -> None:
        drifted = GOOD.with_columns(colour=pl.lit("blue"), desciption=pl.lit("x"))
        with pytest.raises(BatchRejected) as caught:
            read_parquet(folder, drifted)
        message = str(caught.value)
        assert "has 2 columns that a feed does not have: colour, desciption." in message
        assert "Is 'desciption' meant to be 'description'?" in message
        assert "SOSIE_VALIDATION__ALLOW_EXTRA_COLUMNS=true" in message
        rows = read_parquet(folder, drifted, allow_extra_columns=True)
        assert "colour" not in rows.columns
        assert json.loads(rows["row"][0])["colour"] == "blue"

    @pytest.mark.parametrize(
        ("column", "value", "says"),
        [
            ("title", [0.1, 0.2], r"column title holds List\(Float64\) in every row where text should be"),
            ("price", True, "column price holds Boolean in every row where numbers should be"),
            ("updated_at", True, "column updated_at holds Boolean in every row where timestamps should be"),
            ("is_deleted", NOON, "column is_deleted holds Datetime.* in every row where true or false should be"),
        ],
    )
    def test_a_column_of_another_kind(self, folder: Path, column: str, value: object, says: str) -> None:
        wrong = GOOD.with_columns(pl.Series(column, [value, value]))
        with pytest.raises(BatchRejected, match=says):
            read_parquet(folder, wrong)


class TestRows:
    def test_parquet_rows(self, folder: Path) -> None:
        rows = read_parquet(folder, GOOD)
        assert rows.schema == landing.empty().schema
        assert rows.select("source_file", "row_number").rows() == [
            (f"{HOUR}/feed.parquet", 0),
            (f"{HOUR}/feed.parquet", 1),
        ]
        assert rows.select(GOOD.columns).equals(GOOD)
        assert rows["is_deleted"].to_list() == [False, False]
        assert rows["cast_faults"].to_list() == [[], []]
        first = json.loads(rows["row"][0])
        assert datetime.fromisoformat(first.pop("updated_at")) == NOON
        assert first == {"listing_id": "a", "title": "Blue mug"}

    def test_what_can_not_be_cast_is_named(self, folder: Path) -> None:
        rows = read_csv(
            folder, "listing_id,title,price,updated_at,is_deleted\na,Mug,abc,yesterday,perhaps\nb,Mug,1.5,2026-01-01,\n"
        )
        assert rows["cast_faults"].to_list() == [["price: abc", "updated_at: yesterday", "is_deleted: perhaps"], []]
        assert rows["price"].to_list() == [None, 1.5]
        assert rows["is_deleted"].to_list() == [False, False]
        assert json.loads(rows["row"][0])["price"] == "abc"

    @pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
    def test_csv_of_every_delimiter(self, folder: Path, mark: str) -> None:
        table = [["listing_id", "title", "updated_at"], ["a", '"x, ""y"""', "2026-01-01"], []]
        text = "\ufeff" + "\r\n".join(mark.join(row) for row in table)
        assert read_csv(folder, text).select("listing_id", "title").rows() == [("a", 'x, "y"')]

    @pytest.mark.parametrize("name", ["FEED.PARQUET", "FEED.CSV", "FEED.CSV.GZ"])
    def test_a_name_in_capitals_is_read_like_any_other(self, folder: Path, name: str) -> None:
        text = b"listing_id,title,updated_at\na,Blue mug,2026-01-01\nb,Red mug,2026-01-01\n"
        content = {"FEED.PARQUET": GOOD, "FEED.CSV": text, "FEED.CSV.GZ": gzip.compress(text)}[name]
        assert landing.read(folder, put(folder, content, f"{HOUR}/{name}"))["title"].to_list() == [
            "Blue mug",
            "Red mug",
        ]

    def test_a_nul_character_is_a_fault_of_its_row_alone(self, folder: Path) -> None:
        rows = read_csv(folder, "listing_id,title,updated_at\na,Mug,2026-01-01\nb,M\0g,2026-01-01\n")
        assert rows["cast_faults"].to_list() == [[], ["row: a NUL character (line 3)"]]

    def test_a_field_may_be_of_any_length(self, folder: Path) -> None:
        long = "a kettle, " * 20_000
        rows = read_csv(folder, f'listing_id,title,updated_at,description\na,Kettle,2026-01-01,"{long}"\n')
        assert rows["description"].to_list() == [long]

    def test_a_title_is_composed_however_it_came(self, folder: Path) -> None:
        rows = read_csv(folder, "listing_id,title,updated_at\na,Cafe\u0301,2026-01-01\nb,Caf\u00e9,2026-01-01\n")
        assert rows["title"].to_list() == ["Caf\u00e9"] * 2

    def test_gzipped_csv(self, folder: Path) -> None:
        file = put(folder, gzip.compress(b"listing_id,title,updated_at\na,Mug,2026-01-01\n"), f"{HOUR}/feed.csv.gz")
        assert landing.read(folder, file)["title"].to_list() == ["Mug"]

    def test_rows_with_too_many_or_too_few_fields_are_kept_and_named(self, folder: Path) -> None:
        rows = read_csv(folder, "listing_id,title,updated_at\na,Mug, blue,2026-01-01\nb,Mug\nc,Mug,2026-01-01\n")
        assert rows["cast_faults"][0][0] == "row: 4 fields where the header names 3 (line 2)"
        assert rows["cast_faults"][1].to_list() == ["row: 2 fields where the header names 3 (line 3)"]
        assert rows["cast_faults"][2].to_list() == []
        assert json.loads(rows["row"][0])["_surplus"] == '["2026-01-01"]'
        assert json.loads(rows["row"][2]) == {"listing_id": "c", "title": "Mug", "updated_at": "2026-01-01"}

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    @pytest.mark.parametrize("row", ['b,"Mug\nblue",2026-01-01,x', 'b,"Mug\n5"" tall","2026-01-01\n",x', 'b,5",x,"\n"'])
    def test_a_last_row_of_several_lines_is_put_aside_like_any_other(self, folder: Path, row: str, end: str) -> None:
        rows = read_csv(folder, f"listing_id,title,updated_at\na,Mug,2026-01-01\n{row}{end}")
        told = rows["cast_faults"].list.first().to_list()
        assert told == [None, "row: 4 fields where the header names 3 (line 3)"]

    def test_rows_of_several_lines_with_too_many_fields_are_read_in_one_pass(self, folder: Path) -> None:
        text = HEADER.decode() + 'a,"Mug\nblue",2026-01-01,x\n' * 40_000 + "b,Mug,2026-01-01\n"
        started = time.process_time()
        assert read_csv(folder, text).height == 40_001
        assert time.process_time() - started < 5

    @pytest.mark.parametrize(
        "given",
        [
            "2026-11-20T12:00:00Z",
            "2026-11-20T14:00:00+02:00",
            "2026-11-20T14:00:00+0200",
            "2026-11-20 12:00:00",
            "2026-11-20T12:00",
            "1795176000",
            "1795176000000",
            "1795176000.0",
            1795176000,
            1795176000000000,
            1795176000000000000,
            datetime(2026, 11, 20, 12),
            NOON,
        ],
    )
    def test_timestamps_of_every_spelling_are_utc(self, given: object) -> None:
        rows = casting.cast(pl.DataFrame({"listing_id": ["a"], "title": ["x"], "updated_at": [given]}))
        assert rows["updated_at"].to_list() == [NOON]
        assert rows["cast_faults"][0].to_list() == []

    def test_dates_are_midnight(self) -> None:
        rows = casting.cast(pl.DataFrame({"updated_at": [date(2026, 11, 20)]}))
        assert rows["updated_at"].to_list() == [datetime(2026, 11, 20, tzinfo=UTC)]

    @pytest.mark.parametrize(
        ("column", "given", "value", "faults"),
        [
            ("listing_id", 123, "123", []),
            ("listing_id", 123.0, "123", []),
            ("listing_id", b"abc", "abc", []),
            ("title", b"\xff\xfe", None, ["title: \\xff\\xfe"]),
            ("gtin", 36000291452, "036000291452", []),
            ("gtin", 4006381333931.0, "4006381333931", []),
            ("gtin", "4-006381 333931", "4006381333931", []),
            ("gtin", " ", None, []),
            ("price", " 3.50 ", 3.5, []),
            ("price", Decimal("3.50"), 3.5, []),
            ("price", "", None, []),
            ("price", "1,200", None, ["price: 1,200"]),
            ("currency", " eur", "EUR", []),
            ("brand", "  ", None, []),
            ("title", "  ", "  ", []),
            ("is_deleted", "Yes", True, []),
            ("is_deleted", 0, False, []),
            ("is_deleted", 1.0, True, []),
            ("is_deleted", None, False, []),
            ("is_deleted", 7, False, ["is_deleted: 7"]),
            ("updated_at", "99999999999999999999999", None, ["updated_at: 99999999999999999999999"]),
            ("updated_at", "2026-02-30", None, ["updated_at: 2026-02-30"]),
        ],
    )
    def test_lenient_casts(self, column: str, given: object, value: object, faults: list[str]) -> None:
        rows = casting.cast(pl.DataFrame({column: [given]}))
        assert rows[column].to_list() == [value]
        assert rows["cast_faults"][0].to_list() == faults

    def test_json_loses_no_number(self) -> None:
        rows = casting.cast(pl.DataFrame({"price": [1.0, float("nan"), float("inf"), None]}))
        assert [json.loads(row)["price"] for row in rows["row"]] == [1.0, "NaN", "inf", None]

    def test_json_of_strange_types(self) -> None:
        raw = pl.DataFrame({"title": [b"ok"], "extra": [[b"\xff"]], "pair": [{"x": date(2026, 1, 1)}]})
        assert json.loads(casting.cast(raw)["row"][0]) == {
            "title": "ok",
            "extra": '["\\\\xff"]',
            "pair": '{"x": "2026-01-01"}',
        }

    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "listing_id": st.text(max_size=8),
                    "title": st.none() | st.text(max_size=12),
                    "price": st.none() | st.text("0123456789.-enaif", max_size=6),
                    "updated_at": st.none() | st.datetimes(timezones=st.just(UTC)).map(str) | st.text(max_size=12),
                    "is_deleted": st.none() | st.sampled_from(["true", "no", "maybe", "1"]),
                }
            ),
            min_size=1,
            max_size=10,
        )
    )
    def test_casting_keeps_every_row_and_all_that_it_said(self, records: list[dict[str, str | None]]) -> None:
        raw = pl.DataFrame(records, schema=dict.fromkeys(records[0], pl.String))
        rows = casting.cast(raw)
        assert rows.height == len(records)
        assert [json.loads(row) for row in rows["row"]] == records
        for record, row in zip(records, rows.iter_rows(named=True), strict=True):
            named = {fault.split(":")[0] for fault in row["cast_faults"]}
            for column in ("price", "updated_at"):
                stated = bool(pl.Series([record[column] or ""]).str.strip_chars().item())
                assert (column in named) == (stated and row[column] is None)

    def test_a_picture_folder_copied_into_the_landing_changes_nothing(self, folder: Path) -> None:
        file = put(folder, GOOD, f"{HOUR}/a.parquet")
        shutil.copytree(folder / HOUR, folder / "pictures")
        assert landing.files(folder, HOUR, {}) == [file]

    def test_empty_has_every_column(self) -> None:
        assert landing.empty().columns == [*FEED, "source_file", "row_number", "row", "cast_faults"]
