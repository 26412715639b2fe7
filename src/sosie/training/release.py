"""Put the models that a profile trained where the repository ships them: `python -m sosie.training.release`.

Only what `dvc.lock` records is released, so that the files in git are those that the locked data, code and knobs gave.
"""

import hashlib
import json
import shutil
from pathlib import Path

import structlog
import yaml

from sosie.errors import ModelError
from sosie.registry import KINDS, versions_of
from sosie.settings import PROJECT
from sosie.training.profile import Profile, stage

log = structlog.get_logger()

RELEASED = (*KINDS, "light/text", "light/decider")
"""Folders below `models`. The light models share the picture encoder, by a link."""


def main(profile: Profile) -> None:
    """Copy what is served to `models/` of the repository."""
    release(profile.name, PROJECT)


def release(profile: str, project: Path) -> dict[str, str]:
    """Copy, and return the version of each model. Raises `ModelError` where a file is not the locked one."""
    trained, shipped = project / "var" / "training" / profile / "models", project / "models"
    for name in RELEASED:
        known = locked(project / "dvc.lock", f"var/training/{profile}/models/{name}")
        if known is None or known != listing(trained / name):
            raise ModelError(
                f"{trained / name} is not what dvc.lock records. Run `dvc repro evaluate@{profile}`, then this again."
            )
    for name in RELEASED:
        shutil.rmtree(shipped / name, ignore_errors=True)
        shutil.copytree(trained / name, shipped / name)
    versions = versions_of(shipped)
    log.info("released", profile=profile, **versions)
    return versions


def locked(lock: Path, folder: str) -> str | None:
    """The digest that dvc.lock records for an output that is a folder; None where it has none."""
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    outs = (out for stage in stages.values() for out in stage.get("outs", ()))
    return next((out["md5"] for out in outs if out["path"] == folder), None)


def listing(folder: Path) -> str:
    """DVC's digest of a folder: MD5 of the JSON list of its files, each with its own MD5, by their path."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    entries = [{"md5": _md5(folder / name), "relpath": name} for name in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


if __name__ == "__main__":
    stage(main, __doc__)
