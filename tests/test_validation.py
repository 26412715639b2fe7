"""Good rows apart from bad, when a batch is refused as a whole, and that nothing is lost on the way."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sosie.errors import BatchRejected
from sosie.landing import casting
from sosie.settings import Validation
from sosie.tables import QUARANTINE, TIMESTAMP
from sosie.validation import ACCEPTED, Validated, suite, validate
from sosie.validation.batch import usual_rows
from sosie.validation.gtin import is_valid
from sosie.validation.rules import Limits, currencies

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
FILE = "2026-11-20T09/feed.parquet"
ROW_RULES = Validation(max_bad_share=1)  # so that a test can look at bad rows alone


def listing(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "listing_id": f"L{number}",
        "title": f"Blue mug {number}",
        "gtin": "4006381333931",
        "category": "kitchen",
        "price": 9.5,
        "currency": "EUR",
        "image_phash": "0123456789abcdef",
        "updated_at": "2026-11-20T09:00:00Z",
        "is_deleted": False,
    } | changes


def landed(*rows: dict[str, Any], file: str = FILE, **extra: Any) -> pl.DataFrame:
    """Rows as `landing.read` and the picture inspection give them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    raw = pl.DataFrame(
        list(rows), schema={name: pl.Float64 if name == "price" else None for name in names}, strict=False
    )
    defaults = {"image_hash": "f" * 64, "picture_fault_rule": None, "picture_fault_detail": None} | extra
    return (
        casting.cast(raw)
        .with_row_index("row_number")
        .with_columns(
            pl.lit(file).alias("source_file"),
            pl.col("row_number").cast(pl.Int64),
            *(pl.lit(value, dtype=pl.String).alias(name) for name, value in defaults.items()),
        )
    )


def check(rows: pl.DataFrame, rules: Validation = ROW_RULES, **options: Any) -> Validated:
    validated = validate(rows, rules=rules, now=NOW, **options)
    assert_adds_up(rows, validated)
    return validated


def assert_adds_up(rows: pl.DataFrame, validated: Validated) -> None:
    place = ["source_file", "row_number"]
    accepted = set(validated.accepted.select(place).rows())
    entries = set(validated.quarantined.select(place).rows())
    assert rows.height == validated.accepted.height + validated.rejected
    assert accepted | entries == set(rows.select(place).rows()), "a row is neither accepted nor quarantined"
    assert len(entries - accepted) == validated.rejected
    assert validated.quarantined.select(*place, "rule").is_duplicated().sum() == 0
    of_the_run = {"run_id", "replayed_run"}
    assert validated.quarantined.schema == {
        name: dtype for name, dtype in QUARANTINE.columns.items() if name not in of_the_run
    }
    assert validated.accepted.schema == ACCEPTED
    required = QUARANTINE.required - of_the_run
    assert not validated.quarantined.select(pl.col(sorted(required)).is_null().any()).row(0).count(True)


def counts(validated: Validated) -> Counter[str]:
    """Entries of the quarantine by rule."""
    return Counter(validated.quarantined["rule"])


def rules_broken(rows: pl.DataFrame) -> Counter[str]:
    """Rows that break a rule, by rule, those that are only warned of too."""
    return Counter(suite.check(rows, Limits(ROW_RULES, NOW), None).broken["rule"])


