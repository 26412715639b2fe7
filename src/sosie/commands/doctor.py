"""`sosie doctor`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from sosie.commands.console import EXIT_TERMINAL, out, table

_SHOWN = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fault": "[bold red]fault[/]"}


def doctor(
    only: Annotated[list[str] | None, typer.Option(help="A check by name; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Check every store, model, setting and permission, and say what to do about each fault (exit status 2)."""
    from sosie import doctor as checks
    from sosie.errors import TerminalError
    from sosie.settings import settings

    if unknown := set(only or ()) - checks.CHECKS.keys():
        raise typer.BadParameter(
            f"There is no check {', '.join(sorted(unknown))}; valid are {', '.join(checks.CHECKS)}.",
            param_hint="--only",
        )
    try:
        found = list(checks.examine(settings(), tuple(only or ())))
    except (TerminalError, OSError) as error:
        found = [checks.fault("settings", str(error), "Mend what the message names; nothing else was checked.")]
    faults, warnings = (sum(one.state == state for one in found) for state in ("fault", "warning"))
    if as_json:
        told = {"faults": faults, "warnings": warnings, "findings": [asdict(one) for one in found]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        shown = table("check", "", "what was found", "what to do", show_lines=True)
        for one in found:
            shown.add_row(one.check, _SHOWN[one.state], escape(one.detail), escape(one.remedy))
        out.print(shown)
        out.print(f"{faults} faults, {warnings} warnings, {len(found) - faults - warnings} as they should be.")
    if faults:
        raise typer.Exit(EXIT_TERMINAL)
