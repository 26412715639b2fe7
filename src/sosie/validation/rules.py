"""The rules as data: what each asks of a row, which expectation checks it, and what happens where it is broken."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any

from sosie.settings import Validation

MAX_FLOAT = 1.7976931348623157e308

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # in naive UTC as the checked frame has it
"""No listing is older than marketplaces are."""


class Effect(Enum):
    """What a broken rule does."""

    ROW = "the row is quarantined"
    FIELD = "the field is emptied and noted in quarantine; the row goes on"
    WARNING = "it is counted, nothing else"


@dataclass(frozen=True)
class Limits:
    """What the rules of one batch depend on."""

    rules: Validation
    now: datetime

    @property
    def latest(self) -> datetime:
        """The last moment that is not in the future, in naive UTC as the checked frame has it."""
        return self.now.replace(tzinfo=None) + timedelta(minutes=self.rules.max_clock_skew_minutes)


@dataclass(frozen=True)
class Rule:
    """`checks` is the column that the expectation looks at, where it isn't `column` itself, whose value is shown.

    `expectation` names a class of `great_expectations.expectations`. A row that deletes a listing is held only to the
    rules `of_deletes` too.
    """

    name: str
    column: str
    requires: str
    expectation: str
    arguments: Callable[[Limits], Mapping[str, Any]] = lambda _: {}
    checks: str = ""
    effect: Effect = Effect.ROW
    of_deletes: bool = False
    applies: Callable[[Limits], bool] = lambda _: True

    @property
    def checked_column(self) -> str:
        return self.checks or self.column

    def says(self, limits: Limits) -> str:
        return self.requires.format(rules=limits.rules, latest=limits.latest, earliest=EARLIEST)


@cache
def currencies() -> tuple[str, ...]:
    """ISO 4217 codes of everything that is legal tender somewhere today, as CLDR knows them."""
    from babel.core import get_global

    territories: Mapping[str, list[tuple[str, Any, Any, bool]]] = get_global("territory_currencies")
    return tuple(
        sorted({code for spans in territories.values() for code, _, end, tender in spans if tender and not end})
    )


PRESENT = "ExpectColumnValuesToNotBeNull"
ABSENT = "ExpectColumnValuesToBeNull"
BETWEEN = "ExpectColumnValuesToBeBetween"
MATCHES = "ExpectColumnValuesToMatchRegex"
LENGTH = "ExpectColumnValueLengthsToBeBetween"
ONE_OF = "ExpectColumnValuesToBeInSet"

CASTABLE = "castable"
UNIQUE = "listing_id_unique"
GTIN = "gtin_check_digit"
PICTURE = "picture_readable"

RULES = (
    Rule(CASTABLE, "cast_fault", "must have the type of its column", ABSENT, of_deletes=True),
    Rule("listing_id_present", "listing_id", "must be there", PRESENT, of_deletes=True),
    Rule(
        "listing_id_not_blank", "listing_id", "must not be blank", MATCHES, lambda _: {"regex": r"\S"},
        of_deletes=True,
    ),
    Rule(
        "listing_id_length", "listing_id", "must have at most {rules.max_listing_id_bytes} bytes in UTF-8", BETWEEN,
        lambda limits: {"max_value": limits.rules.max_listing_id_bytes}, checks="listing_id_bytes", of_deletes=True,
    ),
    Rule(UNIQUE, "listing_id", "must be there once in a file", ONE_OF, of_deletes=True),
    Rule("updated_at_present", "updated_at", "must be there", PRESENT, of_deletes=True),
    Rule(
        "updated_at_not_future", "updated_at", "must not be after {latest:%Y-%m-%d %H:%M} UTC", BETWEEN,
        lambda limits: {"max_value": limits.latest}, of_deletes=True,
    ),
    # Zero times of other systems, and numbers that are dates of a spreadsheet, which read as seconds since 1970.
    Rule(
        "updated_at_not_ancient", "updated_at", "must not be before {earliest:%Y-%m-%d}", BETWEEN,
        lambda _: {"min_value": EARLIEST}, of_deletes=True,
    ),
    Rule("title_present", "title", "must be there", PRESENT),
    Rule(
        "title_not_blank", "title", "must not be blank", MATCHES, lambda _: {"regex": r"\S"}, checks="visible_title",
    ),
    Rule(
        "title_length", "title", "must have at most {rules.max_title_length} characters", LENGTH,
        lambda limits: {"min_value": 1, "max_value": limits.rules.max_title_length},
    ),
    Rule(
        "price_range", "price", "must be finite, and 0 or more", BETWEEN,
        lambda _: {"min_value": 0, "max_value": MAX_FLOAT}, checks="checked_price",
    ),
    Rule(
        "currency_code", "currency", "must be an ISO 4217 code such as EUR", ONE_OF,
        lambda _: {"value_set": list(currencies())},
    ),
    Rule(
        "category_known", "category", "must be one of the known categories (validation.categories)", ONE_OF,
        lambda limits: {"value_set": list(limits.rules.categories or ())},
        applies=lambda limits: limits.rules.categories is not None,
    ),
    Rule(
        GTIN, "gtin", "must be 8, 12, 13 or 14 digits that end in their check digit", ONE_OF,
        lambda _: {"value_set": [True]}, checks="gtin_is_valid", effect=Effect.FIELD,
    ),
    Rule(
        "image_phash_hex", "image_phash", "must be 16 hexadecimal digits", MATCHES,
        lambda _: {"regex": r"^[0-9a-fA-F]{16}$"}, effect=Effect.FIELD,
    ),
    Rule(PICTURE, "picture_fault_rule", "must be readable", ABSENT, effect=Effect.FIELD),
    Rule(
        "currency_present", "currency", "should be there where a price is", PRESENT, effect=Effect.WARNING,
    ),
)  # fmt: skip
"""In the order in which a page shows them. `listing_id_unique` is checked over file and id together."""

BY_NAME = {rule.name: rule for rule in RULES}
EMPTYING = [rule.name for rule in RULES if rule.effect is Effect.FIELD]
"""Rules whose entries in quarantine are of rows that were taken in."""