class TestRows:
    """One bad row among good ones: which rule, what is said, and that the good ones go on."""

    CASES = (
        ("listing_id_present", {"listing_id": None}, "listing_id is missing; it must be there"),
        ("listing_id_not_blank", {"listing_id": "  "}, "listing_id is '  '; it must not be blank"),
        ("listing_id_length", {"listing_id": "é" * 257}, "…' (257 characters); it must have at most 512 bytes"),
        ("title_present", {"title": None}, "title is missing; it must be there"),
        ("title_not_blank", {"title": "\t "}, "title is '\t '; it must not be blank"),
        ("title_not_blank", {"title": 'b""'}, "title is 'b\"\"'; it must not be blank"),
        ("title_not_blank", {"title": "\u200b\u200d"}, "it must not be blank"),
        ("title_length", {"title": "é" * 501}, "…' (501 characters); it must have at most 500 characters"),
        ("title_length", {"title": ""}, "title is ''"),
        ("price_range", {"price": -0.01}, "price is -0.01; it must be finite, and 0 or more"),
        ("price_range", {"price": float("inf")}, "price is inf"),
        ("price_range", {"price": float("-inf")}, "price is -inf"),
        ("price_range", {"price": float("nan")}, "price is NaN"),
        ("currency_code", {"currency": "EURO"}, "currency is 'EURO'; it must be an ISO 4217 code"),
        ("currency_code", {"currency": "DEM"}, "currency is 'DEM'"),
        ("updated_at_present", {"updated_at": None}, "updated_at is missing; it must be there"),
        ("updated_at_not_ancient", {"updated_at": "0001-01-01T00:00:00Z"}, "it must not be before 1990-01-01"),
        ("updated_at_not_ancient", {"updated_at": "45988.66667"}, "updated_at is 1970-01-01 12:46:28 UTC; it must not"),
        ("updated_at_not_future", {"updated_at": "2026-11-20T09:41:00Z"}, "it must not be after 2026-11-20 09:40 UTC"),
        ("updated_at_not_future", {"updated_at": "9999-12-31T23:59:59Z"}, "updated_at is 9999-12-31 23:59:59 UTC; it"),
        ("castable", {"updated_at": "yesterday"}, "could not be read as their columns' types: updated_at: yesterday"),
        ("castable", {"is_deleted": "perhaps"}, "is_deleted: perhaps"),
    )  # fmt: skip

    @pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{rule}-{i}" for i, (rule, _, _) in enumerate(CASES)])
    def test_a_bad_row(self, validated: Validated, case: int) -> None:
        rule, _, says = self.CASES[case]
        entries = validated.quarantined.filter(pl.col("row_number") == case + 1).rows(named=True)
        broken = {entry["rule"]: entry for entry in entries}
        assert rule in broken, broken
        assert says in broken[rule]["detail"]
        assert broken[rule]["row"].startswith('{"listing_id":')
        assert set(broken) == {rule} or case == [c[1] for c in self.CASES].index({"title": ""})

    def test_good_rows_go_on(self, validated: Validated) -> None:
        assert validated.accepted["listing_id"].to_list() == ["L0", "L99"]
        assert validated.rejected == len(self.CASES)

    def test_every_broken_rule_of_a_row_is_told(self) -> None:
        validated = check(landed(listing(title=None, price=-1.0, currency="XX")))
        assert validated.quarantined["rule"].to_list() == ["currency_code", "price_range", "title_present"]
        assert counts(validated) == {"currency_code": 1, "price_range": 1, "title_present": 1}
        assert validated.rejected == 1

    def test_what_may_be_left_out(self) -> None:
        bare = {"listing_id": "a", "title": "Mug", "updated_at": "2026-11-20T09:39:59Z"}
        rows = landed(bare, image_hash=None)
        validated = check(rows)
        assert (validated.accepted.height, counts(validated), rules_broken(rows)) == (1, {}, {})

    def test_a_price_without_currency_is_only_warned_of(self) -> None:
        rows = landed(listing(1, currency=None), listing(2))
        validated = check(rows)
        assert (validated.accepted.height, counts(validated), rules_broken(rows)) == (2, {}, {"currency_present": 1})

    def test_categories_are_free_unless_given(self) -> None:
        rows = landed(listing(1), listing(2, category="gardn"), listing(3, category=None))
        assert check(rows).accepted.height == 3
        validated = check(rows, Validation(max_bad_share=1, categories=("kitchen", "garden")))
        assert validated.accepted["listing_id"].to_list() == ["L1", "L3"]
        assert validated.quarantined["detail"].to_list() == [
            "category is 'gardn'; it must be one of the known categories (validation.categories)"
        ]

    def test_a_delete_needs_only_its_id_and_time(self) -> None:
        bare = {"title": None, "price": -1.0, "currency": "??", "is_deleted": True}
        rows = landed(
            listing(1, **bare), listing(2, **bare | {"updated_at": None}), listing(None, **bare | {"listing_id": None})
        )
        validated = check(rows)
        assert validated.accepted["listing_id"].to_list() == ["L1"]
        assert counts(validated) == {"listing_id_present": 1, "updated_at_present": 1}

    def test_a_delete_with_a_price_that_can_not_be_read_still_deletes(self) -> None:
        rows = landed(listing(1, is_deleted=True), listing(2)).with_columns(cast_faults=pl.lit(["price: abc"]))
        assert check(rows).accepted["listing_id"].to_list() == ["L1"]


