"""What is told of a listing, on a lake that holds a bit of everything."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from sosie import tables
from sosie.cli import EXIT_TERMINAL, app
from sosie.errors import UnknownListing
from sosie.explain import explain, lines
from sosie.judgements import judge
from sosie.lake import Lake
from sosie.tables import Table


def add(lake: Lake, table: Table, **values: object) -> None:
    lake.append(table, pl.DataFrame([dict.fromkeys(table.columns) | values], schema=table.schema))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """a and b were clustered at nine, c refused at ten, a judged different from d since."""
    lake = Lake(str(tmp_path / "lake"))
    nine, ten = "2026-01-05T09", "2026-01-05T10"
    for listing in "abd":
        add(lake, tables.LISTINGS, listing_id=listing, title=f"Kettle {listing}", content_hash=listing,
            updated_at=datetime(2026, 1, 5, 9, tzinfo=UTC), is_deleted=False, first_seen_run=nine,
            last_changed_run=nine)  # fmt: skip
        add(lake, tables.CHANGES, run_id=nine, listing_id=listing, kind="new")
    add(lake, tables.CHANGES, run_id=ten, listing_id="a", kind="attributes")
    add(lake, tables.QUARANTINE, run_id=ten, source_file="x.csv", row_number=3, rule="price_positive",
        detail="price is -1", listing_id="c", row="{}")  # fmt: skip
    why = [{"feature": "text_cosine", "value": 0.93, "contribution": 2.5},
           {"feature": "price_ratio", "value": None, "contribution": -0.4}]  # fmt: skip
    add(lake, tables.PAIRS, left_id="a", right_id="b", score=0.91, first_score=0.8, verdict="match", reasons=why,
        blocked_by=["text"], decider_version="d1", embedding_version="t1+i1", run_id=nine)  # fmt: skip
    for listing in "ab":
        add(lake, tables.CLUSTERS, listing_id=listing, cluster_id="c1", canonical_id="b", size=2, changed_run=nine)
    add(lake, tables.CLUSTER_EVENTS, run_id=nine, kind="formed", cluster_id="c1", before=[], after=["c1"],
        joined=["a", "b"], left=[])  # fmt: skip
    add(lake, tables.HELD_MERGES, left_id="a", right_id="d", cause="judged_different", clusters=["c1"], run_id=ten)
    add(lake, tables.DECISIONS, listing_id="a", is_duplicate=True, cluster_id="c1", canonical_id="b", score=0.91,
        event_timestamp=datetime(2026, 1, 5, 9, tzinfo=UTC), created_timestamp=datetime(2026, 1, 5, 9, tzinfo=UTC),
        run_id=nine)  # fmt: skip
    judge(lake, "a", "d", "different", "ann", "another size")
    return lake


def test_a_listing_is_told_with_pairs_reasons_clusters_and_judgements(lake: Lake) -> None:
    found = explain(lake, "a")
    assert found["cluster"]["members"] == ["a", "b"]
    (pair,) = found["pairs"]
    assert (pair["other"], pair["score"], pair["hour"], pair["decider_version"]) == ("b", 0.91, "2026-01-05T09", "d1")
    assert [reason["words"] != reason["feature"] for reason in pair["reasons"]] == [True, True]
    assert [fact["what"] for fact in found["history"]] == ["changed", "cluster", "told", "changed", "judged"]
    assert found["history"] == sorted(found["history"], key=lambda fact: fact["hour"])
    text = "\n".join(lines(found))
    for said in ("cluster c1 with b", "match at 0.910", "by d1 on t1+i1", "cluster c1 formed", "duplicate of b",
                 "ann judged it different from d", "another size", "for (+2.50)", "against (-0.40)",
                 "unknown"):  # fmt: skip
        assert said in text


def test_what_was_decided_since_the_last_hour_is_for_the_next_to_tell(lake: Lake) -> None:
    assert "the storefront is told by the next hour at the latest: a duplicate of b" in "\n".join(
        lines(explain(lake, "a"))
    )
    add(lake, tables.RUNS, run_id="2026-01-05T09", state="succeeded",
        finished_at=datetime(2026, 1, 5, 9, 30, tzinfo=UTC))  # fmt: skip
    assert "the storefront is told: a duplicate of b" in "\n".join(lines(explain(lake, "a")))


def test_a_refused_listing_is_told_with_its_rule(lake: Lake) -> None:
    found = explain(lake, "c")
    assert found["now"] is None
    assert "refused by price_positive: price is -1 (x.csv, row 3)" in "\n".join(lines(found))
    add(lake, tables.QUARANTINE, run_id="2026-01-05T10", source_file="x.csv", row_number=4, rule="gtin_check_digit",
        detail="gtin is 12345678", listing_id="a", row="{}")  # fmt: skip
    assert "left out by gtin_check_digit: gtin is 12345678" in "\n".join(lines(explain(lake, "a")))


def test_an_unknown_listing_is_an_error(lake: Lake) -> None:
    with pytest.raises(UnknownListing, match="zzz"):
        explain(lake, "zzz")


def test_the_command_prints_text_or_json(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from sosie.settings import settings

    monkeypatch.setenv("SOSIE_LAKE_URI", lake.uri)
    settings.cache_clear()
    try:
        told = CliRunner().invoke(app, ["explain", "a"])
        assert told.exit_code == 0, told.output
        assert "Pairs, best first" in told.output
        as_json = CliRunner().invoke(app, ["explain", "a", "--json"])
        assert json.loads(as_json.stdout)["listing_id"] == "a"
        assert CliRunner().invoke(app, ["explain", "zzz"]).exit_code == EXIT_TERMINAL
    finally:
        settings.cache_clear()
