"""Good rows apart from bad: the rules that a landing batch is held to, and what becomes of what breaks them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from sosie.settings import Validation
from sosie.tables import FEED, QUARANTINE
from sosie.validation import batch, duplicates, suite
from sosie.validation import docs as data_docs
from sosie.validation.rules import BY_NAME, CASTABLE, GTIN, PICTURE, UNIQUE, Effect, Limits

__all__ = ["ACCEPTED", "Validated", "validate"]

ACCEPTED = {**FEED, "image_hash": pl.String, "source_file": pl.String, "row_number": pl.Int64}
"""Columns of accepted rows."""

QUARANTINED = {name: dtype for name, dtype in QUARANTINE.columns.items() if name not in ("run_id", "replayed_run")}
"""Columns of quarantined rows; whose they are and whether they came again is for the run to say."""

PLACE = ["source_file", "row_number"]
MAX_VALUE = 100
"""Characters of an offending value that are quoted in `detail`."""


@dataclass(frozen=True)
class Validated:
    """A batch, parted: its rows are `accepted`, but for `rejected` of them.

    `quarantined` has one row for each rule that a row breaks: those of rejected rows, and those of fields (a bad
    picture, a bad GTIN, which is emptied) in rows that were accepted all the same.
    """

    rejected: int
    accepted: pl.DataFrame
    quarantined: pl.DataFrame


def validate(
    rows: pl.DataFrame,
    *,
    rules: Validation,
    trailing_row_counts: Sequence[int] = (),
    now: datetime | None = None,
    docs: Path | None = None,
) -> Validated:
    """Part the rows of a batch, which may come from several files.

    `rows`: columns as `landing.read` gives them, plus image_hash, picture_fault_rule and picture_fault_detail as
    `pictures.inspect` found them. `trailing_row_counts`: rows of earlier runs, oldest first. `docs`: the folder for
    Data Docs, none by default. Raises `BatchRejected` where too many rows are bad or the number of rows is unusual.
    """
    limits = Limits(rules, (now or datetime.now(UTC)).astimezone(UTC))
    if rows.is_empty():
        return Validated(0, pl.DataFrame(schema=ACCEPTED), pl.DataFrame(schema=QUARANTINED))
    usual = batch.usual_rows(rows, trailing_row_counts, rules)
    findings = suite.check(rows, limits, usual)
    page = data_docs.write(findings, docs) if docs is not None else None
    if usual is not None and not findings.row_count_ok:
        raise batch.refuse_row_count(rows, usual, rules, page)

    effect = pl.col("rule").replace_strict(
        {name: rule.effect.name for name, rule in BY_NAME.items()}, return_dtype=pl.String
    )
    broken = findings.broken.join(rows, on=PLACE, how="left", maintain_order="left").with_columns(effect=effect)
    told = broken.filter((pl.col("effect") != Effect.WARNING.name) & ~_told_by_cast()).with_columns(
        detail=_detail(limits)
    )
    faults = told.filter(pl.col("rule") != UNIQUE)
    repeated = _repeated(told, faults)
    row_faults = pl.concat(
        [faults.filter(pl.col("effect") == Effect.ROW.name).select(*PLACE, "rule", "detail"), repeated]
    )
    bad = row_faults.select(PLACE).unique()
    if rows.height >= rules.min_rows_for_share and bad.height > rules.max_bad_share * rows.height:
        raise batch.refuse_share(rows, bad.height, row_faults.sort(PLACE), rules, page)

    fields = faults.filter(pl.col("effect") == Effect.FIELD.name)
    quarantined = _quarantined(pl.concat([row_faults, fields.select(*PLACE, "rule", "detail")]), rows)
    return Validated(bad.height, _accepted(rows, bad, fields), quarantined)


def _told_by_cast() -> pl.Expr:
    """Whether a value is missing only because it could not be cast, which is told already."""
    cast = pl.any_horizontal(
        (pl.col("rule") == f"{name}_present")
        & pl.col("cast_faults").list.eval(pl.element().str.starts_with(f"{name}: ")).list.any()
        for name in ("listing_id", "updated_at", "title")
    )
    return cast.fill_null(False)


def _detail(limits: Limits) -> pl.Expr:
    """Why a row breaks its rule, with the value that does."""
    requires = pl.col("rule").replace_strict(
        {name: f"; it {rule.says(limits)}" for name, rule in BY_NAME.items()}, return_dtype=pl.String
    )
    column = pl.col("rule").replace_strict(
        {name: rule.column for name, rule in BY_NAME.items()}, return_dtype=pl.String
    )
    value = pl.coalesce(
        *(
            pl.when(pl.col("rule") == name).then(_quoted(rule.column))
            for name, rule in BY_NAME.items()
            if rule.column in FEED
        ),
        pl.lit("missing"),
    )
    return (
        pl.when(pl.col("rule") == CASTABLE)
        .then(
            pl.concat_str(pl.lit("could not be read as their columns' types: "), pl.col("cast_faults").list.join("; "))
        )
        .when(pl.col("rule") == PICTURE)
        .then(pl.coalesce("picture_fault_detail", "picture_fault_rule"))
        .otherwise(pl.concat_str(column, pl.lit(" is "), value, requires))
    )


def _quoted(column: str) -> pl.Expr:
    dtype = FEED[column]
    if dtype == pl.String:
        text = pl.col(column)
        shown = pl.when(text.str.len_chars() > MAX_VALUE).then(
            pl.concat_str(
                pl.lit("'"), text.str.head(MAX_VALUE), pl.lit("…' ("), text.str.len_chars(), pl.lit(" characters)")
            )
        )
        return shown.otherwise(pl.concat_str(pl.lit("'"), text, pl.lit("'")))
    return (
        pl.col(column).dt.strftime("%Y-%m-%d %H:%M:%S UTC")
        if column == "updated_at"
        else pl.col(column).cast(pl.String)
    )


def _repeated(told: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
    """Among rows that share an id and are good otherwise, those that don't stay."""
    bad = faults.filter(pl.col("effect") == Effect.ROW.name)
    rivals = told.filter(pl.col("rule") == UNIQUE).join(bad, on=PLACE, how="anti").with_row_index("index")
    lost = duplicates.losers(rivals)
    return rivals.drop("detail").join(lost, on="index").select(*PLACE, "rule", "detail")


def _quarantined(entries: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """A picture's entry bears the name of what is wrong with the picture."""
    told = entries.join(rows.select(*PLACE, "listing_id", "row", "picture_fault_rule"), on=PLACE, how="left")
    return (
        told.with_columns(rule=pl.when(pl.col("rule") == PICTURE).then("picture_fault_rule").otherwise("rule"))
        .select(pl.col(name).cast(dtype) for name, dtype in QUARANTINED.items())
        .sort(*PLACE, "rule")
    )


def _accepted(rows: pl.DataFrame, bad: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """Rows that stay, in the order they came; fields that broke a rule are null."""
    emptied = {GTIN: "gtin", "image_phash_hex": "image_phash"}
    kept = rows.join(bad, on=PLACE, how="anti", maintain_order="left")
    for rule, column in emptied.items():
        broken = fields.filter(pl.col("rule") == rule).select(*PLACE, pl.lit(True).alias("broken"))
        kept = kept.join(broken, on=PLACE, how="left", maintain_order="left").with_columns(
            pl.when(pl.col("broken").is_null()).then(column).alias(column)
        ).drop("broken")  # fmt: skip
    return kept.select(pl.col(name).cast(dtype) for name, dtype in ACCEPTED.items())