@pytest.fixture(scope="module")
def validated() -> Validated:
    """All cases in one batch: a validation has a fixed cost."""
    broken = [changes for _, changes, _ in TestRows.CASES]
    return check(landed(listing(0), *(listing(i, **changes) for i, changes in enumerate(broken, 1)), listing(99)))


class TestFields:
    """A broken field is emptied and told; the listing goes on."""

    def test_a_bad_gtin(self) -> None:
        validated = check(
            landed(listing(1, gtin="4006381333932"), listing(2), listing(3, gtin="12AB"), listing(4, gtin=None))
        )
        assert validated.accepted["gtin"].to_list() == [None, "4006381333931", None, None]
        assert counts(validated) == {"gtin_check_digit": 2}
        assert validated.quarantined["detail"][0] == (
            "gtin is '4006381333932'; it must be 8, 12, 13 or 14 digits that end in their check digit"
        )
        assert validated.rejected == 0

    def test_a_bad_picture_hash(self) -> None:
        validated = check(landed(listing(1, image_phash="xyz"), listing(2)))
        assert validated.accepted["image_phash"].to_list() == [None, "0123456789abcdef"]
        assert counts(validated) == {"image_phash_hex": 1}

    def test_a_bad_picture(self) -> None:
        fault = {"picture_fault_rule": "picture_too_large", "picture_fault_detail": "50.0 megapixels; 40 are allowed"}
        rows = pl.concat([landed(listing(1), file="a", **fault, image_hash=None), landed(listing(2), file="b")])
        validated = check(rows)
        assert validated.accepted["image_hash"].to_list() == [None, "f" * 64]
        assert validated.quarantined.select("rule", "detail", "listing_id").rows() == [
            ("picture_too_large", "50.0 megapixels; 40 are allowed", "L1")
        ]

    def test_pictures_never_refuse_a_batch(self) -> None:
        rows = landed(*map(listing, range(30)), picture_fault_rule="picture_missing", image_hash=None)
        validated = check(rows, Validation(max_bad_share=0))
        assert validated.accepted.height == 30
        assert counts(validated) == {"picture_missing": 30}

    @pytest.mark.parametrize(
        ("code", "valid"),
        [
            ("96385074", True), ("036000291452", True), ("4006381333931", True), ("10012345678902", True),
            ("96385075", False), ("036000291453", False), ("123", False), ("0000000000000", False),
            ("400638133393x", False), ("", False), ("４００６３８１３３３９３１", False), (None, None),
        ],
    )  # fmt: skip
    def test_check_digits(self, code: str | None, valid: bool | None) -> None:
        assert pl.select(is_valid(pl.lit(code, dtype=pl.String))).item() is valid

    @given(st.sampled_from([8, 12, 13, 14]), st.data())
    def test_exactly_one_check_digit_fits(self, length: int, data: st.DataObject) -> None:
        body = data.draw(
            st.text("0123456789", min_size=length - 1, max_size=length - 1).filter(lambda text: set(text) != {"0"})
        )
        valid = pl.DataFrame({"code": [f"{body}{digit}" for digit in range(10)]}).select(is_valid(pl.col("code")))
        assert valid["code"].sum() == 1

    def test_currencies_are_those_in_use(self) -> None:
        assert {"EUR", "USD", "IDR", "MYR", "SGD", "JPY"} <= set(currencies())
        assert not {"DEM", "FRF", "XXX", "XAU"} & set(currencies())


