"""Alerts through the real Apprise to a real web server: once each, retried, and with no secret left in the lake."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import polars as pl
import pytest

from sosie import settings as config
from sosie.alerts import Alert, Channel, channels, deliver, rules, run_failed, send_by_apprise
from sosie.errors import BatchRejected, IndexUnavailable, SettingsError
from sosie.lake import Lake
from sosie.tables import ALERTS

RUN = "2026-01-05T01"
LATER = "2026-01-05T02"
QUARANTINE = Alert(f"quarantine:{RUN}", "warning", "12 rows quarantined", "Look at the report.\nThen replay.")
FAILED = Alert(f"run_failed:{RUN}", "critical", "The run failed", "Milvus is away.")


class Webhook:
    """A server that answers with `answers` in turn, then 200, and keeps what it was sent."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.received: list[dict[str, str]] = []
        self.tried = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.tried += 1
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.received.append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://hook:s3cret-pass@127.0.0.1:{self.server.server_port}/services/T0KEN-IN-PATH?+Authorization=Bearer-abc"


@contextmanager
def webhook(*answers: int) -> Iterator[Webhook]:
    hook = Webhook(*answers)
    Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def outbox(lake: Lake) -> dict[tuple[str, str], tuple[str, int]]:
    rows = lake.read(ALERTS).iter_rows(named=True)
    return {(row["key"], row["channel"].partition(":")[0]): (row["state"], row["attempts"]) for row in rows}


def test_each_alert_reaches_each_channel_once(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    with webhook() as hook:
        to = config.Alerts(urls=(hook.url,))
        first = deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)
        version = lake.version(ALERTS)
        again = deliver(lake, [QUARANTINE, FAILED], settings=to, run_id=RUN)
    assert first == {"sent": 4, "failed": 0, "dead": 0, "already_sent": 0}
    assert again == {"sent": 0, "failed": 0, "dead": 0, "already_sent": 4}
    assert lake.version(ALERTS) == version, "a second delivery wrote to the lake"
    assert [body["title"] for body in hook.received] == [QUARANTINE.title, FAILED.title]
    assert [body["type"] for body in hook.received] == ["warning", "failure"]
    assert QUARANTINE.text in hook.received[0]["message"]
    assert f"Reference: {QUARANTINE.key}" in hook.received[0]["message"]
    assert capsys.readouterr().out.count(QUARANTINE.title) == 1


def test_a_channel_that_fails_is_tried_again_and_stops_no_other(lake: Lake) -> None:
    with webhook(500) as hook:
        to = config.Alerts(urls=(hook.url,))
        first = deliver(lake, [QUARANTINE], settings=to, run_id=RUN)
        assert first == {"sent": 1, "failed": 1, "dead": 0, "already_sent": 0}
        assert outbox(lake) == {(QUARANTINE.key, "console"): ("sent", 1), (QUARANTINE.key, "json"): ("failed", 1)}
        # The next hour has no alerts of its own, and still delivers what the last one could not.
        second = deliver(lake, [], settings=to, run_id=LATER)
    assert second == {"sent": 1, "failed": 0, "dead": 0, "already_sent": 0}
    assert outbox(lake)[QUARANTINE.key, "json"] == ("sent", 2)
    assert (hook.tried, len(hook.received)) == (2, 1)
    assert hook.received[0]["title"] == QUARANTINE.title
    assert lake.read(ALERTS)["run_id"].unique().to_list() == [RUN], "a retry must not claim another run's alert"


def test_gives_up_after_max_attempts(lake: Lake) -> None:
    with webhook(*[500] * 9) as hook:
        to = config.Alerts(urls=(hook.url,), console=False, max_attempts=2)
        counts = [deliver(lake, [QUARANTINE], settings=to, run_id=RUN) for _ in range(4)]
    assert [(c["failed"], c["dead"]) for c in counts] == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert hook.tried == 2
    assert outbox(lake) == {(QUARANTINE.key, "json"): ("dead", 2)}


class Killed(BaseException):
    """The process died."""


def test_a_crash_between_two_channels_sends_neither_twice_nor_never(lake: Lake) -> None:
    with webhook() as hook:
        to = config.Alerts(urls=(hook.url,))

        def dies_at_the_second(channel: Channel, alert: Alert) -> bool:
            if channel.name != "console":
                raise Killed
            return send_by_apprise(channel, alert)

        with pytest.raises(Killed):
            deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies_at_the_second)
        assert outbox(lake) == {(QUARANTINE.key, "console"): ("sent", 1), (QUARANTINE.key, "json"): ("pending", 1)}
        assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN) == {
            "sent": 1,
            "failed": 0,
            "dead": 0,
            "already_sent": 1,
        }
    assert len(hook.received) == 1
    assert set(outbox(lake).values()) == {("sent", 1), ("sent", 2)}


