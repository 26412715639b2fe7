"""The Great Expectations suite, built in code from the rules, and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from sosie.deferred import until_used
from sosie.errors import BatchRejected
from sosie.listings import clean_titles
from sosie.tables import FEED
from sosie.validation.gtin import is_valid
from sosie.validation.rules import RULES, UNIQUE, Effect, Limits, Rule

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

NAME = "listings"
ROW_COUNT = "row_count"
SCHEMA = "schema"
INDEX = ["source_file", "row_number"]
SHOWN = 20
"""Offending values that Data Docs shows a rule."""

_LISTS = ("unexpected_list", "unexpected_index_list", "partial_unexpected_list", "partial_unexpected_index_list")


@dataclass(frozen=True)
class Findings:
    """`broken`: columns source_file, row_number, rule, one row for each rule that a row breaks.

    `results` keeps only the first `SHOWN` offending values of each rule.
    """

    broken: pl.DataFrame
    row_count_ok: bool
    results: "ExpectationSuiteValidationResult"


def check(rows: pl.DataFrame, limits: Limits, row_count: tuple[int, int] | None) -> Findings:
    """Run the suite over `rows` (the feed's columns, source_file, row_number, cast_faults, picture_fault_rule).

    `row_count`: the fewest and most rows that are usual, None where too little is known. Raises `BatchRejected` where a
    rule could not be evaluated: rows that nobody checked are not accepted.
    """
    with until_used("scipy.stats"):  # which rules that are not among ours need
        import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        ),
    )
    frame = _checked_frame(rows)
    source = context.data_sources.add_pandas("landing")
    batch = (
        source.add_dataframe_asset(NAME).add_batch_definition_whole_dataframe("batch").get_batch({"dataframe": frame})
    )
    results = batch.validate(
        context.suites.add(build(limits, row_count, list(frame.columns))),
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": INDEX,
            "partial_unexpected_count": SHOWN,
            "return_unexpected_index_query": False,
            "include_unexpected_rows": False,
        },
    )
    broken, row_count_ok = _read(results)
    for result in results.results:  # a page needs no more than the first few, and rendering all is slow
        for name in _LISTS:
            if result.result.get(name):
                result.result[name] = result.result[name][:SHOWN]
    return Findings(broken, row_count_ok, results)


def build(limits: Limits, row_count: tuple[int, int] | None, columns: list[str]) -> "ExpectationSuite":
    """The suite: the batch's schema and row count, then every rule that applies."""
    import great_expectations as gx
    from great_expectations import expectations

    suite = gx.ExpectationSuite(name=NAME)
    suite.add_expectation(
        expectations.ExpectTableColumnsToMatchSet(
            column_set=columns, exact_match=False, meta=_meta(SCHEMA, "all are there")
        )
    )
    if row_count is not None:
        suite.add_expectation(
            expectations.ExpectTableRowCountToBeBetween(
                min_value=row_count[0], max_value=row_count[1], meta=_meta(ROW_COUNT, "near the trailing median")
            )
        )
    for rule in RULES:
        if rule.applies(limits):
            suite.add_expectation(_expectation(rule, limits))
    return suite


def _expectation(rule: Rule, limits: Limits) -> Any:
    from great_expectations import expectations
    from great_expectations.expectations.row_conditions import Column

    common: dict[str, Any] = {
        "meta": _meta(rule.name, f"{rule.column} {rule.says(limits)}"),
        "severity": {Effect.ROW: "critical", Effect.FIELD: "warning", Effect.WARNING: "info"}[rule.effect],
    }
    if rule.name == UNIQUE:
        return expectations.ExpectCompoundColumnsToBeUnique(
            column_list=["source_file", "listing_id"], ignore_row_if="any_value_is_missing", **common
        )
    if not rule.of_deletes:
        live = Column("is_deleted") == False  # noqa: E712 - builds a condition
        common["row_condition"] = live if rule.effect is not Effect.WARNING else live & Column("price").is_not_null()
    return getattr(expectations, rule.expectation)(column=rule.checked_column, **rule.arguments(limits), **common)


def _meta(rule: str, says: str) -> dict[str, Any]:
    return {"rule": rule, "notes": {"format": "string", "content": [f"{rule}: {says}"]}}


def _checked_frame(rows: pl.DataFrame) -> "pd.DataFrame":
    """What Great Expectations sees, in pandas.

    pandas can't tell NaN from null, and a NaN price must not pass as a missing one: it is checked as minus infinity.
    A row that deletes a listing is not held to casts of columns that it need not have. A title is blank where nothing
    visible is left of it once it is cleaned as for embedding.
    """
    needless = pl.element().str.contains(rf"^({'|'.join(name for name in FEED if name not in DELETES)}): ")
    faults = pl.col("cast_faults")
    frame = rows.select(
        *FEED,
        *INDEX,
        pl.when("is_deleted").then(faults.list.filter(~needless)).otherwise(faults).list.join("; ").alias("cast_fault"),
        pl.col("picture_fault_rule"),
        pl.col("price").fill_nan(float("-inf")).alias("checked_price"),
        clean_titles(pl.col("title")).str.replace_all(r"[\s\p{C}]", "").alias("visible_title"),
        pl.col("listing_id").str.len_bytes().alias("listing_id_bytes"),
        is_valid(pl.col("gtin")).alias("gtin_is_valid"),
    ).with_columns(
        pl.when(pl.col("cast_fault") != "").then("cast_fault"), pl.col("updated_at").dt.replace_time_zone(None)
    )
    return frame.to_pandas()


DELETES = ("listing_id", "updated_at", "is_deleted")
"""Columns that a row which deletes a listing must have right."""


def _read(results: "ExpectationSuiteValidationResult") -> tuple[pl.DataFrame, bool]:
    rules: list[str] = []
    places: list[Mapping[str, Any]] = []
    row_count_ok = True
    for result in results.results:
        rule = result.expectation_config.meta["rule"]
        if fault := _exception(result.exception_info):
            raise BatchRejected(
                f"Rule {rule} could not be checked ({fault}); no row was accepted. "
                "Look at the types of the landing files' columns."
            )
        if rule == ROW_COUNT:
            row_count_ok = bool(result.success)
        found = result.result.get("unexpected_index_list") or []
        places.extend(found)
        rules.extend([rule] * len(found))
    broken = pl.DataFrame(
        {
            "source_file": [place["source_file"] for place in places],
            "row_number": [int(place["row_number"]) for place in places],
            "rule": rules,
        },
        schema={"source_file": pl.String, "row_number": pl.Int64, "rule": pl.String},
    )
    return broken, row_count_ok


def _exception(info: Mapping[str, Any]) -> str | None:
    """What went wrong in an expectation. It is told at the top level, or by metric, in two shapes of the same field."""
    for told in (info, *info.values()):
        if isinstance(told, Mapping) and told.get("raised_exception"):
            return str(told.get("exception_message") or "no reason was given")
    return None