class TestRepeatedIds:
    def test_the_newest_stays(self) -> None:
        rows = landed(
            listing(1, title="old", updated_at="2026-11-20T07:00:00Z"),
            listing(2),
            listing(1, title="new", updated_at="2026-11-20T09:00:00Z"),
            listing(1, title="older", updated_at="2026-11-20T06:00:00Z"),
        )
        validated = check(rows)
        assert validated.accepted["title"].to_list() == ["Blue mug 2", "new"]
        assert counts(validated) == {"listing_id_unique": 2}
        assert (
            validated.quarantined["detail"][0]
            == "listing_id 'L1' is also in row 2, which is newer (2026-11-20 09:00:00)"
        )

    def test_of_exact_copies_one_stays(self) -> None:
        validated = check(landed(listing(1), listing(1), listing(1)))
        assert validated.accepted["row_number"].to_list() == [0]
        assert validated.quarantined["detail"][0] == "listing_id 'L1' is there already: an exact copy of row 0"

    def test_of_contradictions_none_stays(self) -> None:
        validated = check(landed(listing(1, price=1.0), listing(1, price=2.0), listing(2)))
        assert validated.accepted["listing_id"].to_list() == ["L2"]
        assert validated.quarantined["detail"].unique().to_list() == [
            "listing_id 'L1' is in rows 0, 1 with the same updated_at (2026-11-20 09:00:00) and different content; "
            "none of them can be trusted"
        ]

    def test_a_bad_row_does_not_oust_a_good_one(self) -> None:
        rows = landed(listing(1, updated_at="2026-11-20T08:00:00Z"), listing(1, price=-1.0))
        validated = check(rows)
        assert validated.accepted["row_number"].to_list() == [0]
        assert counts(validated) == {"price_range": 1}

    def test_several_files_may_speak_of_one_listing(self) -> None:
        rows = pl.concat([landed(listing(1), file="a.csv"), landed(listing(1, title="later"), file="b.csv")])
        assert check(rows).accepted["title"].to_list() == ["Blue mug 1", "later"]


