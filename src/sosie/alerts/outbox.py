"""Delivery: each alert to each channel once, those of one run in one message, until it is sent or given up.

The table `alerts` is the outbox. A row is written as `pending` before the attempt and becomes `sent`, `failed` or,
after `alerts.max_attempts`, `dead`; where its rule is silenced by then it is kept as `silenced` and never sent. A step
that is run again, or that died between two channels, takes up what was not sent and leaves what was. Only a crash
between a channel's answer and our note of it can send twice; the reference line at the end of each text lets a receiver
tell.
"""

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from sosie import locks
from sosie import settings as config
from sosie.alerts import silences
from sosie.alerts.channels import CONSOLE, Channel, UnusableChannel, channels, send_by_apprise
from sosie.alerts.model import SEVERITIES, Alert, loudest, rule_of
from sosie.lake import Lake
from sosie.tables import ALERTS

log = structlog.get_logger(__name__)

Row = dict[str, Any]
Send = Callable[[Channel, Alert], bool]

WAITING = ("pending", "failed", "dead")
"""States of what has not reached its channel, and is meant to."""

_BUSY_SECONDS = 120.0


def deliver(
    lake: Lake, alerts: Sequence[Alert], *, settings: config.Alerts, run_id: str, send: Send = send_by_apprise
) -> dict[str, int]:
    """Hand each alert to each channel once, with what earlier runs could not deliver to these channels.

    Counts: `sent`, `failed` and `silenced` now, `dead` given up now, `already_sent` left alone. A channel that fails
    stops no other.
    Raises `UnusableChannel`, after the good channels were served, where a URL is none that Apprise knows, and
    `StoreBusy` where another process doesn't end its own delivery.
    """
    counts = {"sent": 0, "failed": 0, "dead": 0, "already_sent": 0, "silenced": 0}
    wired = {channel.name: channel for channel in channels(settings)}
    if not wired:
        return counts
    unusable: list[str] = []
    with locks.exclusive(_lock(lake), _BUSY_SECONDS, "sending alerts"):
        rows, counts["already_sent"] = _outbox(lake, alerts, wired, run_id)
        # Nothing is lost if we die from here on.
        _put(lake, rows, run_id)
        counts["silenced"] = sum(row["state"] == "silenced" for row in rows)
        waiting = [row for row in rows if row["state"] != "silenced"]
        for (channel, _), group in groupby(waiting, key=lambda row: (row["channel"], row["run_id"])):
            own = list(group)
            try:
                _hand_over(lake, own, wired[channel], settings, run_id, send)
            except UnusableChannel as error:
                unusable.append(str(error))
            for state, number in Counter(row["state"] for row in own).items():
                counts[state] += number
    if unusable:
        raise UnusableChannel(" ".join(dict.fromkeys(unusable)))
    return counts


def _hand_over(lake: Lake, rows: list[Row], channel: Channel, settings: config.Alerts, run_id: str, send: Send) -> None:
    """Send one run's rows to their channel as one message, trying a few times; leaves its state in each row."""
    tries = 0
    while tries < settings.tries_at_once and (left := _left(rows, settings)):
        if tries:
            time.sleep(settings.pause_seconds * 2 ** (tries - 1))
        tries += 1
        for row in left:
            row["attempts"] += 1
        _put(lake, left, run_id)  # counted before the attempt: who dies in it has used it up
        try:
            delivered = send(channel, _message(left))
        except UnusableChannel:
            _close(lake, rows, settings, run_id)
            raise
        if delivered:
            for row in left:
                row["state"] = "sent"
            _put(lake, left, run_id)
    _close(lake, [row for row in rows if row["state"] != "sent"], settings, run_id)


def _left(rows: Iterable[Row], settings: config.Alerts) -> list[Row]:
    """Those still to be sent that may be tried once more."""
    return [row for row in rows if row["state"] != "sent" and row["attempts"] < settings.max_attempts]


def _close(lake: Lake, rows: list[Row], settings: config.Alerts, run_id: str) -> None:
    """Note what could not be delivered now, and what is given up."""
    for row in rows:
        row["state"] = "dead" if row["attempts"] >= settings.max_attempts else "failed"
        log.error(
            "An alert could not be delivered",
            alert=row["key"],
            channel=row["channel"],
            attempt=row["attempts"],
            of=settings.max_attempts,
            state=row["state"],
        )
    _put(lake, rows, run_id)


