"""`sosie replay`: rows out of quarantine and through the pipeline again."""

from pathlib import Path
from typing import Annotated

import typer

from sosie.commands.console import errors, out
from sosie.errors import SettingsError


def replay(
    hour: Annotated[str | None, typer.Option(help="The hour that put them aside, as in 2026-01-05T09.")] = None,
    rule: Annotated[str | None, typer.Option(help="The rule that they broke.")] = None,
    landing: Annotated[
        Path | None, typer.Option(help="Folder that runs take files from. Default: the `landing` setting.")
    ] = None,
) -> None:
    """Land quarantined rows of an hour and rule again, for the next run. Without both: list what there is."""
    from sosie import replay as rows
    from sosie.pipeline import Run

    with errors():
        if (hour is None) != (rule is None):
            raise SettingsError("Give --hour and --rule together; without both, what lies in quarantine is listed.")
        if hour is not None and rule is not None:
            current = Run.of(hour, landing=landing)
            landed, count = rows.replay(current.settings, current.id, rule)
            folder = current.settings.landing
            out.print(
                f"{count:,} rows landed in {folder / landed.file}. The next run of that folder takes them: "
                f"sosie run --landing {folder} --hour {max(current.id, Run.of().id)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            return
        waiting = rows.waiting(Run.of().lake)
        for run_id, broken, count in waiting.iter_rows():
            out.print(f"{run_id}  {broken}  {count:,} rows", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{waiting['rows'].sum():,} rows lie in quarantine and were not replayed.", highlight=False)
