"""Who is told when something goes wrong."""

from collections.abc import Iterator

import polars as pl

from sosie import tables
from sosie.alerts import channels
from sosie.alerts.channels import CONSOLE, check
from sosie.alerts.outbox import WAITING
from sosie.alerts.rules import load
from sosie.doctor.finding import Finding, fault, fine, warning
from sosie.errors import SettingsError
from sosie.lake import Lake
from sosie.settings import Settings


def alerts(settings: Settings) -> Iterator[Finding]:
    """The rules can be used, each channel is one that Apprise knows, somebody gets them, and nothing was given up or
    waits for a channel that there is no more."""
    rules = load(settings)
    wired = channels(settings.alerts)
    for channel in wired:
        try:
            check(channel)
            yield fine("alerts", f"channel {channel.name}")
        except SettingsError as error:
            yield fault("alerts", str(error), "Mend SOSIE_ALERTS__URLS or SOSIE_ALERTS__PAGER_URLS.")
    if all(channel.url == CONSOLE for channel in wired):
        yield warning(
            "alerts",
            f"{len(rules)} rules, and nobody but the console to tell.",
            "Set SOSIE_ALERTS__URLS to an Apprise URL.",
        )
    waiting = Lake(settings.lake_uri).read(tables.ALERTS, pl.col("state").is_in(WAITING))
    lost = waiting["state"] == "dead"
    if lost.any():
        yield warning(
            "alerts",
            f"{lost.sum():,} alerts were given up.",
            "See `sosie alerts`, mend SOSIE_ALERTS__URLS, then `sosie alerts --resend`.",
        )
    astray = waiting.filter(~lost, ~pl.col("channel").is_in([channel.name for channel in wired]))
    if names := sorted(set(astray["channel"])):
        yield warning(
            "alerts",
            f"{astray.height:,} alerts wait for channels that are no longer set: {', '.join(names)}.",
            "`sosie alerts --resend` sends them to those that are.",
        )
