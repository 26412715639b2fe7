"""`sosie replay`: rows out of quarantine and through the pipeline again."""

from typing import Annotated

import typer

from sosie.commands.console import errors, out
from sosie.errors import SettingsError


def replay(
    hour: Annotated[str | None, typer.Option(help="The hour that put them aside, as in 2026-01-05T09.")] = None,
    rule: Annotated[str | None, typer.Option(help="The rule that they broke.")] = None,
) -> None:
    """Land quarantined rows of an hour and rule again, for the next run. Without both: list what there is."""
    from sosie import replay as rows
    from sosie.lake import Lake
    from sosie.settings import settings

    with errors():
        if (hour is None) != (rule is None):
            raise SettingsError("Give --hour and --rule together; without both, what lies in quarantine is listed.")
        if hour is not None and rule is not None:
            landed, count = rows.replay(settings(), hour, rule)
            out.print(f"{count:,} rows landed in {landed.file}. The next run takes them.", markup=False, soft_wrap=True)
            return
        waiting = rows.waiting(Lake(settings().lake_uri))
        for run_id, broken, count in waiting.iter_rows():
            out.print(f"{run_id}  {broken}  {count:,} rows", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{waiting['rows'].sum():,} rows lie in quarantine and were not replayed.", highlight=False)