def _outbox(lake: Lake, alerts: Sequence[Alert], wired: Mapping[str, Channel], run_id: str) -> tuple[list[Row], int]:
    """Rows to send or silence, one run's of one channel together, what waits first; and how many were sent before.

    Of one run the loudest comes first.
    """
    wanted = _frame(
        {
            "key": alert.key,
            "severity": alert.severity,
            "text": f"{alert.title}\n{alert.text}",
            "channel": channel.name,
            "state": "pending",
            "attempts": 0,
            "run_id": run_id,
        }
        for alert in {alert.key: alert for alert in alerts}.values()
        for channel in wired.values()
        if channel.takes(alert.severity)
    )
    held = lake.read(ALERTS, pl.col("state").is_in(["pending", "failed"]) & pl.col("channel").is_in(list(wired)))
    known = lake.lookup(ALERTS, "key", wanted["key"], columns=["key", "channel", "state"])
    fresh = wanted.join(known, on=("key", "channel"), how="anti")
    sent = wanted.join(known.filter(pl.col("state") == "sent"), on=("key", "channel"), how="semi").height
    order = {name: place for place, name in enumerate(wired)}
    rows = sorted(
        pl.concat([held, fresh]).iter_rows(named=True),
        key=lambda row: (order[row["channel"]], row["run_id"] or "", -SEVERITIES.index(row["severity"]), row["key"]),
    )
    quiet = silences.active(lake, datetime.now(UTC))
    for row in rows:
        if rule_of(row["key"]) in quiet:
            row["state"] = "silenced"
    return rows, sent


def _message(rows: Sequence[Row]) -> Alert:
    """One message of all that a run has to say to a channel."""
    alerts = [as_alert(row) for row in rows]
    if len(alerts) == 1:
        return alerts[0]
    loud = loudest([alert.severity for alert in alerts])
    number = Counter(alert.severity for alert in alerts)
    counted = ", ".join(f"{number[severity]} {severity}" for severity in reversed(SEVERITIES) if number[severity])
    parts = [f"[{alert.severity}] {alert.title}\n{alert.text}" for alert in alerts]
    digest = hashlib.sha256("\0".join(alert.key for alert in alerts).encode()).hexdigest()[:8]
    run_id = rows[0]["run_id"] or ""
    return Alert(f"digest:{run_id}:{digest}", loud, f"{counted} · hour {run_id}", "\n\n".join(parts))


def as_alert(row: Mapping[str, Any]) -> Alert:
    """The alert that a row of the table `alerts` holds."""
    title, _, text = row["text"].partition("\n")
    return Alert(row["key"], row["severity"], title, text)


def holds(lake: Lake, subject: str) -> bool:
    """Whether there is an alert of this subject, by whichever rule and in whatever state."""
    return not lake.read(ALERTS, pl.col("key").str.ends_with(f":{subject}"), columns=["key"]).is_empty()


def listed(lake: Lake, states: Sequence[str]) -> pl.DataFrame:
    """Rows of the outbox in some of the states, the newest run first."""
    return lake.read(ALERTS, pl.col("state").is_in(list(states))).sort(
        "run_id", "key", "channel", descending=[True, False, False]
    )


def revive(lake: Lake, key: str | None = None, *, settings: config.Alerts) -> dict[str, int]:
    """Have the next delivery send what was given up, and what waits for a channel that is no longer wired: of all
    alerts or of one.

    Each gets all its attempts again. A channel whose URL was mended is another channel, so what waits for the old one
    moves to every wired one that takes its severity and doesn't hold the alert yet. The console is none of these: it
    has had the alert, and reaches nobody.

    Counts deliveries: `revived`, `moved`, and `stranded`, which nobody takes and which stay as they are.
    Raises `StoreBusy` where another process doesn't end its own delivery.
    """
    wired = channels(settings)
    with locks.exclusive(_lock(lake), _BUSY_SECONDS, "sending alerts"):
        waiting = lake.read(ALERTS, pl.col("state").is_in(WAITING), *([pl.col("key") == key] if key else []))
        ours = waiting["channel"].is_in([channel.name for channel in wired])
        dead, astray = waiting.filter(ours & (waiting["state"] == "dead")), waiting.filter(~ours)
        heirs = _frame(
            {**row, "channel": channel.name}
            for row in astray.unique("key").iter_rows(named=True)
            for channel in wired
            if channel.url != CONSOLE and channel.takes(row["severity"])
        )
        moved = astray.join(heirs, on="key", how="semi")
        held = lake.lookup(ALERTS, "key", heirs["key"], columns=["key", "channel"])
        again = pl.concat([dead, heirs.join(held, on=("key", "channel"), how="anti")])
        again = again.with_columns(state=pl.lit("failed"), attempts=pl.lit(0, pl.Int64))
        lake.exchange(ALERTS, again, moved, run_id="resend")  # at once: who dies here has lost nothing
    return {"revived": dead.height, "moved": moved.height, "stranded": astray.height - moved.height}


def _put(lake: Lake, rows: list[Row], run_id: str) -> None:
    lake.upsert(ALERTS, _frame(rows), run_id=run_id)


def _frame(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=ALERTS.schema)


def _lock(lake: Lake) -> Path:
    """One delivery at a time on this machine: two that fail at once must not send each other's alerts."""
    if "://" not in lake.uri:
        return Path(lake.uri) / "_locks" / "alerts.lock"
    return Path(tempfile.gettempdir()) / f"sosie-alerts-{hashlib.sha256(lake.uri.encode()).hexdigest()[:12]}.lock"
