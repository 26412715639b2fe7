"""Alerts through the real Apprise to a real web server: once each, retried, and with no secret left in the lake."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from receivers import Mailbox, serving, webhook
from typer.testing import CliRunner

from sosie import settings as config
from sosie.alerts import Alert, Channel, channels, deliver, outbox, send_by_apprise, silences
from sosie.cli import app
from sosie.errors import SettingsError, TerminalError
from sosie.lake import Lake
from sosie.tables import ALERTS

RUN = "2026-01-05T01"
LATER = "2026-01-05T02"
QUARANTINE = Alert(f"quarantine:{RUN}", "warning", "12 rows quarantined", "Look at the report.\nThen replay.")
FAILED = Alert(f"run_failed:{RUN}", "critical", "The run failed", "Milvus is away.")

COUNTS = ("sent", "failed", "dead", "already_sent", "silenced")


def once(**given: Any) -> config.Alerts:
    """Channels that are tried once a delivery, without pauses."""
    return config.Alerts(**{"tries_at_once": 1, "max_attempts": 5, **given})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def held(lake: Lake) -> dict[tuple[str, str], tuple[str, int]]:
    rows = lake.read(ALERTS).iter_rows(named=True)
    return {(row["key"], row["channel"].partition(":")[0]): (row["state"], row["attempts"]) for row in rows}


def test_each_alert_reaches_each_channel_once(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    with webhook() as hook:
        to = once(urls=(hook.url,))
        first = deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)
        version = lake.version(ALERTS)
        again = deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)
    assert first == {"sent": 4, "failed": 0, "dead": 0, "already_sent": 0, "silenced": 0}
    assert again == {"sent": 0, "failed": 0, "dead": 0, "already_sent": 4, "silenced": 0}
    assert lake.version(ALERTS) == version, "a second delivery wrote to the lake"
    (body,) = hook.received
    assert body["title"] == f"1 critical, 1 warning · hour {RUN}"
    assert body["type"] == "failure"
    assert body["message"].index(FAILED.text) < body["message"].index(QUARANTINE.text), "the loudest comes first"
    assert f"Reference: digest:{RUN}:" in body["message"]
    assert capsys.readouterr().out.count(QUARANTINE.title) == 1


def test_a_channel_that_fails_is_tried_again_and_stops_no_other(lake: Lake) -> None:
    with webhook(500) as hook:
        to = once(urls=(hook.url,))
        first = deliver(lake, [QUARANTINE], settings=to, run_id=RUN)
        assert first == {"sent": 1, "failed": 1, "dead": 0, "already_sent": 0, "silenced": 0}
        assert held(lake) == {(QUARANTINE.key, "console"): ("sent", 1), (QUARANTINE.key, "json"): ("failed", 1)}
        # The next hour has no alerts of its own, and still delivers what the last one could not.
        second = deliver(lake, [], settings=to, run_id=LATER)
    assert second == {"sent": 1, "failed": 0, "dead": 0, "already_sent": 0, "silenced": 0}
    assert held(lake)[QUARANTINE.key, "json"] == ("sent", 2)
    assert (hook.tried, len(hook.received)) == (2, 1)
    assert hook.received[0]["title"] == QUARANTINE.title
    assert lake.read(ALERTS)["run_id"].unique().to_list() == [RUN], "a retry must not claim another run's alert"


def test_gives_up_after_max_attempts(lake: Lake) -> None:
    with webhook(*[500] * 9) as hook:
        to = once(urls=(hook.url,), console=False, max_attempts=2)
        counts = [deliver(lake, [QUARANTINE], settings=to, run_id=RUN) for _ in range(4)]
    assert [(c["failed"], c["dead"]) for c in counts] == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert hook.tried == 2
    assert held(lake) == {(QUARANTINE.key, "json"): ("dead", 2)}


class Killed(BaseException):
    """The process died."""


def test_a_crash_between_two_channels_sends_neither_twice_nor_never(lake: Lake) -> None:
    with webhook() as hook:
        to = once(urls=(hook.url,))

        def dies_at_the_second(channel: Channel, alert: Alert) -> bool:
            if channel.name != "console":
                raise Killed
            return send_by_apprise(channel, alert)

        with pytest.raises(Killed):
            deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies_at_the_second)
        assert held(lake) == {(QUARANTINE.key, "console"): ("sent", 1), (QUARANTINE.key, "json"): ("pending", 1)}
        assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN) == {
            "sent": 1,
            "failed": 0,
            "dead": 0,
            "already_sent": 1,
            "silenced": 0,
        }
    assert len(hook.received) == 1
    assert set(held(lake).values()) == {("sent", 1), ("sent", 2)}


def test_a_process_that_dies_at_every_attempt_is_given_up(lake: Lake) -> None:
    def dies(*_: object) -> bool:
        raise Killed

    to = once(max_attempts=2)
    for _ in range(2):
        with pytest.raises(Killed):
            deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies)
    assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies)["dead"] == 1


def test_no_secret_reaches_the_lake_or_the_log(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with webhook(500) as hook:
        deliver(lake, [QUARANTINE], settings=once(urls=(hook.url,)), run_id=RUN)
    said = capsys.readouterr()
    table = lake.read(ALERTS).write_csv() + "".join(
        path.read_text(errors="replace") for path in (tmp_path / "lake").rglob("*") if path.is_file()
    )
    for secret in ("s3cret-pass", "T0KEN-IN-PATH", "Bearer-abc"):
        assert secret not in table
        assert secret not in said.out + said.err


@pytest.mark.parametrize(
    ("url", "begins"),
    [
        ("json://u:p@hooks.example.org:8080/a/b", "json://hooks.example.org:8080#"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops", "slack://#"),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", "tgram://#"),
        ("mailto://joe:pw@example.org?to=ops@example.org", "mailto://example.org#"),
    ],
)
def test_channel_names_show_only_hosts_that_are_no_secret(url: str, begins: str) -> None:
    name = Channel.of(url).name
    assert name.startswith(begins)
    assert len(name) == len(begins) + 6
    assert Channel.of(url).name == name


def test_channel_names_survive_a_new_password_and_tell_two_paths_apart() -> None:
    old, new = (Channel.of(f"json://bot:{password}@host/a").name for password in ("one", "two"))
    assert old == new
    assert Channel.of("json://host/a").name != Channel.of("json://host/b").name
    assert len(channels(once(urls=("json://host/a", "json://host/a")))) == 2  # console and one


def test_an_unknown_url_is_named_without_its_secret_after_the_good_channels(lake: Lake) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.urls") as error:
        deliver(lake, [QUARANTINE], settings=once(urls=("nosuch://t0ken/x",)), run_id=RUN)
    assert "t0ken" not in str(error.value)
    assert held(lake)[QUARANTINE.key, "console"] == ("sent", 1)


def test_no_channels_no_rows(lake: Lake) -> None:
    assert deliver(lake, [QUARANTINE], settings=once(console=False), run_id=RUN)["sent"] == 0
    assert lake.version(ALERTS) == -1


def test_an_alert_refuses_what_no_channel_could_show() -> None:
    with pytest.raises(ValueError, match="Valid values are info, warning, critical"):
        Alert("k", "loud", "t", "")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one line"):
        Alert("k", "info", "two\nlines", "")


def test_the_outbox_keeps_its_schema(lake: Lake) -> None:
    deliver(lake, [QUARANTINE], settings=once(), run_id=RUN)
    assert lake.read(ALERTS).schema == pl.Schema(ALERTS.columns)


def test_what_waits_from_another_run_is_a_message_of_its_own(lake: Lake) -> None:
    with webhook(500) as hook:
        to = once(urls=(hook.url,), console=False)
        deliver(lake, [QUARANTINE], settings=to, run_id=RUN)
        later = Alert(f"run_failed:{LATER}", "critical", "The run failed again", "Milvus is still away.")
        assert deliver(lake, [later], settings=to, run_id=LATER)["sent"] == 2
    assert [body["title"] for body in hook.received] == [QUARANTINE.title, later.title]


def test_a_delivery_tries_a_few_times_before_it_leaves_it_to_the_next_run(lake: Lake) -> None:
    with webhook(500, 500) as hook:
        to = config.Alerts(urls=(hook.url,), console=False, pause_seconds=0)
        assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN)["sent"] == 1
    assert (hook.tried, len(hook.received)) == (3, 1)
    assert set(held(lake).values()) == {("sent", 3)}


def test_pagers_get_what_is_critical_alone(lake: Lake) -> None:
    with webhook() as pager, webhook() as inbox:
        to = once(urls=(inbox.url,), pager_urls=(pager.url,), console=False)
        assert deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)["sent"] == 3
    assert [body["title"] for body in pager.received] == [FAILED.title]
    assert len(inbox.received) == 1
    assert all(alert.title in inbox.received[0]["message"] for alert in (QUARANTINE, FAILED))


def test_a_mail_is_really_sent(lake: Lake) -> None:
    with serving(Mailbox()) as box:
        to = once(urls=(box.url,), console=False)
        assert deliver(lake, [FAILED], settings=to, run_id=RUN)["sent"] == 1
        assert deliver(lake, [FAILED], settings=to, run_id=RUN)["already_sent"] == 1
    (mail,) = box.received
    assert mail["To"] == "ops@example.org"
    assert FAILED.title in mail["Subject"]
    assert FAILED.text in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_a_silenced_rule_is_kept_and_not_sent_until_the_silence_expires(lake: Lake) -> None:
    now = datetime.now(UTC)
    silences.silence(lake, "quarantine", now + timedelta(hours=1), who="ann", note="known feed", now=now)
    with webhook() as hook:
        to = once(urls=(hook.url,), console=False)
        counts = deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)
        assert (counts["sent"], counts["silenced"]) == (1, 1)
        assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN)["sent"] == 0
        assert held(lake)[QUARANTINE.key, "json"] == ("silenced", 0)
        assert silences.active(lake, now + timedelta(hours=2)) == frozenset()
        assert silences.end(lake, "quarantine", now=datetime.now(UTC)) == 1
        next_hour = Alert(f"quarantine:{LATER}", "warning", "Again", "Rows.")
        assert deliver(lake, [next_hour], settings=to, run_id=LATER)["sent"] == 1
    assert [body["title"] for body in hook.received] == [FAILED.title, "Again"]


def test_a_silence_holds_for_what_could_not_be_delivered_before_it(lake: Lake) -> None:
    with webhook(500) as hook:
        to = once(urls=(hook.url,), console=False)
        assert deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)["failed"] == 2
        now = datetime.now(UTC)
        silences.silence(lake, "quarantine", now + timedelta(hours=1), who="ann", note="known feed", now=now)
        counts = deliver(lake, [], settings=to, run_id=LATER)
        assert (counts["sent"], counts["silenced"]) == (1, 1)
        assert held(lake)[QUARANTINE.key, "json"] == ("silenced", 1)
        silences.end(lake, "quarantine", now=datetime.now(UTC))
        again = deliver(lake, [], settings=to, run_id=LATER)
        assert (again["sent"], again["silenced"]) == (0, 0)
    assert [body["title"] for body in hook.received] == [FAILED.title]


@pytest.mark.parametrize(
    ("text", "hours"),
    [("30m", 0.5), ("4h", 4), ("2d", 48), ("1w", 168), ("2026-01-05T12:00", 3), ("2026-01-05T13:00+01:00", 3)],
)
def test_the_end_of_a_silence(text: str, hours: float) -> None:
    now = datetime(2026, 1, 5, 9, tzinfo=UTC)
    found = silences.until(text, now)
    assert (found, found.tzinfo) == (now + timedelta(hours=hours), UTC)


@pytest.mark.parametrize("text", ["soon", "99999999999d", "9999999w", "9999-12-31T23:59-05:00"])
def test_what_is_no_time_ends_no_silence(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--until '{text}' is no time"):
        silences.until(text, datetime(2026, 1, 5, 9, tzinfo=UTC))


def test_a_silence_must_end_later_than_now(lake: Lake) -> None:
    now = datetime(2026, 1, 5, 9, tzinfo=UTC)
    with pytest.raises(TerminalError, match="has passed"):
        silences.silence(lake, "quarantine", now, who="ann", note=None, now=now)


def test_the_shell_lists_dead_letters_sends_them_again_and_silences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    alert = Alert(f"review_queue:{RUN}", "warning", "Many pairs wait", "Judge some.")
    with webhook(500) as hook:
        deliver(lake, [alert], settings=once(urls=(hook.url,), console=False, max_attempts=1), run_id=RUN)
        monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
        monkeypatch.setenv("SOSIE_ALERTS__CONSOLE", "false")
        monkeypatch.setenv("SOSIE_ALERTS__URLS", f'["{hook.url}"]')
        config.settings.cache_clear()
        shell = CliRunner(env={"COLUMNS": "200"})
        assert "dead" in shell.invoke(app, ["alerts"]).output
        assert '"state":"dead"' in shell.invoke(app, ["alerts", "--json"]).output
        again = shell.invoke(app, ["alerts", "--resend"])
        assert again.exit_code == 0, again.output
        assert "1 taken up again; 1 sent" in again.output
        assert hook.received[0]["title"] == alert.title
        for wrong in (["--key", alert.key], ["--resend", "--key", "nope"]):
            assert shell.invoke(app, ["alerts", *wrong]).exit_code == 2
        assert "Every alert was delivered" in shell.invoke(app, ["alerts"]).output
        assert "sent" in shell.invoke(app, ["alerts", "--all"]).output
    assert "review_queue" in shell.invoke(app, ["alerts", "--rules"]).output
    rules = map(json.loads, shell.invoke(app, ["alerts", "--rules", "--json"]).output.splitlines())
    assert ("review_queue", "warning") in {(rule["rule"], rule["severity"]) for rule in rules}
    assert shell.invoke(app, ["silence", "review_queue", "--until", "4h", "--note", "holiday"]).exit_code == 0
    assert silences.active(lake, datetime.now(UTC)) == {"review_queue"}
    assert "holiday" in shell.invoke(app, ["silence"]).output
    assert shell.invoke(app, ["silence", "review_queue", "--end"]).exit_code == 0
    assert "No rule is silenced" in shell.invoke(app, ["silence"]).output
    assert shell.invoke(app, ["silence", "nosuch", "--until", "4h"]).exit_code == 2
    config.settings.cache_clear()


def test_only_what_was_asked_for_is_taken_up_again(lake: Lake) -> None:
    with webhook(500, 500) as hook:
        to = once(urls=(hook.url,), console=False, max_attempts=1)
        deliver(lake, [QUARANTINE], settings=to, run_id=RUN)
        deliver(lake, [FAILED], settings=to, run_id=LATER)
        assert outbox.revive(lake, FAILED.key, settings=to) == {"revived": 1, "moved": 0, "stranded": 0}
        deliver(lake, [], settings=to, run_id="resend")
    assert [body["title"] for body in hook.received] == [FAILED.title]


@pytest.mark.parametrize("attempts", [1, 5], ids=["given up", "still failing"])
def test_what_waits_for_a_url_that_was_mended_goes_to_the_new_one(lake: Lake, attempts: int) -> None:
    with webhook(500) as old, webhook() as new, webhook() as pager:
        broken = once(urls=(old.url,), max_attempts=attempts)
        deliver(lake, [QUARANTINE], settings=broken, run_id=RUN)
        mended = once(urls=(new.url,), pager_urls=(pager.url,))
        assert outbox.revive(lake, settings=mended) == {"revived": 0, "moved": 1, "stranded": 0}
        assert deliver(lake, [], settings=mended, run_id="resend")["sent"] == 1
        assert outbox.revive(lake, settings=mended) == {"revived": 0, "moved": 0, "stranded": 0}
        assert deliver(lake, [QUARANTINE], settings=mended, run_id=RUN) | {"already_sent": 0} == dict.fromkeys(
            COUNTS, 0
        )
    assert [body["title"] for body in new.received] == [QUARANTINE.title]
    assert pager.tried == 0, "a pager takes what is critical alone"
    assert set(lake.read(ALERTS)["channel"]) == {channel.name for channel in channels(mended)[1:]}


def test_a_channel_that_has_an_alert_does_not_get_it_again_from_one_that_is_gone(lake: Lake) -> None:
    with webhook(500) as gone, webhook() as stays:
        deliver(lake, [FAILED], settings=once(urls=(gone.url, stays.url), console=False, max_attempts=1), run_id=RUN)
        left = once(urls=(stays.url,), console=False)
        assert outbox.revive(lake, settings=left)["moved"] == 1
        deliver(lake, [], settings=left, run_id="resend")
    assert stays.tried == 1
    assert set(held(lake).values()) == {("sent", 1)}


def test_an_alert_that_no_channel_takes_stays_given_up(lake: Lake) -> None:
    with webhook(500) as old, webhook() as pager:
        deliver(lake, [QUARANTINE], settings=once(urls=(old.url,), max_attempts=1), run_id=RUN)
        for without in (once(), once(pager_urls=(pager.url,), console=False)):
            assert outbox.revive(lake, settings=without) == {"revived": 0, "moved": 0, "stranded": 1}
            deliver(lake, [], settings=without, run_id="resend")
    assert held(lake)[QUARANTINE.key, "json"] == ("dead", 1)
    assert pager.tried == 0


@pytest.mark.parametrize("write", ["exchange", "upsert"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_resend_that_is_killed_loses_no_alert(lake: Lake, tmp_path: Path, write: str, where: str) -> None:
    with webhook(500) as old, webhook() as new:
        deliver(lake, [QUARANTINE, FAILED], settings=once(urls=(old.url,), max_attempts=1), run_id=RUN)
        mended = {"SOSIE_HOME": str(tmp_path), "SOSIE_ALERTS__URLS": f'["{new.url}"]'}
        command = [sys.executable, "-c", "from sosie.cli import app; app(['alerts', '--resend'])"]
        killed = mended | {"SOSIE_FAULT": f"lake.alerts.{write}.{where}"}
        assert subprocess.run(command, env=os.environ | killed, check=False).returncode == -signal.SIGKILL
        assert set(outbox.listed(lake, outbox.WAITING)["key"]) == {QUARANTINE.key, FAILED.key}
        subprocess.run(command, env=os.environ | mended, check=True)
    assert outbox.listed(lake, outbox.WAITING).is_empty()
    assert [body["title"] for body in new.received] == [f"1 critical, 1 warning · hour {RUN}"]


def test_the_shell_moves_alerts_of_a_url_that_was_mended_and_fails_where_nobody_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook(500) as old, webhook() as new:
        lost = once(urls=(old.url,), console=False, max_attempts=1)
        deliver(Lake(str(tmp_path / "lake")), [QUARANTINE], settings=lost, run_id=RUN)
        monkeypatch.setenv("SOSIE_HOME", str(tmp_path))
        shell = CliRunner(env={"COLUMNS": "200"})
        for urls, status, says in (
            ("[]", 1, "1 wait for channels that are no longer set"),
            (f'["{new.url}"]', 0, "0 taken up again, 1 moved from channels that are no longer set; 1 sent"),
        ):
            monkeypatch.setenv("SOSIE_ALERTS__URLS", urls)
            config.settings.cache_clear()
            told = shell.invoke(app, ["alerts", "--resend"])
            assert (told.exit_code, says in told.output) == (status, True), told.output
    assert [body["title"] for body in new.received] == [QUARANTINE.title]
    config.settings.cache_clear()
