"""What can be asked of a simulated marketplace."""

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from sosie.errors import SettingsError

_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")


@dataclass(frozen=True)
class Marketplace:
    """What to simulate. Shares of changes are per later hour, of `listings`; `malformed` is of an hour's rows.

    Attributes:
        products: CSV of real products (id, title, category, image; colour, second_image and more if known); where
            none is given, products are made up and drawn.
        images: folder of the products' pictures; `images` beside the CSV where none is given.
        listings: listings in the first hour.
        hours: hourly feeds, the first one included.
        start: the first hour, "YYYY-MM-DDTHH" in UTC.
        family_share: share of base products that come with variants: other sizes, colours, models, or a bundle of two.
        late: rows older than what was sent before; `unchanged`: rows sent again that say nothing new.
    """

    products: Path | None = None
    images: Path | None = None
    listings: int = 2_000
    hours: int = 2
    seed: int = 7
    start: str = "2026-01-05T00"
    new: float = 0.04
    text: float = 0.02
    image: float = 0.015
    price: float = 0.03
    deleted: float = 0.01
    late: float = 0.01
    unchanged: float = 0.05
    malformed: float = 0.01
    family_share: float = 0.25
    with_pictures: bool = True

    def __post_init__(self) -> None:
        if self.listings < 1 or self.hours < 1:
            raise SettingsError(
                f"A marketplace needs a listing and an hour; received listings={self.listings}, hours={self.hours}."
            )
        if self.seed < 0:
            raise SettingsError(f"A seed is 0 or more; received {self.seed}.")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is a share between 0 and 1; received {getattr(self, name)}.")
        if self.malformed > 0.5:
            raise SettingsError(f"malformed is at most 0.5 of an hour's rows; received {self.malformed}.")
        if (total := sum(getattr(self, name) for name in TOUCHING)) > 1:
            raise SettingsError(f"{' + '.join(TOUCHING)} touch {total:g} of the listings each hour; lower them to 1.")
        if self.images is not None and self.products is None:
            raise SettingsError("Pictures without products: give the products' CSV too, or neither.")
        self.first_hour()

    def first_hour(self) -> datetime:
        """`start` as a time. Raises `SettingsError`."""
        try:
            if not _HOUR.fullmatch(self.start):
                raise ValueError
            return datetime.strptime(self.start, "%Y-%m-%dT%H").replace(tzinfo=UTC)
        except ValueError:
            raise SettingsError(f"start is an hour such as 2026-01-05T00; received {self.start!r}.") from None

    def as_dict(self) -> dict[str, str | int | float | bool | None]:
        """Options as JSON can hold them, paths resolved."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in values.items()}


TOUCHING = ("text", "image", "price", "deleted", "late", "unchanged")
"""Kinds of row about a listing that was sent before; an hour has at most one of them for a listing."""

SHARES = ("new", *TOUCHING, "malformed", "family_share")
