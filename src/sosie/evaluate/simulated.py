"""The output of `sosie simulate`: hourly landing files and the truth about every listing in them."""

from pathlib import Path

import polars as pl

from sosie.errors import DatasetError
from sosie.evaluate.dataset import PAIRS, Dataset, feed
from sosie.tables import FEED, TIMESTAMP

_READERS = {".parquet": pl.read_parquet, ".csv": lambda file: pl.read_csv(file, infer_schema=False)}
_GROUPS = ("group", "product_id")


def recognises(folder: Path) -> bool:
    return _truth_file(folder) is not None and (folder / "landing").is_dir()


def read(folder: Path) -> Dataset:
    """The last state of each listing that is live after the last hour, with its true product."""
    truth_file = _truth_file(folder)
    assert truth_file is not None
    truth = _READERS[truth_file.suffix](truth_file)
    group = next((name for name in _GROUPS if name in truth.columns), None)
    if group is None or "listing_id" not in truth.columns:
        raise DatasetError(
            f"{truth_file} has the columns {', '.join(truth.columns)}; "
            f"needed are listing_id and one of {', '.join(_GROUPS)}."
        )
    truth = truth.select(pl.col("listing_id").cast(pl.String), pl.col(group).cast(pl.String).alias("group"))
    truth = truth.drop_nulls().unique("listing_id", keep="first", maintain_order=True)
    landing = folder / "landing"
    files = sorted(file for file in landing.rglob("*") if file.suffix in _READERS and "pictures" not in file.parts)
    states = [rows for file in files if (rows := _states(file)) is not None]
    if not states:
        raise DatasetError(f"{landing} holds no readable .parquet or .csv file with the feed's columns.")
    live = (
        pl.concat(states)
        .filter(pl.col("updated_at").is_not_null())
        .join(_spoilt(folder), on=["hour", "listing_id"], how="left", maintain_order="left")
        # A row that was broken on purpose counts only for a listing that has no other.
        .sort(pl.col("spoilt").is_null(), "updated_at", maintain_order=True)
        .unique("listing_id", keep="last", maintain_order=True)
        .filter(~pl.col("is_deleted").fill_null(False), pl.col("title").str.strip_chars().str.len_chars() > 0)
        .join(truth.select("listing_id"), on="listing_id", how="semi")
        .select(*FEED)
        .sort("listing_id")
    )
    truth = truth.join(live.select("listing_id"), on="listing_id", how="semi")
    return Dataset(folder.resolve().name, "simulate", live, truth, pl.DataFrame(schema=PAIRS), landing.resolve())


def _truth_file(folder: Path) -> Path | None:
    return next((file for suffix in _READERS if (file := folder / f"truth{suffix}").is_file()), None)


def _spoilt(folder: Path) -> pl.DataFrame:
    """hour, listing_id, spoilt of the rows that the simulator broke, where it told."""
    told = folder / "truth_hours.parquet"
    schema = {"hour": pl.String, "listing_id": pl.String, "rule": pl.String}
    rows = pl.read_parquet(told, columns=list(schema)) if told.is_file() else pl.DataFrame(schema=schema)
    return (
        rows.filter(pl.col("rule").is_not_null())
        .select("hour", "listing_id", spoilt="rule")
        .unique(["hour", "listing_id"])
    )


def _states(file: Path) -> pl.DataFrame | None:
    """Rows of one landing file in the feed's types; None for a file that is broken on purpose, as some feeds are."""
    try:
        rows = _READERS[file.suffix](file)
    except (pl.exceptions.PolarsError, OSError):
        return None
    if not {"listing_id", "title", "updated_at"} <= set(rows.columns):
        return None
    loose = {name: dtype for name, dtype in FEED.items() if name in rows.columns}
    held = feed(rows.select(_lenient(name, dtype, rows.schema[name]) for name, dtype in loose.items()))
    return held.filter(pl.col("listing_id").is_not_null()).with_columns(hour=pl.lit(file.parent.name))


def _lenient(name: str, dtype: object, held: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == TIMESTAMP and held == pl.String:
        return column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if dtype == pl.Boolean and held == pl.String:
        return column.str.to_lowercase().is_in(["true", "1"])
    return column.cast(dtype, strict=False)  # type: ignore[arg-type]
