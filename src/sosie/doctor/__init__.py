"""`sosie doctor`: everything that a run stands on, looked at, and what to do about each fault.

A check is a function of the settings that yields findings. It changes nothing but a probe file that it removes again.
"""

from collections.abc import Callable, Iterator

import structlog

from sosie.doctor import delivery, models, orchestration, stores
from sosie.doctor.finding import Finding, State, fault, fine, warning
from sosie.errors import SosieError
from sosie.settings import Settings

__all__ = ["CHECKS", "Finding", "State", "examine", "fault", "fine", "warning"]

log = structlog.get_logger(__name__)

Check = Callable[[Settings], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "clock": stores.clock,
    "disk": stores.disk,
    "landing": stores.landing,
    "lake": stores.lake,
    "models": models.files,
    "versions": models.versions,
    "index": models.index,
    "features": stores.features,
    "alerts": delivery.alerts,
    "airflow": orchestration.airflow,
}


def examine(settings: Settings, only: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Findings of all checks, or of some. A check that breaks is a finding too, and stops no other."""
    for name, check in CHECKS.items():
        if only and name not in only:
            continue
        try:
            yield from check(settings)
        except SosieError as error:
            # Our errors end with what to do.
            what, _, remedy = str(error).rpartition(". ")
            yield fault(name, what or str(error), remedy or "See the message.")
        except OSError as error:
            yield fault(name, f"{error}.", "Give this user the right to use this path, or mend the setting it is from.")
        except Exception as error:
            log.exception("A check broke", check=name)
            yield fault(name, f"The check itself broke: {type(error).__name__}: {error}", "Read the trace above it.")
