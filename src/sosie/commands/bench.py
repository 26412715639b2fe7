"""`sosie bench`: the benchmarks behind every number in the documentation."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sosie.commands.console import errors, out


def bench(
    name: Annotated[list[str] | None, typer.Argument(help="Benchmarks; all of them by default.")] = None,
    size: Annotated[str, typer.Option(help="small (seconds), standard (minutes) or large.")] = "standard",
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    as_markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Also as a page, for the documentation.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the benchmarks and run none.")] = False,
) -> None:
    """Measure speed beside peers and limits; print a table, keep JSON and a diagram under var/bench."""
    from sosie.bench import page, run, table
    from sosie.bench.figures import SIZES
    from sosie.settings import settings

    with errors():
        known = next((each for each in SIZES if each == size), None)
        if known is None:
            raise typer.BadParameter(f"{size} is none of {', '.join(SIZES)}.", param_hint="--size")
        if listed:
            out.print(*run.names(), sep="\n", highlight=False)
            return
        folder, outcomes = settings().home / "bench", []
        folder.mkdir(parents=True, exist_ok=True)
        for outcome in run.run(name or [], known):
            outcomes.append(outcome)
            table.console().print(table.render({outcome.name: outcome.figures}, outcome.command))
            kept = json.dumps(run.record([outcome], known), indent=2) + "\n"
            (folder / f"{outcome.name}.json").write_text(kept)
        found = {each.name: each.figures for each in outcomes}
        page.write(found, folder / "index.html")
        if as_json:
            as_json.parent.mkdir(parents=True, exist_ok=True)
            as_json.write_text(json.dumps(run.record(outcomes, known), indent=2) + "\n")
        if as_markdown:
            as_markdown.write_text(table.markdown(found, run.told(outcomes, known)))
        out.print(f"Kept in {folder}; diagram: {folder / 'index.html'}", highlight=False, soft_wrap=True)
