"""What every test leaves as it found it."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def no_logs_to_a_closed_stream() -> Iterator[None]:
    """A command that a test ran logs to the runner's stderr, which is closed when the next test logs."""
    yield
    structlog.reset_defaults()
