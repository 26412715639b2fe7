"""Stage `prepare`: cut every labelled dataset into three that share no group.

    data/encoder/<name>   what the encoders learn from
    data/decider/<name>   what the decider learns from: listings that the served encoders never saw (see `cross_text`)
    data/test/<name>      what only `sosie evaluate` reads

Each is a dataset of its own in a shape that `sosie evaluate` knows. Real listings are parted by the digest of their
group; simulated marketplaces are made apart, from products parted by their picture, under seeds of their own. Labelled
pairs of the literature come in parts already: the decider gets train and valid, the test part is kept whole.
"""

import hashlib
import shutil
from pathlib import Path
from typing import get_args

import polars as pl
import structlog

from sosie.errors import DatasetError
from sosie.evaluate import datasets, er
from sosie.simulate import Marketplace, write
from sosie.training.profile import Parts, Profile, stage

log = structlog.get_logger()

PARTS: tuple[datasets.Part, ...] = get_args(datasets.Part)
_GROUP = {"label_group", "cluster_id"}


def main(profile: Profile) -> None:
    """Write all parts anew."""
    root = profile.prepare.data
    for part in PARTS:
        shutil.rmtree(profile.data(part), ignore_errors=True)
        profile.data(part).mkdir(parents=True)
    for name in (*profile.prepare.real, *profile.prepare.pairs, *(["fashion"] if profile.prepare.fashion else [])):
        if not (root / name).is_dir():
            raise DatasetError(
                f"Profile {profile.name} needs {root / name}, which is not there; link or copy the public datasets to "
                f"{root}, or train with --profile small, which makes its own."
            )
    for name in profile.prepare.real:
        _part_table(root / name, profile)
    for name in profile.prepare.pairs:
        _part_pairs(root / name, profile)
    if profile.prepare.fashion:
        _part_products(root / "fashion", profile.prepare.fashion, profile)
    _simulate("generated", profile.prepare.generated, profile)


def _part_table(source: Path, profile: Profile) -> None:
    """The rows of a labelled CSV, unchanged, by the part of their group."""
    (file,) = source.glob("*.csv")
    rows = pl.read_csv(file, infer_schema=False)
    (group,) = _GROUP.intersection(rows.columns)
    for part, mine in rows.group_by(datasets.parts(rows[group]).alias("part"), maintain_order=True):
        out = profile.work / "data" / str(part[0]) / source.name / file.name
        out.parent.mkdir()
        mine.write_csv(out)
        log.info("parted", dataset=source.name, part=part[0], rows=mine.height, groups=mine[group].n_unique())


def _part_pairs(source: Path, profile: Profile) -> None:
    """The decider's folder has an empty test.txt, so that it is a dataset of the same shape."""
    lines = {name: (source / f"{name}.txt").read_text(encoding="utf-8").splitlines(keepends=True) for name in er.PARTS}
    tested = {_records(line) for line in lines["test"]}
    # The parts were drawn by record number; records that read the same make some pairs of one part those of another.
    learned = {name: [line for line in lines[name] if _records(line) not in tested] for name in ("train", "valid")}
    for part, held in (("decider", {**learned, "test": []}), ("test", lines)):
        out = profile.work / "data" / part / source.name
        out.mkdir()
        for name in er.PARTS:
            (out / f"{name}.txt").write_text("".join(held[name]), encoding="utf-8")
    dropped = sum(len(lines[name]) - len(learned[name]) for name in learned)
    log.info("parted", dataset=source.name, decider="train, valid", test="test", dropped=dropped)


def _records(line: str) -> str:
    """Both records of a labelled pair, without the label."""
    return line.rsplit("\t", 1)[0]


def _part_products(source: Path, sizes: Parts, profile: Profile) -> None:
    """Products by the digest of their picture's bytes (equal pictures stay together), then a marketplace of each."""
    products = pl.read_csv(source / "products.csv", infer_schema=False)
    digests = [hashlib.sha256((source / name).read_bytes()).hexdigest() for name in products["image"]]
    products = products.with_columns(part=datasets.parts(pl.Series(digests)))
    for part in PARTS:
        table = profile.data(part) / "products.csv"
        mine = products.filter(pl.col("part") == part).drop("part")
        mine.write_csv(table)
        log.info("parted", dataset="fashion", part=part, products=mine.height)
    _simulate("fashion", sizes, profile, source / "images")


def _simulate(name: str, sizes: Parts, profile: Profile, images: Path | None = None) -> None:
    """A marketplace for each part, of one hour, none like another."""
    for place, part in enumerate(PARTS):
        options = Marketplace(
            products=profile.data(part) / "products.csv" if images else None,
            images=images,
            listings=getattr(sizes, part),
            hours=1,
            seed=1_000 * profile.seed + place,
        )
        summary = write(profile.data(part) / name, options)
        log.info("simulated", dataset=name, part=part, listings=summary.live, pictures=summary.pictures)


if __name__ == "__main__":
    stage(main, __doc__)