def test_a_process_that_dies_at_every_attempt_is_given_up(lake: Lake) -> None:
    def dies(*_: object) -> bool:
        raise Killed

    to = config.Alerts(max_attempts=2)
    for _ in range(2):
        with pytest.raises(Killed):
            deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies)
    assert deliver(lake, [QUARANTINE], settings=to, run_id=RUN, send=dies)["dead"] == 1


def test_no_secret_reaches_the_lake_or_the_log(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with webhook(500) as hook:
        deliver(lake, [QUARANTINE], settings=config.Alerts(urls=(hook.url,)), run_id=RUN)
    said = capsys.readouterr()
    held = lake.read(ALERTS).write_csv() + "".join(
        path.read_text(errors="replace") for path in (tmp_path / "lake").rglob("*") if path.is_file()
    )
    for secret in ("s3cret-pass", "T0KEN-IN-PATH", "Bearer-abc"):
        assert secret not in held
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
    assert len(channels(config.Alerts(urls=("json://host/a", "json://host/a")))) == 2  # console and one


def test_an_unknown_url_is_named_without_its_secret_after_the_good_channels(lake: Lake) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.urls") as error:
        deliver(lake, [QUARANTINE], settings=config.Alerts(urls=("nosuch://t0ken/x",)), run_id=RUN)
    assert "t0ken" not in str(error.value)
    assert outbox(lake)[QUARANTINE.key, "console"] == ("sent", 1)


def test_no_channels_no_rows(lake: Lake) -> None:
    assert deliver(lake, [QUARANTINE], settings=config.Alerts(console=False), run_id=RUN)["sent"] == 0
    assert lake.version(ALERTS) == -1


def manifest(state: str = "succeeded", **counts: int) -> dict[str, object]:
    """`validate__rows_read=3` is step validate, count rows_read."""
    steps: dict[str, dict[str, int]] = {}
    for name, value in counts.items():
        step, _, count = name.partition("__")
        steps.setdefault(step, {})[count] = value
    return {"run_id": RUN, "state": state, "steps": [{"name": name, "counts": own} for name, own in steps.items()]}


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        ([], {"validate__rows_read": 1000, "validate__rows_quarantined": 50, "match__review": 1000}),
        (["quarantine"], {"validate__rows_read": 1000, "validate__rows_quarantined": 51}),
        (["pictures"], {"validate__rows_read": 100, "validate__pictures_refused": 6}),
        ([], {"detect_changes__new": 100, "match__capped_listings": 5}),
        (["capped"], {"detect_changes__new": 100, "match__capped_listings": 6}),
        (["review_queue"], {"match__review": 1001}),
        ([], {"cluster__merged": 9, "cluster__formed": 1}),
        (["merges"], {"cluster__merged": 10, "cluster__formed": 39}),
        (["held"], {"cluster__held_for_review": 1}),
        ([], {}),
    ],
)
def test_rules(found: list[str], counts: dict[str, int], tmp_path: Path) -> None:
    settings = config.load(home=tmp_path)
    told = rules(manifest(**counts), settings)
    assert [alert.key for alert in told] == [f"{rule}:{RUN}" for rule in found]
    assert told == rules(manifest(**counts), settings)
    for alert in told:
        assert (settings.reports / RUN / "index.html").as_uri() in alert.text


def test_rules_count_the_whole_queue_and_tell_of_a_run_that_failed(tmp_path: Path) -> None:
    settings = config.load(home=tmp_path)
    assert [alert.key for alert in rules(manifest(), settings, review_queue=5000)] == [f"review_queue:{RUN}"]
    assert [alert.severity for alert in rules(manifest("failed"), settings)] == ["critical"]


def test_a_failed_run_says_what_and_what_to_do() -> None:
    refused = run_failed(RUN, BatchRejected("Column title is missing in a.parquet."), step="validate")
    assert refused.key.startswith(f"batch_rejected:{RUN}:")
    assert refused == run_failed(RUN, BatchRejected("Column title is missing in a.parquet."), step="validate")
    assert refused.key != run_failed(RUN, BatchRejected("The file is empty."), step="validate").key
    assert "Column title is missing in a.parquet." in refused.text
    assert "No table was changed" in refused.text
    away = run_failed(RUN, IndexUnavailable("Milvus is away."), step="match", log_url="http://localhost/log")
    assert away.title == f"The run failed in step match · hour {RUN}"
    assert "http://localhost/log" in away.text
    assert run_failed(RUN, KeyError("x")).severity == "critical"


def test_an_alert_refuses_what_no_channel_could_show() -> None:
    with pytest.raises(ValueError, match="Valid values are info, warning, critical"):
        Alert("k", "loud", "t", "")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one line"):
        Alert("k", "info", "two\nlines", "")


def test_the_outbox_keeps_its_schema(lake: Lake) -> None:
    deliver(lake, [QUARANTINE], settings=config.Alerts(), run_id=RUN)
    assert lake.read(ALERTS).schema == pl.Schema(ALERTS.columns)
