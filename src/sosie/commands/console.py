"""How every command prints and fails."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table

from sosie.errors import PATH_REMEDY, SosieError, TransientError, names_path, stores_told

out, err = Console(), Console(stderr=True)

EXIT_TERMINAL, EXIT_TRANSIENT = 2, 75
"""A fault to mend, and one to try again later (sysexits' EX_TEMPFAIL)."""


@contextmanager
def errors() -> Iterator[None]:
    """Our own errors, and paths that can't be used, are one sentence and an exit status.

    Anything else is a fault of ours and shows its trace.
    """
    try:
        with stores_told():
            yield
    except SosieError as error:
        _tell(error, str(error))
        raise typer.Exit(EXIT_TRANSIENT if isinstance(error, TransientError) else EXIT_TERMINAL) from None
    except OSError as error:
        if not names_path(error):
            raise
        _tell(error, f"{error}. {PATH_REMEDY}.")
        raise typer.Exit(EXIT_TERMINAL) from None


def _tell(error: Exception, sentence: str) -> None:
    err.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    err.print(sentence, markup=False, highlight=False, soft_wrap=True)


def table(*headings: str, title: str | None = None, show_lines: bool = False) -> Table:
    """An empty table that folds what is too long for its column, so that an id or a path can be read to its end."""
    made = Table(title=title, show_lines=show_lines)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def listed(counts: Mapping[str, int]) -> str:
    """text_held: 1200 → text held 1,200."""
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counts.items())
