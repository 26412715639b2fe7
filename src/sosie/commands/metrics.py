"""`sosie metrics`: what Prometheus would scrape."""

import sys

from sosie.commands.console import errors


def metrics() -> None:
    """Print the metrics of runs, queues, stores and alerts in Prometheus' format."""
    from sosie import metrics as measured
    from sosie.settings import settings

    with errors():
        sys.stdout.write(measured.text(settings()))