class TestBatch:
    def test_too_many_bad_rows(self) -> None:
        bad = [*(listing(i, price=-5.0) for i in range(6)), *(listing(i, title=None) for i in range(6, 8))]
        rows = landed(*bad, *map(listing, range(8, 30)))
        with pytest.raises(BatchRejected) as caught:
            validate(rows, rules=Validation(), now=NOW)
        assert str(caught.value) == (
            f"{FILE}: 8 of 30 rows (26.7%) break a rule, above the limit of 20.0% (validation.max_bad_share); nothing "
            f"was changed. Broken: price_range in 6 (for instance row 0 of {FILE}: price is -5.0; it must be finite, "
            f"and 0 or more); title_present in 2 (for instance row 6 of {FILE}: title is missing; it must be there). "
            "Mend the feed and land it again; if these rows are to be left out, run the hour again with "
            "SOSIE_VALIDATION__MAX_BAD_SHARE=0.28."
        )

    def test_the_share_at_its_limit_and_below_enough_rows(self) -> None:
        bad = [listing(i, price=-5.0) for i in range(6)]
        at_limit = landed(*bad, *map(listing, range(6, 30)))
        assert check(at_limit, Validation(max_bad_share=0.2)).rejected == 6
        few = landed(*bad, *map(listing, range(6, 19)))
        assert check(few, Validation(max_bad_share=0.2)).rejected == 6

    def test_what_the_message_proposes_lets_the_batch_through(self) -> None:
        rows = landed(*(listing(i, price=-5.0 if i % 3 else 1.0) for i in range(40)))
        with pytest.raises(BatchRejected) as caught:
            validate(rows, rules=Validation(), now=NOW)
        proposed = re.search(r"MAX_BAD_SHARE=([\d.]+)\.", str(caught.value)).group(1)
        assert check(rows, Validation(max_bad_share=float(proposed))).rejected == 26

    def test_too_few_rows_for_the_median(self) -> None:
        rows = landed(*map(listing, range(10)))
        with pytest.raises(BatchRejected) as caught:
            validate(rows, rules=Validation(), now=NOW, trailing_row_counts=[900, 1000, 1100])
        assert str(caught.value) == (
            f"{FILE}: 10 rows are fewer than the 100 that validation.min_rows_of_median (0.1 × the median of the last "
            "runs) allows; nothing was changed. Look whether the export broke off; if this is what the hour held, run "
            "it again with SOSIE_VALIDATION__MIN_ROWS_OF_MEDIAN=0.0099."
        )
        assert check(rows, Validation(min_rows_of_median=0.0099), trailing_row_counts=[900, 1000, 1100]).rejected == 0

    def test_too_many_rows_for_the_median(self) -> None:
        rows = landed(*map(listing, range(60)))
        with pytest.raises(BatchRejected) as caught:
            validate(rows, rules=Validation(), now=NOW, trailing_row_counts=[5, 5, 5])
        assert str(caught.value) == (
            f"{FILE}: 60 rows are more than the 50 that validation.max_rows_of_median (10 × the median of the last "
            "runs) allows; nothing was changed. Look whether the export was written twice; if this is what the hour "
            "held, run it again with SOSIE_VALIDATION__MAX_ROWS_OF_MEDIAN=12.12."
        )
        assert check(rows, Validation(max_rows_of_median=12.12), trailing_row_counts=[5, 5, 5]).rejected == 0

    def test_the_median_needs_three_runs_and_forgets_old_ones(self) -> None:
        rows = landed(*map(listing, range(10)))
        assert usual_rows(rows, [1000, 1000], Validation()) is None
        assert usual_rows(rows, [1000, 1000, 0, 0], Validation()) is None
        assert usual_rows(rows, [1000] * 9 + [10] * 3, Validation(median_over_runs=3)) == (1, 100)

    def test_catching_up_on_several_hours_is_not_too_many_rows(self) -> None:
        hours = [landed(*map(listing, range(60)), file=f"2026-11-20T0{hour}/feed.csv") for hour in (7, 8)]
        assert usual_rows(pl.concat(hours), [10, 10, 10], Validation()) == (1, 200)

    def test_an_hour_without_rows(self, tmp_path: Path) -> None:
        validated = check(landed(listing()).clear(), trailing_row_counts=[1000] * 5, docs=tmp_path)
        assert (validated.accepted.height, validated.quarantined.height, validated.rejected) == (0, 0, 0)
        assert not list(tmp_path.iterdir()), "no page of nothing"

    def test_a_rule_that_can_not_be_checked_accepts_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = suite._checked_frame
        monkeypatch.setattr(suite, "_checked_frame", lambda rows: whole(rows).drop(columns="checked_price"))
        with pytest.raises(BatchRejected, match=r"Rule price_range could not be checked \(.*checked_price.*\); no row"):
            validate(landed(listing()), rules=Validation(), now=NOW)


