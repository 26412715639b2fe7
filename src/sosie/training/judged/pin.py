"""Which export of judgements models learn from.

    <repository>/judgements.yaml             digest of the export in use (null: none), and what it holds; kept by git
    <repository>/var/judgements/<digest>/    the export (see `data`)

Stage `judgements` parts the pinned export, and DVC keeps what it writes: a checkout that has `dvc pull`ed needs neither
the export nor the lake.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from sosie.errors import DatasetError
from sosie.training.judged.data import Judged

FILE = "judgements.yaml"
_HEAD = """\
# The judgements that models learn from: written by `sosie judgements export`, read by stage `judgements` of dvc.yaml.
# `digest` null means none. Commit it with dvc.lock, as both say what a model was trained on.
"""


def digest_of(judged: Judged) -> str:
    """Of everything that training sees of it."""
    content = "\0".join(frame.write_ndjson() for frame in (judged.pairs, judged.listings, judged.around))
    return hashlib.sha256(f"{judged.about['catalogue']}\0{content}".encode()).hexdigest()[:16]


def folder(repository: Path, digest: str) -> Path:
    """Where an export lies."""
    return repository / "var" / "judgements" / digest


def pin(repository: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Say which export models learn from; the time stands beside it only where that is another one than before."""
    before = pinned(repository)
    if before.get("digest") == told["digest"] and (repository / FILE).is_file():
        return before
    said = {**told, "exported_at": datetime.now(UTC).isoformat(timespec="seconds")} if told["digest"] else dict(told)
    beside = repository / f".{FILE}"
    beside.write_text(_HEAD + yaml.safe_dump(said, sort_keys=False))
    beside.replace(repository / FILE)
    return said


def pinned(repository: Path) -> dict[str, Any]:
    """What judgements.yaml says; a digest of None where nothing is pinned. Raises `DatasetError`."""
    file = repository / FILE
    try:
        held = yaml.safe_load(file.read_text()) if file.is_file() else {"digest": None}
    except yaml.YAMLError:
        held = None
    if not isinstance(held, dict) or "digest" not in held:
        raise DatasetError(f"{file} names no export of judgements; run `sosie judgements export` to write it anew.")
    return held


def forget(repository: Path) -> None:
    """Pin none: what is trained from now on learns from no judgement."""
    pin(repository, {"digest": None})


def read_pinned(repository: Path) -> tuple[Judged, Path | None]:
    """The pinned export and its folder; no judgement and None where none is pinned. Raises `DatasetError`."""
    digest = pinned(repository)["digest"]
    if digest is None:
        return Judged.none(), None
    place = folder(repository, str(digest))
    judged = Judged.read(place)
    if digest_of(judged) != digest:
        raise DatasetError(
            f"{place} is missing or not what {FILE} pins; remove it and run `sosie judgements export` again, "
            "or `dvc pull` what was made of it."
        )
    return judged, place
