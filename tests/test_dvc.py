"""The training graph, as DVC itself reads it: who may see what, what it depends on, and what its lock file promises."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from sosie.errors import ModelError
from sosie.registry import KINDS
from sosie.settings import PROJECT
from sosie.training import outputs, release

PROFILES = ("small", "full")
STAGES = (
    "prepare", "pretrain_text", "train_text", "cross_text", "pretrain_image", "train_image", "fit_reduction", "export",
    "train_light_text", "judgements", "train_decider", "train_light_decider", "evaluate",
)  # fmt: skip
DECIDERS = {"train_decider", "train_light_decider"}
PLUMBING = {
    "src/sosie/__init__.py", "src/sosie/errors.py", "src/sosie/faults.py", "src/sosie/gate.py", "src/sosie/logs.py",
    "src/sosie/places.py", "src/sosie/settings.py", "src/sosie/tables.py", "src/sosie/training/outputs.py",
    "src/sosie/training/profile.py", "src/sosie/training/torchvision_ops.py",
}  # fmt: skip
"""What every stage imports and what gives no stage another result."""


@pytest.fixture(scope="module")
def graph() -> dict[str, Any]:
    """Stage name → stage of the repository."""
    with Repo(PROJECT) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def paths(graph: dict[str, Any], name: str, kind: str) -> set[str]:
    """Deps or outs of a stage, relative to the repository, without those that are params."""
    return {item.def_path for item in getattr(graph[name], kind) if not hasattr(item, "params")}


def params(graph: dict[str, Any], name: str) -> list[str]:
    """Knobs of params.yaml that a stage depends on."""
    knobs = (dep for dep in graph[name].deps if hasattr(dep, "params") and dep.def_path == "params.yaml")
    return [key for dep in knobs for key in dep.params]


def module_of(graph: dict[str, Any], name: str) -> str:
    python, option, module, *profile = graph[name].cmd.split()
    assert (python, option, profile) == ("python", "-m", ["--profile", name.partition("@")[2]])
    return str(module)


def test_every_stage_has_both_profiles(graph: dict[str, Any]) -> None:
    assert set(graph) == {f"{stage}@{profile}" for stage in STAGES for profile in PROFILES}


@pytest.mark.parametrize("stage", STAGES)
def test_every_command_runs_a_module_with_a_main(graph: dict[str, Any], stage: str) -> None:
    assert callable(importlib.import_module(module_of(graph, f"{stage}@small")).main)


@pytest.mark.parametrize("profile", PROFILES)
def test_nobody_sees_what_he_must_not(graph: dict[str, Any], profile: str) -> None:
    """No part of the data reaches a stage, not even through another one, that must not learn from it."""
    data = f"var/training/{profile}/data"
    readers = {
        part: {stage for stage in STAGES if f"{data}/{part}" in paths(graph, f"{stage}@{profile}", "deps")}
        for part in ("encoder", "decider", "test")
    }
    assert readers["test"] == {"evaluate"}
    # The reduction of either kind is chosen, and the served encoder measured, on groups that it did not learn from. The
    # encoders of `cross_text` and of `train_light_text` that serve nothing learn from them, for the deciders to learn
    # from the encoders' part.
    both = {"cross_text", "fit_reduction", "export", "train_light_text", *DECIDERS, "evaluate"}
    assert readers["decider"] == both
    # The decider meets listings that the encoder of their vectors learned from as bystanders only (`test_among.py`).
    text, image = {"pretrain_text", "train_text"}, {"pretrain_image", "train_image"}
    assert readers["encoder"] == {*text, *image, *both}
    judged = {
        part: {stage for stage in STAGES if f"{data}/judged/{part}" in paths(graph, f"{stage}@{profile}", "deps")}
        for part in ("learn", "held")
    }
    assert judged == {"learn": {*DECIDERS, "evaluate"}, "held": {"evaluate"}}
    assert not any(
        path == data or path == f"var/training/{profile}" for name in graph for path in paths(graph, name, "deps")
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_every_dep_is_code_or_data_or_made_by_a_stage_before(graph: dict[str, Any], profile: str) -> None:
    made: set[str] = set()
    for stage in STAGES:
        name = f"{stage}@{profile}"
        for dep in paths(graph, name, "deps"):
            assert dep in made or dep.startswith("src/") or (stage, profile, dep) == ("prepare", "full", "data"), dep
        made |= paths(graph, name, "outs")
        assert all(out.startswith(f"var/training/{profile}/") for out in paths(graph, name, "outs"))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("stage", STAGES)
def test_params_are_knobs_of_the_profile(graph: dict[str, Any], stage: str, profile: str) -> None:
    knobs = yaml.safe_load((PROJECT / "params.yaml").read_text())
    names = params(graph, f"{stage}@{profile}")
    assert names
    for name in names:
        assert name.startswith(f"training.{profile}.")
        assert reduce(lambda section, part: section[part], name.split("."), knobs) is not None


def test_a_knob_of_the_decider_trains_no_encoder(graph: dict[str, Any]) -> None:
    told = {stage for stage in STAGES if any(".decider" in name for name in params(graph, f"{stage}@full"))}
    assert told == {*DECIDERS, "evaluate"}  # which trains it again under other seeds


@pytest.mark.parametrize("stage", STAGES)
def test_code_that_a_stage_runs_is_among_its_deps(graph: dict[str, Any], stage: str) -> None:
    deps = paths(graph, f"{stage}@full", "deps")
    code = imported(module_of(graph, f"{stage}@full")) - PLUMBING
    assert [file for file in sorted(code) if not deps & {file, *map(str, Path(file).parents)}] == []


@cache
def source(module: str) -> str | None:
    path = Path("src", *module.split("."))
    return next(
        (str(file) for file in (path.with_suffix(".py"), path / "__init__.py") if (PROJECT / file).exists()), None
    )


def imported(start: str) -> set[str]:
    """Files of ours that a module imports, wherever in it, and what those import."""
    found, ahead = set[str](), [start]
    while ahead:
        file = source(ahead.pop())
        if file is None or file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse((PROJECT / file).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sosie"):
                inside = [f"{node.module}.{name.name}" for name in node.names]
                ahead += [name if source(name) else node.module for name in inside]
    return found


# --- what the lock file promises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", release.RELEASED)
def test_the_models_in_git_are_those_that_dvc_lock_records(name: str) -> None:
    """`embedding_version` and `decider_version` are digests of these very files, so the lock is their source."""
    known = release.locked(PROJECT / "dvc.lock", f"var/training/full/models/{name}")
    if known is None:
        pytest.skip("dvc.lock has no training of the full profile yet")
    assert release.listing(PROJECT / "models" / name) == known


# --- a small project of its own, under real DVC ---------------------------------------------------------------------

PIPELINE = """
vars:
  - profiles: {small: {}}
