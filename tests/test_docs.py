"""The documentation builds, every link in it leads somewhere, and what it quotes is there."""

import re
import subprocess
import sys
from pathlib import Path

from sosie.settings import PROJECT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    front = (tmp_path / "site" / "index.html").read_text()
    assert "runbooks/" in front
    architecture = (tmp_path / "site" / "architecture" / "index.html").read_text()
    assert architecture.count('<pre class="mermaid">') == 3


def test_files_that_pages_name_are_there() -> None:
    for page in (PROJECT / "docs").rglob("*.md"):
        for named in re.findall(r"`((?:docker|src|benchmarks|tests|dags)/[\w./-]+)`", page.read_text()):
            assert (PROJECT / named).exists(), f"{page.name}: {named}"
