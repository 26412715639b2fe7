"""Benchmarks: what a figure says, and that the command runs one, shows it and keeps it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sosie.bench import Figure, against, interleaved, page, run, within
from sosie.bench.table import markdown, number
from sosie.cli import EXIT_TERMINAL, app
from sosie.errors import TerminalError

rates = st.floats(1e-3, 1e9)

TOY = """
from sosie.bench import Figure, Size, script, within

def measure(size: Size) -> list[Figure]:
    return [within("weight", 3.0 if size == "small" else 30.0, "kg", 4.0, at_most=True, note="of a toy")]

if __name__ == "__main__":
    script(measure, __doc__)
"""


@given(work=rates, ours=rates, theirs=rates, goal=st.floats(0.1, 100))
def test_a_rate_beside_a_peer_is_how_often_we_are_faster(work: float, ours: float, theirs: float, goal: float) -> None:
    found = against("rows", work, "rows", ours, "them", theirs, goal)
    assert found.ratio == pytest.approx(theirs / ours)
    assert found.met == (found.ratio >= goal)
    assert (page.over_goal(found) >= 1) == found.met
    assert Figure.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@given(value=rates, limit=rates)
def test_a_limit_is_kept_on_its_own_side(value: float, limit: float) -> None:
    assert within("x", value, "s", limit, at_most=True).met == (value / limit <= 1)
    assert within("x", value, "s", limit, at_most=False).met == (value / limit >= 1)
    assert Figure("x", value, "s", "them", limit).met is None


def test_every_way_has_its_turn_in_every_round() -> None:
    order: list[str] = []
    found = interleaved(2, {"a": lambda: order.append("a"), "b": lambda: order.append("b")})
    assert order == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (12_345.6, 99.44, 0.98765)] == ["12,346", "99.4", "0.988"]


def test_a_benchmark_is_a_file_that_measures(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "tool.py").write_text("def main() -> None: ...\n")
    assert run.names(tmp_path) == ["toy"]
    (found,) = run.run([], "small", tmp_path)
    assert [(each.value, each.met, each.note) for each in found.figures] == [(3.0, True, "of a toy")]
    assert found.command == "sosie bench toy --size small"
    kept = run.record([found], "small")
    assert kept["benchmarks"][0]["figures"][0]["ratio"] == 0.75
    assert "| toy | weight; of a toy | limit | 3 kg | 4 kg | 0.75 | ≤ 1 (met) |" in markdown(
        {"toy": found.figures}, run.told([found], "small")
    )
    page.write({"toy": found.figures}, tmp_path / "out" / "index.html")
    assert "toy: weight" in (tmp_path / "out" / "index.html").read_text()


def test_one_that_fails_says_how_to_run_it_alone(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY.replace("30.0", "1 / 0").replace("3.0", "1 / 0"))
    with pytest.raises(TerminalError, match=r"benchmarks/toy\.py --size small"):
        list(run.run(["toy"], "small", tmp_path))


def test_the_command_names_what_there_is() -> None:
    told = CliRunner().invoke(app, ["bench", "--list"])
    assert told.exit_code == 0
    assert "embedding" in told.output.split()
    wrong = CliRunner().invoke(app, ["bench", "nothing"])
    assert wrong.exit_code == EXIT_TERMINAL
    assert "embedding" in wrong.output