class TestDocs:
    def test_pages_are_written_and_show_what_broke(self, tmp_path: Path) -> None:
        folder = tmp_path / "2026-11-20T09" / "data_docs"
        rows = landed(*(listing(i, price=-5.0) for i in range(300)), *map(listing, range(300, 310)))
        check(rows, docs=folder)
        (page,) = (file for file in folder.rglob("*") if file.is_file())
        assert page == folder / "validations" / "listings.html"
        text = page.read_text()
        assert "300 unexpected values found" in text
        assert "2026-11-20T09" in text
        assert 'href="..' not in text, "it stands alone"
        assert len(text) < 200_000

        check(rows, docs=folder)
        assert list(folder.glob("validations/**/*.html")) == [page], "an hour run again replaces its page"

    def test_a_refused_batch_has_its_pages_and_says_where(self, tmp_path: Path) -> None:
        rows = landed(*(listing(i, price=-5.0) for i in range(30)))
        with pytest.raises(
            BatchRejected, match=rf"Every rule's result: {re.escape(str(tmp_path))}/docs/validations/listings\.html$"
        ):
            validate(rows, rules=Validation(), now=NOW, docs=tmp_path / "docs")

    def test_pages_that_can_not_be_written_stop_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "docs").write_text("a file where a folder should be")
        with capture_logs() as logs:
            validated = check(landed(listing()), docs=tmp_path / "docs")
        assert validated.accepted.height == 1
        assert (tmp_path / "docs").is_file(), "no page was put in its place"
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [("data_docs_not_written", "warning")]
        assert "NotADirectoryError" in logs[0]["cause"]


def test_thirty_thousand_rows_in_seconds(tmp_path: Path) -> None:
    count = 30_000
    price = pl.when(pl.col("row_number") % 20 == 0).then(-1.0).otherwise("price")
    rows = (
        landed(listing())
        .drop("row_number", "listing_id")
        .join(pl.DataFrame({"row_number": range(count)}, schema={"row_number": pl.Int64}), how="cross")
        .with_columns(price=price, listing_id=pl.format("L{}", "row_number"))
    )
    assert check(rows, docs=tmp_path / "docs").rejected == count // 20


values = {
    "listing_id": st.sampled_from(["a", "b", "c", "", " ", None]),
    "title": st.sampled_from(["Mug", "Cup", "", None, "x" * 501]),
    "price": st.sampled_from([1.0, 2.0, 0.0, -1.0, float("nan"), float("inf"), None]),
    "currency": st.sampled_from(["EUR", "eur", "???", None]),
    "gtin": st.sampled_from(["4006381333931", "1", None]),
    "updated_at": st.sampled_from(["2026-11-20T09:00:00Z", "2026-11-20T08:00:00Z", "2030-01-01", "never", None]),
    "is_deleted": st.sampled_from(["true", "false", "perhaps", None]),
}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(["a.csv", "b.csv"]), st.fixed_dictionaries(values), st.booleans()), max_size=60)
)
def test_nothing_is_lost_whatever_comes(drawn: list[tuple[str, dict[str, Any], bool]]) -> None:
    schema = dict.fromkeys(values, pl.String) | {"price": pl.Float64}
    raw = pl.DataFrame([row for _, row, _ in drawn], schema=schema)
    rows = (
        casting.cast(raw)
        .with_columns(
            pl.Series("source_file", [file for file, _, _ in drawn], dtype=pl.String),
            pl.Series("picture_fault_rule", ["picture_missing" if bad else None for *_, bad in drawn], dtype=pl.String),
            pl.lit("f" * 64).alias("image_hash"),
            pl.lit(None, dtype=pl.String).alias("picture_fault_detail"),
        )
        .with_columns(row_number=pl.int_range(pl.len()).over("source_file").cast(pl.Int64))
    )
    accepted = check(rows).accepted
    assert accepted.select("source_file", "listing_id").is_duplicated().sum() == 0
    assert accepted["listing_id"].null_count() == accepted["updated_at"].null_count() == 0
    live = accepted.filter(~pl.col("is_deleted"))
    assert live.filter(~pl.col("price").fill_null(0).is_between(0, 1e300)).is_empty()
    assert live.filter(pl.col("title").fill_null("").str.strip_chars() == "").is_empty()
    assert accepted.schema["updated_at"] == TIMESTAMP
    assert accepted.filter(pl.col("updated_at") > NOW + timedelta(minutes=10)).is_empty()
