"""Where alerts go, and one attempt at one of them, through Apprise."""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog

from sosie import settings as config
from sosie.alerts.model import SEVERITIES, Alert, Severity
from sosie.errors import SettingsError

log = structlog.get_logger(__name__)

CONSOLE = "console://"

# Schemes whose host part is the name of a machine; in others (Slack, Telegram, ntfy, …) it can be the secret itself.
_HOST_IS_PUBLIC = frozenset(
    f"{scheme}{secure}"
    for scheme in ("json", "xml", "form", "mailto", "apprise", "gotify", "mmost")
    for secure in ("", "s")
)


class UnusableChannel(SettingsError):
    """Apprise knows no service for a channel's URL."""


@dataclass(frozen=True)
class Channel:
    """Where alerts of severity `least` and above go. `name` identifies it in the lake and holds no secret; `url` does,
    and stays in memory."""

    name: str
    url: str
    least: Severity = "info"

    @classmethod
    def of(cls, url: str, least: Severity = "info") -> "Channel":
        """Name a channel by scheme, public host and a short digest of the URL without its password."""
        if url == CONSOLE:
            return cls("console", url, least)
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        public = f"{parts.scheme}://{host.lower()}" if parts.scheme in _HOST_IS_PUBLIC else f"{parts.scheme}://"
        identity = f"{parts.scheme}://{user.partition(':')[0]}@{host}{parts.path}?{parts.query}"
        # Six digits of a slow hash tell two channels apart, and are too few to confirm a guessed token with.
        digest = hashlib.scrypt(identity.encode(), salt=b"sosie alert channel", n=2**12, r=8, p=1, dklen=3)
        return cls(f"{public}#{digest.hex()}", url, least)

    def takes(self, severity: Severity) -> bool:
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.least)


def channels(settings: config.Alerts) -> list[Channel]:
    """The console, unless switched off, every Apprise URL, and the pagers; each once, for the most it was given."""
    wanted: dict[str, Severity] = dict.fromkeys(settings.pager_urls, "critical")
    wanted |= dict.fromkeys(((CONSOLE,) if settings.console else ()) + settings.urls, "info")
    return [Channel.of(url, least) for url, least in wanted.items()]


def send_by_apprise(channel: Channel, alert: Alert) -> bool:
    """One attempt; False where the channel did not take it. Raises `UnusableChannel` for an unknown service."""
    if channel.url == CONSOLE:
        _print(alert)
        return True
    messenger = _messenger(channel)
    from apprise import NotifyFormat, NotifyType

    kind = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}[alert.severity]
    body = f"{alert.text}\nReference: {alert.key}"
    return bool(messenger.notify(title=alert.title, body=body, notify_type=kind, body_format=NotifyFormat.TEXT))


def check(channel: Channel) -> None:
    """Raises `UnusableChannel` where Apprise knows no service for the channel's URL. Sends nothing."""
    if channel.url != CONSOLE:
        _messenger(channel)


def _messenger(channel: Channel) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Apprise's own business, not our users'
        from apprise import Apprise, AppriseAsset

    messenger = Apprise(asset=AppriseAsset(app_id="Sosie", app_desc="duplicate listings", app_url="", async_mode=False))
    if not messenger.add(channel.url):
        raise UnusableChannel(
            f"alerts.urls or alerts.pager_urls has one that Apprise can't use: {channel.name}. "
            "Write it as https://appriseit.com/services says for its service."
        )
    return messenger


def _print(alert: Alert) -> None:
    """Apprise has no plugin that prints, and loads a hundred others before it knows."""
    {"info": log.info, "warning": log.warning, "critical": log.critical}[alert.severity](alert.title, detail=alert.text)
