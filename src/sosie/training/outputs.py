"""What a stage left behind, and whether it may go on from that.

DVC does not clear the outputs that `dvc.yaml` marks `persist` before it runs their stage again, so that a stage which
was interrupted can resume. But a stage is also run again after its code, knobs or data changed, and must not hand over
the old weights as the result of the new ones. So each persisted folder tells what it was begun from.
"""

import hashlib
import json
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

import structlog
import yaml

from sosie.settings import PROJECT

log = structlog.get_logger()

BEGUN = ".begun"


def begin(profile: str, module: str, project: Path = PROJECT) -> None:
    """Empty the persisted outputs of a stage that were begun from other deps or params than it has now.

    `module` is the one that the stage's command runs; one without such outputs has nothing to begin. A folder that does
    not tell what it was begun from is taken over.
    """
    stages = [spec["do"] for spec in yaml.safe_load((project / "dvc.yaml").read_text())["stages"].values()]
    command = f"python -m {module} --profile ${{key}}"
    for stage in (each for each in stages if each["cmd"] == command):
        persisted = [path for entry in stage.get("outs", ()) if isinstance(entry, dict) for path in entry]
        now = _digest(project, stage, profile) if persisted else ""
        for folder in (project / path.replace("${key}", profile) for path in persisted):
            note = folder / BEGUN
            if note.exists() and note.read_text() != now:
                log.info("begun from something else, so begun anew", folder=str(folder))
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            note.write_text(now)


def _digest(project: Path, stage: dict[str, Any], profile: str) -> str:
    """Over the values of the stage's params and every file of its deps."""
    knobs = yaml.safe_load((project / "params.yaml").read_text())
    digest = hashlib.sha256()
    for key in (name.replace("${key}", profile) for name in stage["params"]):
        value = reduce(lambda section, part: section[part], key.split("."), knobs)
        digest.update(f"{key} {json.dumps(value)}\n".encode())
    for dep in (project / name.replace("${key}", profile) for name in stage["deps"]):
        files = [dep] if dep.is_file() else sorted(path for path in dep.rglob("*") if path.is_file())
        for file in (file for file in files if "__pycache__" not in file.parts):
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{file.relative_to(project)} {content}\n".encode())
    return digest.hexdigest()
