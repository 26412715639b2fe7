"""GTIN check digits, as in the GS1 General Specifications, section 7.9."""

import polars as pl

LENGTHS = (8, 12, 13, 14)


def is_valid(code: pl.Expr) -> pl.Expr:
    """Whether `code` is 8, 12, 13 or 14 digits ending in their check digit; null where it is null.

    From the right, digits weigh 1, 3, 1, 3 …; the weighted sum must be a multiple of ten. Zeros alone pass that sum but
    are no article's number: sellers fill the field with them.
    """
    digits = code.str.zfill(14)
    total = sum(
        (digits.str.slice(place, 1).cast(pl.Int64, strict=False) * (3 if place % 2 == 0 else 1) for place in range(14)),
        pl.lit(0),
    )
    return pl.when(code.is_not_null()).then(
        code.str.contains(r"^[0-9]+$")
        & code.str.len_chars().is_in(LENGTHS)
        & (total % 10 == 0).fill_null(False)
        & code.str.contains("[1-9]")
    )