stages:
  export:
    foreach: ${profiles}
    do:
      cmd: python -m copying --profile ${key}
      deps: [copying.py, shipped]
      params:
        - training.${key}.seed
      outs:
        - var/training/${key}/models/text: {persist: true}
        - var/training/${key}/models/image
        - var/training/${key}/models/decider
        - var/training/${key}/models/light/text
        - var/training/${key}/models/light/decider
"""
COPYING = """
import shutil
for name in ("text", "image", "decider", "light/text", "light/decider"):
    shutil.copytree(f"shipped/{name}", f"var/training/small/models/{name}", dirs_exist_ok=True)
"""


def run(project: Path, *command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = subprocess.run(command, cwd=project, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository under git and DVC whose one stage exports models."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "models", folder / "shipped")
    shutil.copytree(PROJECT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(PROJECT / ".dvcignore", folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("training: {small: {seed: 1}}")
    (folder / "copying.py").write_text(COPYING)
    (folder / ".gitignore").write_text("var/\n")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet", "export@small")
    return folder


def test_models_come_back_from_a_remote(project: Path, tmp_path: Path) -> None:
    models = project / "var" / "training" / "small" / "models"
    before = {name: release.listing(models / name) for name in release.RELEASED}
    run(project, "dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    run(project, "dvc", "push", "--quiet")
    shutil.rmtree(project / "var")
    shutil.rmtree(project / ".dvc" / "cache")
    run(project, "dvc", "pull", "--quiet")
    assert {name: release.listing(models / name) for name in release.RELEASED} == before
    assert "up to date" in run(project, "dvc", "status")


def test_only_what_was_locked_is_released(project: Path) -> None:
    released = release.release("small", project)
    for name in release.RELEASED:
        assert (project / "models" / name / "model.json").read_bytes() == (
            PROJECT / "models" / name / "model.json"
        ).read_bytes()
    assert set(released) == set(KINDS)
    (project / "var" / "training" / "small" / "models" / "decider" / "stray").touch()
    with pytest.raises(ModelError, match=r"decider is not what dvc\.lock records\. Run `dvc repro evaluate@small`"):
        release.release("small", project)
    with pytest.raises(ModelError, match=r"text is not what dvc\.lock records"):
        release.release("full", project)


def test_a_stage_goes_on_only_from_what_was_begun_alike(project: Path) -> None:
    text, image = (project / "var" / "training" / "small" / "models" / name for name in ("text", "image"))

    def begin() -> bool:
        """Whether the checkpoint of the try before is still there."""
        outputs.begin("small", "copying", project)
        kept = (text / "last.pt").exists()
        (text / "last.pt").touch()
        return kept

    assert begin() is False
    assert (text / "model.json").exists(), "what does not tell what it was begun from is taken over"
    assert begin() is True
    (project / "params.yaml").write_text("training: {small: {seed: 1, other: 2}}")
    assert begin() is True
    (project / "params.yaml").write_text("training: {small: {seed: 2}}")
    assert begin() is False
    (project / "shipped" / "decider" / "model.json").write_text("{}")
    assert begin() is False
    assert (image / "model.json").exists(), "DVC clears by itself what does not persist"
