"""Malformed rows: the same rows that sellers and their exports send, each breaking one rule of the validation.

The rules are named as `sosie.validation` names them.
"""

from collections.abc import Callable
from datetime import timedelta

import numpy as np

from sosie.simulate.sellers import Row

Spoil = Callable[[Row, np.random.Generator], Row]


def _no_title(row: Row, rng: np.random.Generator) -> Row:
    return row | {"title": None}


def _blank_title(row: Row, rng: np.random.Generator) -> Row:
    return row | {"title": " " * int(rng.integers(1, 5))}


def _endless_title(row: Row, rng: np.random.Generator) -> Row:
    """The same words over and over, to be found by every search."""
    return row | {"title": " ".join([row["title"]] * (700 // len(row["title"]) + 1))}


def _negative_price(row: Row, rng: np.random.Generator) -> Row:
    return row | {"price": -abs(row["price"] or 9.99), "currency": row["currency"] or "EUR"}


def _bad_currency(row: Row, rng: np.random.Generator) -> Row:
    return row | {"price": row["price"] or 9.99, "currency": str(rng.choice(["RP", "EURO", "$", "XQX", "Rupiah"]))}


def _from_the_future(row: Row, rng: np.random.Generator) -> Row:
    """Years ahead, so that it is the future to a run of today as to one of the simulated hour."""
    return row | {"updated_at": row["updated_at"] + timedelta(days=365 * int(rng.integers(20, 60)))}


def _no_id(row: Row, rng: np.random.Generator) -> Row:
    return row | {"listing_id": None}


def _bad_gtin(row: Row, rng: np.random.Generator) -> Row:
    """One digit of the code is another one, so the check digit is wrong."""
    code = row["gtin"] or "2000000000008"
    at = int(rng.integers(1, len(code) - 1))
    return row | {"gtin": code[:at] + str((int(code[at]) + 1) % 10) + code[at + 1 :]}


OF_THE_ROW: dict[str, Spoil] = {
    "title_present": _no_title,
    "title_not_blank": _blank_title,
    "title_length": _endless_title,
    "price_range": _negative_price,
    "currency_code": _bad_currency,
    "updated_at_not_future": _from_the_future,
    "listing_id_present": _no_id,
}
"""Rules whose breach costs the whole row: the listing it names never comes to life."""

OF_A_HELD_ROW = ("price_range", "currency_code")
"""Those that may as well spoil an update of a listing that is held, and then stays as it was."""

OF_A_FIELD: dict[str, Spoil] = {"gtin_check_digit": _bad_gtin}
"""Rules whose breach costs the field; the listing lives."""

OF_THE_PICTURE = ("picture_missing", "picture_truncated")
"""Rules that a picture breaks; the listing lives by its text."""

REPEATED = "listing_id_unique"
"""A file names a listing twice; the newer row stays."""
