"""Pair sets of the entity-matching literature (ER-Magellan, DeepMatcher's and Ditto's text form)."""

import hashlib
import re
from pathlib import Path

import polars as pl

from sosie.errors import DatasetError
from sosie.evaluate.dataset import PAIRS, TRUTH, Dataset, feed

PARTS = ("train", "valid", "test")
_FIELD = re.compile(r"COL (\S+) VAL(?: (.*?))?(?= COL \S+ VAL|\s*$)", re.DOTALL)
_COLUMNS = {
    "name": "title", "title": "title", "description": "description", "manufacturer": "brand", "brand": "brand",
    "category": "category", "price": "price",
}  # fmt: skip


def recognises(folder: Path) -> bool:
    return all((folder / f"{part}.txt").is_file() for part in PARTS)


def read(folder: Path) -> Dataset:
    """All three parts. Equal texts on one side are one listing. Raises `DatasetError` with file and line."""
    listings: dict[str, dict[str, str | float | None]] = {}
    pairs: list[tuple[str, str, bool, str]] = []
    for part in PARTS:
        file = folder / f"{part}.txt"
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.split("\t")
            if len(fields) != 3 or fields[2].strip() not in ("0", "1"):
                raise DatasetError(
                    f"{file}, line {number}: expected two records and a label 0 or 1, separated by tabs; "
                    f"found {len(fields)} fields."
                )
            left, right = (_listing(listings, side, text) for side, text in zip("lr", fields[:2], strict=True))
            pairs.append((left, right, fields[2].strip() == "1", part))
    rows = pl.DataFrame(list(listings.values()), infer_schema_length=None)
    return Dataset(
        name=folder.resolve().name,
        shape="er-magellan",
        listings=feed(rows),
        truth=pl.DataFrame(schema=TRUTH),
        pairs=pl.DataFrame(pairs, schema=PAIRS, orient="row"),
        root=folder.resolve(),
    )


def _listing(listings: dict[str, dict[str, str | float | None]], side: str, text: str) -> str:
    listing_id = f"{side}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if listing_id not in listings:
        listings[listing_id] = {"listing_id": listing_id, "marketplace": side, **parse(text)}
    return listing_id


def parse(text: str) -> dict[str, str | float | None]:
    """`COL name VAL …` to the feed's columns. A model number, for which the feed has none, joins the title."""
    found: dict[str, str | float | None] = {"title": ""}
    model = ""
    for name, value in _FIELD.findall(text):
        value = value.strip()
        if name == "modelno":
            model = value
        elif name in _COLUMNS:
            found[_COLUMNS[name]] = value or None
    price = found.get("price")
    if isinstance(price, str):
        found["price"] = _number(price)
    title = str(found["title"] or "")
    found["title"] = f"{title} {model}".strip() if model and model.lower() not in title.lower() else title
    return found


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").lstrip("$ "))
    except ValueError:
        return None
