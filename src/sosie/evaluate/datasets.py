"""Labelled listings from disk, in the shapes that `sosie evaluate` and the training scripts know."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import polars as pl

from sosie.errors import DatasetError
from sosie.evaluate.dataset import PAIRS, Dataset, feed

SHAPES = """\
  shopee        a CSV with posting_id, title, label_group (and image, image_phash), or a folder that holds one
  pricerunner   a CSV with product_id, product_title, cluster_id, or a folder that holds one
  er-magellan   a folder with train.txt, valid.txt and test.txt: `COL … VAL …`, tab, `COL … VAL …`, tab, 0 or 1
  simulate      what `sosie simulate` wrote: truth.parquet (or .csv) beside landing/"""


Split = Literal["train", "test"]
Part = Literal["encoder", "decider", "test"]


def part_of(group: str) -> Part:
    """Who may learn from a group, by the digest of its id: the encoders 56 %, the decider 24 %, nobody 20 %.

    The decider must see cosines of listings that the encoders never saw, or it trusts them too much.
    """
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:2], "big") % 100
    return "test" if place < 20 else "decider" if place < 44 else "encoder"


def split_of(group: str) -> Split:
    """`test` for the fifth of the groups that no training stage sees, else `train`."""
    return "test" if part_of(group) == "test" else "train"


def split(groups: pl.Series) -> pl.Series:
    """`split_of` over a column."""
    return parts(groups).replace_strict({"encoder": "train", "decider": "train", "test": "test"})


def parts(groups: pl.Series) -> pl.Series:
    """`part_of` over a column."""
    unique = groups.unique()
    return groups.replace_strict(unique, pl.Series(map(part_of, unique), dtype=pl.String), return_dtype=pl.String)


def load(path: Path) -> Dataset:
    """Recognise the shape of `path` and read it. Raises `DatasetError` naming what was found and what can be read."""
    from sosie.evaluate import er, simulated

    path = path.expanduser()
    if path.is_file():
        return _checked(_table(path, path.parent.resolve().name, strict=True))
    if not path.is_dir():
        raise DatasetError(f"No dataset at {path}: there is no such file or folder. It can be:\n{SHAPES}")
    if simulated.recognises(path):
        return _checked(simulated.read(path))
    if er.recognises(path):
        return _checked(er.read(path))
    tables = [
        found for file in sorted(path.glob("*.csv")) if (found := _table(file, path.resolve().name, strict=False))
    ]
    if len(tables) == 1:
        return _checked(tables[0])
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    listed = ", ".join(entries[:10]) + (f" and {len(entries) - 10} more" if len(entries) > 10 else "")
    what = "several labelled CSVs; give one of them by its own path" if tables else "nothing in a known shape"
    raise DatasetError(f"{path} holds {what} (found: {listed or 'an empty folder'}). It can be:\n{SHAPES}")


def _table(file: Path, name: str, *, strict: bool) -> Dataset | None:
    try:
        columns = set(pl.read_csv(file, n_rows=0, infer_schema=False).columns)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        if not strict:
            return None
        raise DatasetError(f"{file} can't be read as CSV ({error}). It can be:\n{SHAPES}") from None
    for needed, read in _TABLES:
        if needed <= columns:
            return read(file, name)
    if not strict:
        return None
    raise DatasetError(f"{file} has the columns {', '.join(sorted(columns))}, which is no known shape:\n{SHAPES}")


def _shopee(file: Path, name: str) -> Dataset:
    rows = pl.read_csv(file, infer_schema=False)
    optional = [column for column in ("image", "image_phash") if column in rows.columns]
    # The pictures are published beside the table or in train_images/; without them the column would name nothing.
    folder = next((folder for folder in ("images", "train_images") if (file.parent / folder).is_dir()), None)
    listings = rows.select("title", *optional, listing_id="posting_id")
    if "image" in optional:
        uri = pl.lit(f"{folder}/") + pl.col("image") if folder else pl.lit(None, pl.String)
        listings = listings.with_columns(image_uri=uri)
    truth = rows.select(listing_id="posting_id", group="label_group")
    return Dataset(name, "shopee", feed(listings), truth, pl.DataFrame(schema=PAIRS), file.parent.resolve())


def _pricerunner(file: Path, name: str) -> Dataset:
    rows = pl.read_csv(file, infer_schema=False)
    renamed = {"listing_id": "product_id", "title": "product_title"}
    renamed |= {
        new: old for new, old in (("seller_id", "vendor_id"), ("category", "category_label")) if old in rows.columns
    }
    truth = rows.select(listing_id="product_id", group="cluster_id")
    return Dataset(
        name, "pricerunner", feed(rows.select(**{new: pl.col(old) for new, old in renamed.items()})), truth,
        pl.DataFrame(schema=PAIRS), file.parent.resolve(),
    )  # fmt: skip


_TABLES: tuple[tuple[set[str], Callable[[Path, str], Dataset]], ...] = (
    ({"posting_id", "title", "label_group"}, _shopee),
    ({"product_id", "product_title", "cluster_id"}, _pricerunner),
)


def _checked(dataset: Dataset | None) -> Dataset:
    if dataset is None or dataset.listings.is_empty():
        raise DatasetError(f"Dataset {dataset.name if dataset else '?'} has no rows; there is nothing to score.")
    ids = dataset.listings["listing_id"]
    if ids.null_count() or ids.n_unique() != ids.len():
        raise DatasetError(f"Dataset {dataset.name}: listing ids are missing or repeated; each row needs its own.")
    if dataset.has_groups:
        labelled = dataset.listings.select("listing_id").join(dataset.truth, on="listing_id", how="left")
        if unlabelled := labelled["group"].null_count():
            raise DatasetError(f"Dataset {dataset.name}: {unlabelled} of {ids.len()} rows have no true group.")
    return dataset
