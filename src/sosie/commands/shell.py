"""How a command of the shell ends: our own errors are one sentence and an exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from sosie.errors import SosieError, TransientError

err = Console(stderr=True)

EXIT_TERMINAL, EXIT_TRANSIENT = 2, 75
"""A fault to mend, and one to try again later (sysexits' EX_TEMPFAIL)."""


@contextmanager
def errors() -> Iterator[None]:
    """Our own errors are one sentence and an exit status; anything else is a fault of ours and shows its trace."""
    try:
        yield
    except SosieError as error:
        err.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_TRANSIENT if isinstance(error, TransientError) else EXIT_TERMINAL) from None
