"""The commands that documents tell people to type are there, and their queries run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from sosie import settings as config
from sosie import tables
from sosie.cli import app
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings

PAGES = sorted((PROJECT / "docs").rglob("*.md"))
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def lines(page: Path) -> list[str]:
    """Lines of the page's shell blocks, those that go on put together."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_there(page: Path) -> None:
    named = re.findall(r"(?:^|`|\| )sosie ([a-z]+)", "\n".join([*lines(page), page.read_text()]), flags=re.MULTILINE)
    assert set(named) <= COMMANDS
    for setting in re.findall(r"SOSIE_[A-Z_]+__[A-Z_]+", page.read_text()):
        section: Any = Settings
        for name in setting.removeprefix("SOSIE_").lower().split("__"):
            assert name in section.model_fields, setting
            section = section.model_fields[name].annotation


def test_every_query_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
    config.settings.cache_clear()
    Lake(str(tmp_path / "lake")).create(tables.ALL)
    queries = [(page.stem, line) for page in PAGES for line in lines(page) if line.startswith("sosie sql ")]
    assert len(queries) > 20
    for page, line in queries:
        told = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert told.exit_code == 0, (page, line, told.output)
    for wrong, why in (
        ("select nothing from nowhere", "nowhere"),
        (" ;", "The query is empty"),
        ("select nothing from runs", 'unable to find column "nothing"'),
        ("delete from runs", "delete is no query"),
        ("  DROP TABLE runs", "drop is no query"),
        ("insert into runs values (1)", "insert is no query"),
    ):
        told = CliRunner().invoke(app, ["sql", wrong])
        assert (told.exit_code, told.output.count("\n"), why in told.output) == (2, 1, True), told.output
    config.settings.cache_clear()
