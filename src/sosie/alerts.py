"""Alerts: what a run's counts say that a person should know, handed to each channel once, through Apprise.

The table `alerts` is the outbox. A row is written as `pending` before the attempt and becomes `sent`, `failed` or,
after `alerts.max_attempts`, `dead`. A step that is run again, or that died between two channels, takes up what was not
sent and leaves what was. Only a crash between a channel's answer and our note of it can send twice; the reference line
at the end of each text lets a receiver tell.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import polars as pl
import structlog

from sosie import settings as config
from sosie.errors import BatchRejected, SettingsError, SosieError, TransientError
from sosie.lake import Lake
from sosie.report.counts import Counts
from sosie.tables import ALERTS

log = structlog.get_logger(__name__)

Severity = Literal["info", "warning", "critical"]

CONSOLE = "console://"

# Schemes whose host part is the name of a machine; in others (Slack, Telegram, ntfy, …) it can be the secret itself.
_HOST_IS_PUBLIC = frozenset(
    f"{scheme}{secure}"
    for scheme in ("json", "xml", "form", "mailto", "apprise", "gotify", "mmost")
    for secure in ("", "s")
)

# Shares of a run's own numbers above which it is worth a word.
CAPPED_SHARE = 0.05
PICTURES_REFUSED_SHARE = 0.05
MERGED_SHARE = 0.2
FEWEST_MERGED = 10


@dataclass(frozen=True)
class Alert:
    """One thing to know. Alerts of the same `key` are the same alert."""

    key: str
    severity: Severity
    title: str
    text: str

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise ValueError(f"Received severity {self.severity!r}. Valid values are {', '.join(get_args(Severity))}.")
        if not self.key or not self.title or "\n" in self.title:
            raise ValueError(f"An alert needs a key and a title of one line; received {self.key!r}, {self.title!r}.")


@dataclass(frozen=True)
class Channel:
    """Where alerts go. `name` identifies it in the lake and holds no secret; `url` does, and stays in memory."""

    name: str
    url: str

    @classmethod
    def of(cls, url: str) -> "Channel":
        """Name a channel by scheme, public host and a short digest of the URL without its password."""
        if url == CONSOLE:
            return cls("console", url)
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        public = f"{parts.scheme}://{host.lower()}" if parts.scheme in _HOST_IS_PUBLIC else f"{parts.scheme}://"
        identity = f"{parts.scheme}://{user.partition(':')[0]}@{host}{parts.path}?{parts.query}"
        # Six digits of a slow hash tell two channels apart, and are too few to confirm a guessed token with.
        digest = hashlib.scrypt(identity.encode(), salt=b"sosie alert channel", n=2**12, r=8, p=1, dklen=3)
        return cls(f"{public}#{digest.hex()}", url)


def channels(settings: config.Alerts) -> list[Channel]:
    """The console, unless switched off, and every Apprise URL, each once."""
    urls = ((CONSOLE,) if settings.console else ()) + settings.urls
    return [Channel.of(url) for url in dict.fromkeys(urls)]


def deliver(
    lake: Lake,
    alerts: Sequence[Alert],
    *,
    settings: config.Alerts,
    run_id: str,
    send: Callable[[Channel, Alert], bool] | None = None,
) -> dict[str, int]:
    """Hand each alert to each channel once, with what earlier runs could not deliver to these channels.

    Counts: `sent` and `failed` now, `dead` given up now, `already_sent` left alone. A channel that fails stops no
    other.
    Raises `SettingsError`, after the good channels were served, where a URL is none that Apprise knows.
    """
    send = send or send_by_apprise
    wired = {channel.name: channel for channel in channels(settings)}
    if not wired:
        return {"sent": 0, "failed": 0, "dead": 0, "already_sent": 0}
    outbox, already_sent = _outbox(lake, alerts, wired, run_id)
    lake.upsert(ALERTS, outbox.filter(pl.col("attempts") == 0), run_id=run_id)  # nothing is lost if we die from here on

    counts = {"sent": 0, "failed": 0, "dead": 0, "already_sent": already_sent}
    unusable: list[str] = []
    for row in outbox.iter_rows(named=True):
        if row["attempts"] >= settings.max_attempts:
            _record(lake, row, "dead", run_id)
            counts["dead"] += 1
            continue
        row["attempts"] += 1
        _record(lake, row, "pending", run_id)
        try:
            delivered = send(wired[row["channel"]], _alert(row))
        except SettingsError as error:
            unusable.append(str(error))
            delivered = False
        if delivered:
            state = "sent"
        else:
            state = "dead" if row["attempts"] >= settings.max_attempts else "failed"
            log.error(
                "An alert could not be delivered",
                alert=row["key"],
                channel=row["channel"],
                attempt=row["attempts"],
                of=settings.max_attempts,
                state=state,
            )
        _record(lake, row, state, run_id)
        counts[state] += 1
    if unusable:
        raise SettingsError(" ".join(dict.fromkeys(unusable)))
    return counts


def rules(manifest: Mapping[str, Any], settings: config.Settings, *, review_queue: int | None = None) -> list[Alert]:
    """Alerts that follow from a run's manifest. Pure: the same manifest gives the same alerts.

    `review_queue` is the number of pairs that wait for a person in all; left out, only this run's are counted.
    """
    run_id = manifest["run_id"]
    link = f"Report: {(settings.reports / run_id / 'index.html').as_uri()}"
    count = Counts(manifest)
    found: list[Alert] = []

    def tell(rule: str, severity: Severity, title: str, *text: str) -> None:
        found.append(Alert(f"{rule}:{run_id}", severity, f"{title} · hour {run_id}", "\n".join((*text, link))))

    if manifest.get("state") not in (None, "succeeded", "running"):
        tell(
            "run_failed",
            "critical",
            f"The run {manifest['state']}",
            f"The run of hour {run_id} ended as {manifest['state']!r} and its results are not complete.",
            f"Read the log of the step that failed, mend the cause, then: sosie run --hour {run_id}.",
        )
    read, refused = count("validate.rows_read"), count("validate.rows_quarantined")
    if read and refused / read > settings.alerts.quarantine_share:
        tell(
            "quarantine",
            "warning",
            f"{refused:,} of {read:,} rows quarantined",
            f"{refused / read:.1%} of this hour's rows broke a rule (limit {settings.alerts.quarantine_share:.0%}). "
            "The other rows were taken in.",
            "See which rules and files in the report, and have the feed mended and the rows sent again.",
        )
    pictures = count("validate.pictures_refused")
    if read and pictures / read > PICTURES_REFUSED_SHARE:
        tell(
            "pictures",
            "warning",
            f"{pictures:,} pictures could not be used",
            f"{pictures:,} of {read:,} rows came with a picture that is missing, damaged or too large. "
            "They were matched by text alone.",
            "Look in the report for the rule; if all come from one host, check that it can be reached.",
        )
    changed = count.changed
    capped = count("match.capped_listings")
    if capped and capped > CAPPED_SHARE * changed:
        tell(
            "capped",
            "warning",
            f"{capped:,} listings had too many candidates",
            f"{capped:,} of {changed:,} changed listings reached the limit of "
            f"{settings.blocking.candidates_per_listing} candidates; duplicates beyond it were not looked at.",
            "Look for boilerplate titles or placeholder pictures in the report, or raise "
            "blocking.candidates_per_listing.",
        )
    waiting = count("match.review") if review_queue is None else review_queue
    if waiting > settings.alerts.review_queue:
        tell(
            "review_queue",
            "warning",
            f"{waiting:,} pairs wait for a person",
            f"The review queue is above its limit of {settings.alerts.review_queue:,}.",
            "Judge the most doubtful pairs first (`sosie judge`), or raise decider.review_at.",
        )
    merged, moved = count("cluster.merged"), count.total("cluster", ("formed", "grew", "merged"))
    if merged >= FEWEST_MERGED and merged > MERGED_SHARE * moved:
        tell(
            "merges",
            "warning",
            f"{merged:,} clusters merged into others",
            f"{merged:,} merges among {moved:,} clusters that formed or grew is more than an ordinary hour has: "
            "one misleading picture or title can pull many listings together.",
            "Look at the merged clusters in the report and judge wrong pairs as different; they split again next run.",
        )
    if held := count("cluster.held_for_review"):
        tell(
            "held",
            "info",
            f"{held:,} matching pairs held back",
            f"{held:,} pairs match, but joining them would pass {settings.clusters.max_size} members or hang two "
            "groups together by weak links, so their ends stay apart. Each is in lake/held_merges with its cause.",
            "Look at a few and judge them (`sosie judge ID ID same|different`); the next run heeds it.",
        )
    return found


def run_failed(run_id: str, error: BaseException, *, step: str = "", log_url: str = "") -> Alert:
    """The alert for a run that stopped. What it says to do depends on the kind of error."""
    where = f" in step {step}" if step else ""
    if isinstance(error, BatchRejected):
        title = f"Batch refused · hour {run_id}"
        todo = (
            "No table was changed. Have the feed delivered again, then run the hour again; later hours are not held up."
        )
        key = f"batch_rejected:{run_id}"
    else:
        title = f"The run failed{where} · hour {run_id}"
        todo = (
            "It was tried again and the fault stayed: check that the store it names is up, then run the hour again."
            if isinstance(error, TransientError)
            else "Trying again gives the same answer: mend the cause, then run the hour again."
            if isinstance(error, SosieError)
            else "This is a fault that the program did not foresee: read the log, then run the hour again."
        )
        key = f"run_failed:{run_id}"
    # The same fault of the same hour is told once; another fault of that hour is another alert.
    key += f":{hashlib.sha256(f'{step}:{type(error).__name__}:{error}'.encode()).hexdigest()[:8]}"
    what = f"{type(error).__name__}{where}: {error}"
    again = "Every step can be run twice and gives the same tables."
    return Alert(key, "critical", title, "\n".join(filter(None, (what, todo, again, log_url and f"Log: {log_url}"))))


def _outbox(lake: Lake, alerts: Sequence[Alert], wired: Mapping[str, Channel], run_id: str) -> tuple[pl.DataFrame, int]:
    """Rows to attempt, what waits from before first; and how many of `alerts` were sent before."""
    wanted = pl.DataFrame(
        [
            {
                "key": alert.key,
                "severity": alert.severity,
                "text": f"{alert.title}\n{alert.text}",
                "channel": channel,
                "state": "pending",
                "attempts": 0,
                "run_id": run_id,
            }
            for alert in {alert.key: alert for alert in alerts}.values()
            for channel in wired
        ],
        schema=ALERTS.schema,
    )
    held = lake.read(ALERTS, pl.col("state").is_in(["pending", "failed"]) & pl.col("channel").is_in(list(wired)))
    known = lake.lookup(ALERTS, "key", wanted["key"], columns=["key", "channel", "state"])
    fresh = wanted.join(known, on=("key", "channel"), how="anti")
    sent = wanted.join(known.filter(pl.col("state") == "sent"), on=("key", "channel"), how="semi").height
    return pl.concat([held.sort("run_id", "key", "channel", nulls_last=False), fresh]), sent


def _record(lake: Lake, row: Mapping[str, Any], state: str, run_id: str) -> None:
    lake.upsert(ALERTS, pl.DataFrame([{**row, "state": state}], schema=ALERTS.schema), run_id=run_id)


def _alert(row: Mapping[str, Any]) -> Alert:
    title, _, text = row["text"].partition("\n")
    return Alert(row["key"], row["severity"], title, text)


def send_by_apprise(channel: Channel, alert: Alert) -> bool:
    """One attempt; False where the channel did not take it. Raises `SettingsError` for an unknown service."""
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType
    from apprise.decorators import notify
    from apprise.manager_plugins import NotificationManager

    if "console" not in NotificationManager():  # Apprise has no plugin that prints
        notify(on="console", name="Console")(_print)
    messenger = Apprise(asset=AppriseAsset(app_id="Sosie", app_desc="duplicate listings", app_url="", async_mode=False))
    if not messenger.add(channel.url):
        raise SettingsError(
            f"alerts.urls has one that Apprise can't use: {channel.name}. "
            "Write it as https://appriseit.com/services says for its service."
        )
    kind = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}[alert.severity]
    body = alert.text if channel.url == CONSOLE else f"{alert.text}\nReference: {alert.key}"
    return bool(messenger.notify(title=alert.title, body=body, notify_type=kind, body_format=NotifyFormat.TEXT))


def _print(body: str, title: str, notify_type: str, *_: object, **__: object) -> None:
    level = {"info": log.info, "warning": log.warning}.get(str(notify_type), log.critical)
    level(title, detail=body)
