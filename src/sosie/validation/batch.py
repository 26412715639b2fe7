"""When a batch as a whole is refused, and how that is said."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import polars as pl

from sosie.errors import BatchRejected
from sosie.landing import hour_of
from sosie.settings import Validation

MIN_TRAILING = 3
"""Runs that a median needs before it says anything."""


def usual_rows(rows: pl.DataFrame, trailing: Sequence[int], rules: Validation) -> tuple[int, int] | None:
    """The fewest and most rows that a batch of these files should have; None with fewer than three trailing runs.

    `trailing`: rows of earlier runs, oldest first; runs without rows don't count. A batch that catches up on several
    hours may have that many times the rows of one.
    """
    counts = [count for count in trailing if count > 0][-rules.median_over_runs :]
    if len(counts) < MIN_TRAILING:
        return None
    hours = {hour for path in rows["source_file"].unique() if (hour := hour_of(path)) is not None}
    middle = median(counts)
    return int(middle * rules.min_rows_of_median), int(middle * rules.max_rows_of_median * max(1, len(hours)))


def refuse_row_count(rows: pl.DataFrame, usual: tuple[int, int], rules: Validation, docs: Path | None) -> BatchRejected:
    few = rows.height < usual[0]
    limit, setting = (usual[0], "min_rows_of_median") if few else (usual[1], "max_rows_of_median")
    value = getattr(rules, setting)
    return BatchRejected(
        f"{_files(rows)}: {rows.height:,} rows are {'fewer' if few else 'more'} than the {limit:,} that "
        f"validation.{setting} ({value:g} × the median of the last runs) allows; nothing was changed. "
        f"Look whether the export {'broke off' if few else 'was written twice'}; if this is what the hour held, "
        f"run it again with SOSIE_VALIDATION__{setting.upper()}={_allowing(rows.height, limit, value)}." + _pages(docs)
    )


def _allowing(rows: int, limit: int, value: float) -> str:
    """A value of the setting that lets `rows` through, rounded away from the limit."""
    if rows < limit:
        return f"{max(0.0, value * rows / limit * 0.99):.4g}" if rows else "0"
    return f"{value * rows / max(limit, 1) * 1.01:.4g}"


def refuse_share(
    rows: pl.DataFrame, bad: int, broken: pl.DataFrame, rules: Validation, docs: Path | None
) -> BatchRejected:
    """`broken`: source_file, row_number, rule, detail of every row-level fault."""
    share = bad / rows.height
    frequent = (
        broken.group_by("rule").agg(pl.len(), pl.struct(pl.all()).first()).sort("len", "rule", descending=[True, False])
    )
    told = []
    for rule, count, example in frequent.head(3).iter_rows():
        where = f"row {example['row_number']} of {example['source_file']}"
        told.append(f"{rule} in {count:,} (for instance {where}: {example['detail']})")
    more = f"; and {frequent.height - 3} other rules" if frequent.height > 3 else ""
    return BatchRejected(
        f"{_files(rows)}: {bad:,} of {rows.height:,} rows ({share:.1%}) break a rule, above the limit of "
        f"{rules.max_bad_share:.1%} (validation.max_bad_share); nothing was changed. Broken: {'; '.join(told)}{more}. "
        f"Mend the feed and land it again; if these rows are to be left out, run the hour again with "
        f"SOSIE_VALIDATION__MAX_BAD_SHARE={min(1.0, share + 0.01):.2f}." + _pages(docs)
    )


def _files(rows: pl.DataFrame) -> str:
    names = rows["source_file"].unique(maintain_order=True).to_list()
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")


def _pages(docs: Path | None) -> str:
    return "" if docs is None else f" Every rule's result: {docs}"
