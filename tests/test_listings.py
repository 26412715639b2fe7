"""Titles, hashes and change detection."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sosie.listings import IGNORED, KINDS, clean_title, clean_titles, detect, merge, with_hashes
from sosie.tables import CHANGES, FEED, LISTINGS

START = datetime(2026, 1, 5, tzinfo=UTC)
BATCH = {**FEED, "image_hash": pl.String}
NONE_HELD = pl.DataFrame(schema=LISTINGS.schema)


def batch(*rows: dict[str, object]) -> pl.DataFrame:
    blank = dict.fromkeys(BATCH) | {"is_deleted": False, "updated_at": START, "title": "a title"}
    return pl.DataFrame([blank | row for row in rows], schema=BATCH)


def kind_of(row: dict[str, object], held: dict[str, object] | None) -> str:
    before = NONE_HELD if held is None else detect(batch({"listing_id": "x"} | held), NONE_HELD, "h1").listings
    counts = detect(batch({"listing_id": "x"} | row), before, "h2").counts
    (kind,) = [name for name, count in counts.items() if count]
    return kind


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Nike   Air\tMax ", "Nike Air Max"),
        (r'b"caf\xc3\xa9 \xe2\x9d\xa4"', "café ❤"),
        (r"caf\xc3\xa9 und Größe", "café und Größe"),
        ("b'plain'", "plain"),
        ("ＦＵＬＬ width ½", "FULL width 1⁄2"),
        (r"broken \xff byte", "broken � byte"),
        ("b is a letter", "b is a letter"),
        ("", ""),
    ],
)
def test_clean_title(raw: str, clean: str) -> None:
    assert clean_title(raw) == clean


@given(st.text())
def test_cleaning_again_changes_nothing_but_what_a_decoded_escape_spells(title: str) -> None:
    once = clean_title(title)
    if "\\x" not in once and not once.startswith("b"):
        assert clean_title(once) == once


@given(st.lists(st.none() | st.text(max_size=8)))
def test_a_column_is_cleaned_as_its_titles_are(titles: list[str | None]) -> None:
    frame = pl.DataFrame({"title": titles}, schema={"title": pl.String})
    expected = [None if title is None else clean_title(title) for title in titles]
    assert frame.select(clean_titles(pl.col("title")))["title"].to_list() == expected


def test_hashes_follow_content_and_not_time() -> None:
    rows = with_hashes(
        batch(
            {"listing_id": "a", "title": "Nike  Air"},
            {"listing_id": "b", "title": "Nike Air", "updated_at": START + timedelta(hours=1)},
            {"listing_id": "c", "title": "Nike Air", "price": 2.0},
        )
    )
    assert rows["text_hash"].n_unique() == 1
    assert rows["content_hash"][0] == rows["content_hash"][1] != rows["content_hash"][2]


LATER, EARLIER = {"updated_at": START + timedelta(hours=1)}, {"updated_at": START - timedelta(hours=1)}


@pytest.mark.parametrize(
    ("row", "held", "kind"),
    [
        ({}, None, "new"),
        (LATER, {}, "unchanged"),
        ({}, {}, "unchanged"),
        (LATER | {"title": "other"}, {}, "text"),
        (LATER | {"title": "a  title"}, {}, "unchanged"),
        (LATER | {"image_hash": "p"}, {}, "image"),
        (LATER, {"image_hash": "p"}, "image"),
        (LATER | {"image_hash": "q", "title": "other"}, {"image_hash": "p"}, "text_and_image"),
        (LATER | {"price": 3.0}, {"price": 2.0}, "attributes"),
        (LATER | {"is_deleted": True, "title": None}, {}, "deleted"),
        (LATER | {"is_deleted": True}, None, "unchanged"),
        (LATER, {"is_deleted": True}, "new"),
        (EARLIER | {"title": "other"}, {}, "stale"),
        (EARLIER | {"is_deleted": True}, {}, "stale"),
        (EARLIER, {"is_deleted": True}, "stale"),
    ],
)
def test_kinds_of_change(row: dict[str, object], held: dict[str, object] | None, kind: str) -> None:
    assert kind_of(row, held) == kind


def test_the_newest_of_several_rows_speaks() -> None:
    found = detect(
        batch(
            {"listing_id": "a", "title": "second", **LATER},
            {"listing_id": "a", "title": "first"},
            {"listing_id": "b"},
        ),
        NONE_HELD,
        "h1",
    )
    assert found.counts["superseded"] == 1
    assert found.listings.filter(pl.col("listing_id") == "a")["title"].item() == "second"


def test_a_delete_keeps_what_the_listing_was_and_asks_for_no_vector() -> None:
    held = detect(batch({"listing_id": "a", "brand": "Nike", "image_hash": "p"}), NONE_HELD, "h1").listings
    gone = detect(batch({"listing_id": "a", "title": None, "is_deleted": True, **LATER}), held, "h2")
    row = gone.listings.row(0, named=True)
    assert (row["title"], row["brand"], row["image_hash"], row["is_deleted"]) == ("a title", "Nike", "p", True)
    assert gone.changes.select("text_hash", "image_hash").row(0) == (None, None)


def test_a_price_asks_for_no_vector_and_a_picture_only_for_its_own() -> None:
    held = detect(batch({"listing_id": "a"}, {"listing_id": "b"}), NONE_HELD, "h1").listings
    found = detect(
        batch({"listing_id": "a", "price": 1.0, **LATER}, {"listing_id": "b", "image_hash": "p", **LATER}), held, "h2"
    )
    assert found.changes.select("kind", "text_hash", "image_hash").rows() == [
        ("attributes", None, None),
        ("image", None, "p"),
    ]


def test_a_row_in_between_cannot_slip_past_a_newer_one_that_said_nothing_new() -> None:
    held = detect(batch({"listing_id": "a"}), NONE_HELD, "h1").listings
    touched = detect(batch({"listing_id": "a", "updated_at": START + timedelta(hours=5)}), held, "h2")
    assert touched.changes.is_empty()
    between = detect(batch({"listing_id": "a", "title": "late", **LATER}), touched.listings, "h3")
    assert between.counts["stale"] == 1


def test_of_two_contents_of_one_time_the_later_hours_stands() -> None:
    first = detect(batch({"listing_id": "a", "title": "one"}), NONE_HELD, "h1").listings
    second = detect(batch({"listing_id": "a", "title": "two"}), first, "h2")
    assert second.counts["text"] == 1
    again = detect(batch({"listing_id": "a", "title": "one"}), second.listings, "h1")
    assert again.counts["stale"] == 1
    assert again.listings.is_empty()


@pytest.mark.parametrize(
    ("older", "newer", "merged"),
    [
        (("new", "t1", "p1"), ("attributes", None, None), ("new", "t1", "p1")),
        (("new", "t1", "p1"), ("text", "t2", None), ("new", "t2", "p1")),
        (("new", "t1", "p1"), ("image", None, None), ("new", "t1", None)),
        (("new", "t1", "p1"), ("deleted", None, None), ("deleted", None, None)),
        (("text", "t1", None), ("image", None, "p2"), ("text_and_image", "t1", "p2")),
        (("image", None, "p1"), ("attributes", None, None), ("image", None, "p1")),
        (("deleted", None, None), ("new", "t1", "p1"), ("new", "t1", "p1")),
    ],
)
def test_work_asked_for_by_an_earlier_try_stays_asked_for(older: tuple, newer: tuple, merged: tuple) -> None:
    def one(kind: str, text: str | None, image: str | None) -> pl.DataFrame:
        return pl.DataFrame([("h1", "a", kind, text, image)], schema=CHANGES.schema, orient="row")

    other = one("new", "t9", None).with_columns(listing_id=pl.lit("b"))
    found = merge(pl.concat([one(*older), other]), one(*newer)).sort("listing_id")
    assert found.row(0)[2:] == merged
    assert found.row(1)[2:] == ("new", "t9", None)


rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "listing_id": st.sampled_from("abc"),
            "title": st.sampled_from(["one", "two"]),
            "image_hash": st.sampled_from([None, "p"]),
            "price": st.sampled_from([None, 1.0]),
            "is_deleted": st.booleans(),
            "updated_at": st.integers(0, 5).map(lambda hour: START + timedelta(hours=hour)),
        }
    ),
    max_size=12,
)


@given(rows_strategy, rows_strategy)
def test_counts_add_up_and_a_batch_again_changes_nothing(first: list[dict], second: list[dict]) -> None:
    held = detect(batch(*first), NONE_HELD, "h1").listings if first else NONE_HELD
    if not second:
        return
    rows = batch(*second)
    found = detect(rows, held, "h2")
    assert sum(found.counts.values()) == rows.height
    assert set(found.counts) == {*KINDS, *IGNORED}
    after = pl.concat([held.join(found.listings, on="listing_id", how="anti"), found.listings])
    again = detect(rows, after, "h2")
    assert again.changes.is_empty()
    assert again.listings.is_empty()


@given(rows_strategy)
def test_hour_by_hour_or_all_at_once_ends_the_same_where_times_differ(rows: list[dict]) -> None:
    rows = list({(row["listing_id"], row["updated_at"]): row for row in rows}.values())
    if not rows:
        return
    held = NONE_HELD
    for number, row in enumerate(rows):
        found = detect(batch(row), held, f"h{number}").listings
        held = pl.concat([held.join(found, on="listing_id", how="anti"), found])
    at_once = detect(batch(*rows), NONE_HELD, "h").listings
    living = [pl.col("listing_id"), pl.col("content_hash"), pl.col("updated_at")]
    assert (
        held.filter(~pl.col("is_deleted")).select(living).sort("listing_id").rows()
        == at_once.filter(~pl.col("is_deleted")).select(living).sort("listing_id").rows()
    )
