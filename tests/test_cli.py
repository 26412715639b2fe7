"""The command line, as a user types it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import psutil
import pytest
from homes import AS_A_USER, heeds_permissions
from typer.testing import CliRunner

from sosie import landing, settings, tables
from sosie.cli import EXIT_TERMINAL, EXIT_TRANSIENT, app
from sosie.index import server
from sosie.lake import Lake
from sosie.simulate import Marketplace, write

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SOSIE_HOME", str(tmp_path / "home"))
    settings.settings.cache_clear()
    yield tmp_path / "home"
    settings.settings.cache_clear()


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    told = runner.invoke(app, ["--help"])
    assert told.exit_code == 0
    for command in ("demo", "run", "simulate", "evaluate", "judge", "judgements", "rebuild"):
        assert command in told.output
    heavy = ("polars", "torch", "pandas", "feast", "airflow", "great_expectations", "onnxruntime", "pymilvus")
    code = f"import sys, sosie.cli; sys.exit(any(name in sys.modules for name in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_is_one_sentence_and_an_exit_status(tmp_path: Path) -> None:
    told = runner.invoke(app, ["evaluate", str(tmp_path)])
    assert told.exit_code == EXIT_TERMINAL
    assert "DatasetError" in told.output
    assert "Traceback" not in told.output


def test_simulate_then_evaluate_as_json(tmp_path: Path) -> None:
    market = tmp_path / "market"
    made = runner.invoke(app, ["simulate", str(market), "--listings", "60", "--hours", "1", "--no-pictures"])
    assert made.exit_code == 0, made.output
    found = runner.invoke(app, ["evaluate", str(market), "--matcher", "tfidf", "--json"])
    assert found.exit_code == 0, found.output
    scores = json.loads(found.stdout)
    assert scores["rows"] == pl.read_parquet(market / "truth.parquet").height
    assert 0 < scores["metrics"]["all"]["row"]["f1"] <= 1


def test_a_market_is_written_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = runner.invoke(app, ["simulate", str(tmp_path / "file")], env={"COLUMNS": "300"})
    assert (told.exit_code, "is a file" in told.output) == (EXIT_TERMINAL, True)


@pytest.mark.parametrize("hour", ["yesterday", "2026-01-05", "2026-01-05T9"])
def test_a_run_is_named_by_its_hour(tmp_path: Path, hour: str) -> None:
    told = runner.invoke(app, ["run", "--landing", str(tmp_path), "--hour", hour])
    assert told.exit_code == EXIT_TERMINAL
    assert "2026-01-05T09" in told.output


def test_an_hour_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    told = runner.invoke(app, ["run", "--landing", str(tmp_path), "--hour", "2962-01-05T09"], env={"COLUMNS": "300"})
    assert (told.exit_code, "2962-01-05T09 hasn't begun" in told.output) == (EXIT_TERMINAL, True)


def test_help_names_the_extra_that_an_option_needs() -> None:
    assert "sosie[ray]" in runner.invoke(app, ["rebuild", "--help"], env={"COLUMNS": "300"}).output


def test_who_judges_otherwise_than_another_is_told_whom(home: Path) -> None:
    row = {"title": "x", "updated_at": datetime(2026, 1, 5, tzinfo=UTC), "is_deleted": False, "content_hash": "0",
           "first_seen_run": "2026-01-05T00"}  # fmt: skip
    listings = [dict.fromkeys(tables.LISTINGS.columns) | row | {"listing_id": one} for one in "ab"]
    Lake(settings.settings().lake_uri).append(tables.LISTINGS, pl.DataFrame(listings, schema=tables.LISTINGS.schema))
    first = runner.invoke(app, ["judge", "b", "a", "different", "--who", "ada"])
    assert (first.exit_code, "ada said" in first.output) == (0, False)
    second = runner.invoke(app, ["judge", "a", "b", "same", "--who", "bob"])
    assert second.exit_code == 0, second.output
    assert "a and b: same. The next run applies it. ada said different on" in second.output


def test_a_command_that_is_asked_to_end_ends_what_it_has_started(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "market", Marketplace(listings=60, hours=1, seed=3, with_pictures=False))
    command = [str(Path(sys.executable).with_name("sosie")), "run", "--landing", str(tmp_path / "market" / "landing")]
    given = settings.settings()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (served := server.process(given)) is None and running.poll() is None:
        time.sleep(0.05)
    assert served is not None
    running.terminate()
    assert running.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs([served], timeout=10)[1] == []


def test_judging_an_unknown_listing_says_so(home: Path) -> None:
    told = runner.invoke(app, ["judge", "a", "b", "same"])
    assert told.exit_code == EXIT_TERMINAL
    assert "No listing 'a' and no listing 'b'" in told.output.replace("\n", " ")


def test_a_replay_lands_where_it_is_told_to_and_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    hour, rule, feed = "2026-01-05T09", "title_present", tmp_path / "feed"
    row = dict.fromkeys(tables.QUARANTINE.columns) | {
        "run_id": hour,
        "source_file": f"{hour}/feed.csv",
        "row_number": 0,
        "rule": rule,
        "row": '{"listing_id": "a", "updated_at": "2026-01-05"}',
    }
    Lake(settings.settings().lake_uri).upsert(tables.QUARANTINE, pl.DataFrame([row], schema=tables.QUARANTINE.schema))
    asked = ["replay", "--hour", hour, "--rule", rule]

    astray = runner.invoke(app, asked)
    assert astray.exit_code == EXIT_TERMINAL
    assert f"There is no landing folder {home / 'landing'}" in astray.output
    assert "--landing" in astray.output

    feed.mkdir()
    told = runner.invoke(app, [*asked, "--landing", str(feed)])
    assert told.exit_code == 0, told.output
    now = f"{datetime.now(UTC):%Y-%m-%dT%H}"
    assert told.output.endswith(f"sosie run --landing {feed} --hour {now}\n")
    (landed,) = landing.files(feed, now, {})
    assert str(feed / landed.path) in told.output
    again = runner.invoke(app, [*asked, "--landing", str(feed)])
    assert again.exit_code == EXIT_TERMINAL
    assert f"{feed / landed.path} holds these rows already" in again.output


@pytest.mark.parametrize(
    "command",
    ["run", "rebuild", "upkeep", "alerts --resend", "silence review_queue --until 2d --note x", "features lookup a"],
)
def test_a_home_that_is_a_file_is_told_in_a_sentence(home: Path, tmp_path: Path, command: str) -> None:
    home.write_text("no folder")
    told = runner.invoke(app, command.split() + (["--landing", str(tmp_path)] if command == "run" else []))
    assert told.exit_code in (EXIT_TERMINAL, EXIT_TRANSIENT), told.output
    assert f"{home}" in told.output.splitlines()[-1]


@heeds_permissions
def test_a_run_tells_what_stopped_it_and_not_what_kept_its_alert_back(home: Path, tmp_path: Path) -> None:
    (home / "lake").mkdir(parents=True)
    (home / "lake").chmod(0o500)
    code = f"from sosie.cli import app; app(['run', '--landing', {str(tmp_path)!r}])"
    told = subprocess.run([*AS_A_USER, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode in (EXIT_TERMINAL, EXIT_TRANSIENT), told.stderr
    assert f"{home}/lake/_staging" in told.stderr.splitlines()[-1]
