"""The alert of a failure goes out also where the outbox can't be used: what fails is often the lake, or its disk."""

from dataclasses import replace

import structlog
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_exponential

from sosie import settings as config
from sosie.alerts.channels import Channel, UnusableChannel, channels, send_by_apprise
from sosie.alerts.model import Alert
from sosie.alerts.outbox import deliver, holds
from sosie.lake import Lake

log = structlog.get_logger(__name__)

_LONGEST = 300


def tell(
    lake: Lake,
    alert: Alert,
    *,
    settings: config.Alerts,
    run_id: str,
    unless_held: str = "",
) -> dict[str, int]:
    """Deliver an alert by the outbox, and where that can't be used hand it straight to the channels.

    Nothing is sent anew where the outbox holds an alert of the subject `unless_held`. Returns the counts of `deliver`;
    raises what kept the alert from being recorded, after the channels were served, and what `deliver` raises for a URL.
    """
    try:
        told = bool(unless_held) and holds(lake, unless_held)
        return deliver(lake, [] if told else [alert], settings=settings, run_id=run_id)
    except UnusableChannel:
        raise  # the others were served
    except Exception as error:  # whatever a damaged table or a store that is away gives
        log.error("An alert can't be recorded and goes straight to its channels", alert=alert.key, reason=str(error))
        _hand_out(replace(alert, text=f"{alert.text}\n{_doubt(error, unless_held)}"), settings)
        raise


def _doubt(error: Exception, unless_held: str) -> str:
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST]  # a stack may follow
    doubt = f"This alert could not be recorded, so it may come twice. {reason}"
    return f"Where this failure was told of before, the cause told there holds. {doubt}" if unless_held else doubt


def _hand_out(alert: Alert, settings: config.Alerts) -> None:
    """Give the alert to each channel that takes it; one that fails stops no other."""
    for channel in channels(settings):
        if channel.takes(alert.severity):
            try:
                delivered = _sent(channel, alert, settings)
            except UnusableChannel as error:
                log.error("A channel can't be used", reason=str(error))
                continue
            if not delivered:
                log.error("An alert is lost to a channel", alert=alert.key, channel=channel.name)


def _sent(channel: Channel, alert: Alert, settings: config.Alerts) -> bool:
    """Whether the channel took it, at one of a few tries."""
    trying = Retrying(
        retry=retry_if_result(lambda delivered: not delivered),
        stop=stop_after_attempt(settings.tries_at_once),
        wait=wait_exponential(settings.pause_seconds),
        retry_error_callback=lambda _: False,
    )
    return trying(send_by_apprise, channel, alert)
