"""Which row speaks for a listing that a file names more than once."""

import polars as pl

from sosie.tables import FEED


def losers(rows: pl.DataFrame) -> pl.DataFrame:
    """Of rows that share source_file and listing_id, those that don't stay: columns `index`, `detail`.

    The newest `updated_at` stays, of exact copies the first. Where the newest rows say different things, nobody can
    tell which is true, and none of the listing's rows stays. `rows`: the feed's columns, `index`, `source_file`,
    `row_number`.
    """
    listing = ["source_file", "listing_id"]
    newest = pl.col("updated_at") == pl.col("updated_at").max().over(listing)
    what = pl.struct(*FEED)
    ranked = rows.with_columns(newest=newest).with_columns(
        versions=what.filter("newest").n_unique().over(listing),
        stays=pl.col("row_number").filter("newest").min().over(listing),
        rivals=pl.col("row_number").filter("newest").sort().head(10).implode().over(listing),
        latest=pl.col("updated_at").max().over(listing).dt.strftime("%Y-%m-%d %H:%M:%S"),
    )
    named = pl.concat_str(pl.lit("listing_id '"), "listing_id", pl.lit("' "))
    conflict = pl.concat_str(
        named,
        pl.lit("is in rows "),
        pl.col("rivals").list.eval(pl.element().cast(pl.String)).list.join(", "),
        pl.lit(" with the same updated_at ("),
        "latest",
        pl.lit(") and different content; none of them can be trusted"),
    )
    copy = pl.concat_str(named, pl.lit("is there already: an exact copy of row "), "stays")
    older = pl.concat_str(
        named, pl.lit("is also in row "), "stays", pl.lit(", which is newer ("), "latest", pl.lit(")")
    )
    return ranked.filter((pl.col("versions") > 1) | (pl.col("row_number") != pl.col("stays"))).select(
        "index", detail=pl.when(pl.col("versions") > 1).then(conflict).when("newest").then(copy).otherwise(older)
    )
