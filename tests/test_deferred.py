"""Modules that wait until they are used."""

import subprocess
import sys
from pathlib import Path

import pytest

from sosie.deferred import until_used


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `slow_to_import` that tells in a file when its code ran, and a library that wants it."""
    (tmp_path / "slow_to_import.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nanswer = 42\n"
    )
    (tmp_path / "library_of_others.py").write_text(
        "import slow_to_import\ndef rarely(): return slow_to_import.answer\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slow_to_import", "library_of_others"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "ran"


def test_code_runs_when_something_of_the_module_is_asked_for(slow: Path) -> None:
    with until_used("slow_to_import"):
        import library_of_others
    assert not slow.exists()
    assert library_of_others.rarely() == 42
    assert slow.exists()


def test_who_imports_it_afterwards_gets_it_as_ever(slow: Path) -> None:
    with until_used("slow_to_import"):
        import library_of_others  # noqa: F401
    from slow_to_import import answer

    assert answer == 42


def test_other_modules_and_later_imports_do_not_wait(slow: Path) -> None:
    before = list(sys.meta_path)
    with until_used("another_module"):
        import library_of_others  # noqa: F401
    assert slow.exists()
    assert sys.meta_path == before


def test_what_is_not_there_is_still_missing() -> None:
    with pytest.raises(ImportError), until_used("there_is_no_such_module"):
        import there_is_no_such_module  # noqa: F401


def test_feast_and_great_expectations_come_without_what_they_hardly_use() -> None:
    code = """
import sys
from sosie.deferred import until_used
from sosie.features.quick import lean

with until_used("scipy.stats"):
    import great_expectations
    from great_expectations import expectations
with lean():
    from feast import FeatureStore
loaded = [name for name in ("torch._C", "scipy.stats._stats_py") if name in sys.modules]
assert not loaded, loaded

from feast.torch_wrapper import get_torch
assert get_torch().ones(2).sum() == 2
import scipy.stats
assert scipy.stats.norm.cdf(0) == 0.5
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
