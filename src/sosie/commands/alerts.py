"""`sosie alerts` and `sosie silence`."""

import getpass
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sosie.commands.console import errors, out, table

if TYPE_CHECKING:
    from sosie.lake import Lake
    from sosie.settings import Alerts


def alerts(
    every: Annotated[bool, typer.Option("--all", help="Sent and silenced ones too.")] = False,
    resend: Annotated[
        bool,
        typer.Option(
            "--resend",
            help="Send what was given up or still waits, now; where its channel is no longer set, to those that are.",
        ),
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(help="With --resend: of what was given up, or whose channel is no longer set, this alert alone."),
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="List the rules, their thresholds and owners instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """List alerts that could not be delivered, and send them again."""
    from sosie.alerts import outbox
    from sosie.errors import SettingsError
    from sosie.lake import Lake
    from sosie.settings import settings

    with errors():
        current = settings()
        lake = Lake(current.lake_uri)
        if rules:
            _list_rules(as_json)
            return
        if key and not resend:
            raise SettingsError("--key says which alert --resend is about; add --resend.")
        if resend:
            if key and key not in outbox.listed(lake, outbox.WAITING)["key"]:
                raise SettingsError(f"No alert {key!r} waits; `sosie alerts --json` names those that do.")
            if not _resend(lake, current.alerts, key):
                raise typer.Exit(1)
            return
        held = outbox.listed(lake, ("sent", "silenced", *outbox.WAITING) if every else outbox.WAITING)
        if as_json:
            sys.stdout.write(held.write_ndjson())
            return
        shown = table("hour", "alert", "severity", "channel", "state", "tries", "title", title="Alerts")
        for row in held.iter_rows(named=True):
            alert = outbox.as_alert(row)
            shown.add_row(
                row["run_id"], alert.rule, row["severity"], row["channel"], row["state"], str(row["attempts"]),
                escape(alert.title),
            )  # fmt: skip
        out.print(shown if held.height else "Every alert was delivered.")


def _resend(lake: "Lake", settings: "Alerts", key: str | None) -> bool:
    """Send what waits, and say how that went; returns whether all of it found somebody."""
    from sosie.alerts import outbox

    taken = outbox.revive(lake, key, settings=settings)
    counts = outbox.deliver(lake, [], settings=settings, run_id="resend")
    moved = f", {taken['moved']:,} moved from channels that are no longer set" if taken["moved"] else ""
    out.print(
        f"{taken['revived']:,} taken up again{moved}; {counts['sent']:,} sent, {counts['failed']:,} still failing, "
        f"{counts['dead']:,} given up, {counts['silenced']:,} silenced.",
        highlight=False,
    )
    if taken["stranded"]:
        out.print(
            f"{taken['stranded']:,} wait for channels that are no longer set, and no URL takes their severity: add one "
            "to SOSIE_ALERTS__URLS, then --resend again.",
            highlight=False,
        )
    return not (counts["failed"] or counts["dead"] or taken["stranded"])


def silence(
    rule: Annotated[str | None, typer.Argument(help="A rule of `sosie alerts --rules`.")] = None,
    until: Annotated[str | None, typer.Option(help="30m, 4h, 2d, 1w, or 2026-11-22T09:00 (UTC).")] = None,
    end: Annotated[bool, typer.Option("--end", help="Let the rule speak again now.")] = False,
    who: Annotated[str, typer.Option(help="Who says so.")] = "",
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Keep one alert rule quiet until a time. Without a rule: list what is quiet."""
    from sosie.alerts import silences
    from sosie.alerts.rules import load
    from sosie.errors import SettingsError
    from sosie.lake import Lake
    from sosie.settings import settings

    with errors():
        current, now = settings(), datetime.now(UTC)
        lake = Lake(current.lake_uri)
        if rule is None:
            shown = table("rule", "until (UTC)", "who", "note", title="Silences")
            held = silences.in_force(lake, now)
            for row in held.iter_rows(named=True):
                said = (escape(row["who"]), escape(row["note"] or ""))
                shown.add_row(row["rule"], f"{row['until']:%Y-%m-%d %H:%M}", *said)
            out.print(shown if held.height else "No rule is silenced.")
            return
        if rule not in load(current):
            raise SettingsError(f"There is no alert rule {rule!r}; there are {', '.join(load(current))}.")
        if end:
            out.print(f"{silences.end(lake, rule, now=now)} silences of {rule} ended.", highlight=False)
            return
        if until is None:
            raise SettingsError("A silence needs its end: add --until 4h, or a time in UTC.")
        moment = silences.until(until, now)
        silences.silence(lake, rule, moment, who=who or getpass.getuser(), note=note, now=now)
        out.print(f"{rule} is quiet until {moment:%Y-%m-%d %H:%M} UTC.", highlight=False)


def _list_rules(as_json: bool) -> None:
    from sosie.alerts.rules import load
    from sosie.settings import settings

    held = load(settings())
    if as_json:
        for name, rule in held.items():
            sys.stdout.write(json.dumps({"rule": name, **rule.model_dump()}) + "\n")
        return
    shown = table("rule", "severity", "owner", "above", "fewest", title="Alert rules")
    for name, rule in held.items():
        above = "" if rule.threshold is None else f"{rule.threshold:g}"
        shown.add_row(name, rule.severity, rule.owner, above, str(rule.fewest or ""))
    out.print(shown)
