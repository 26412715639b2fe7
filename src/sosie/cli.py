"""The `sosie` command: every subcommand reads its arguments, calls one function of the product and shows the answer."""

import gc
import getpass
import json
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sosie import __version__, commands
from sosie.commands.console import EXIT_TERMINAL as EXIT_TERMINAL
from sosie.commands.console import EXIT_TRANSIENT as EXIT_TRANSIENT
from sosie.commands.console import err, listed, out
from sosie.commands.console import errors as _errors

_OBJECTS_BETWEEN_COLLECTIONS = 10_000
_LONGEST_END = 60
"""Seconds after which the system ends a process that was asked to."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Find duplicate product listings, every hour, from what changed.",
)


def _version(shown: bool) -> None:
    if shown:
        out.print(__version__, highlight=False)
        raise typer.Exit


def _end(number: int, _: object) -> None:
    # An import that this breaks off can keep Python's import lock, and then nothing here comes to its end.
    signal.alarm(_LONGEST_END)
    raise SystemExit(128 + number)


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    from sosie import logs

    logs.configure()
    # Asked to end, we end what we have started: an embedded index, an Airflow.
    context.call_on_close(partial(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _end)))
    # What is imported stays, so looking through it for garbage finds none: while it comes, and when the process ends.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    context.call_on_close(gc.freeze)


commands.register(app)

Seed = Annotated[int, typer.Option(help="The same seed writes the same bytes.")]
Products = Annotated[
    Path | None, typer.Option(help="CSV of base products: id, title, category, colour, image, second_image.")
]
Images = Annotated[Path | None, typer.Option(help="Folder of their pictures.")]


@app.command()
def demo(
    listings: Annotated[int, typer.Option(help="Listings of the small marketplace.")] = 1_200,
    hours: Annotated[int, typer.Option(help="Hours to run.")] = 2,
    seed: Seed = 7,
    browser: Annotated[bool, typer.Option("--open", help="Open the report at the end.")] = False,
) -> None:
    """Generate a small marketplace, run it hour by hour through the real DAG, and print what was found."""
    from sosie.airflow.demo import run_demo

    with _errors():
        run_demo(out, listings=listings, hours=hours, seed=seed, browser=browser)


@app.command()
def run(
    landing: Annotated[
        Path | None, typer.Option(help="Folder of landing files. Default: the `landing` setting.")
    ] = None,
    hour: Annotated[str | None, typer.Option(help="Logical hour in UTC, as in 2026-01-05T09. Default: now.")] = None,
) -> None:
    """One incremental run without Airflow: the same steps that the DAG calls."""
    from sosie import alerts, hours, pipeline
    from sosie.report import summary

    with _errors():
        if landing is not None and not landing.is_dir():
            raise typer.BadParameter(f"{landing} is no folder.", param_hint="--landing")
        current = pipeline.Run.of(hour, landing=landing)
        if current.hour > (now := datetime.now(UTC)):
            raise typer.BadParameter(f"{current.id} hasn't begun: in UTC it is {hours.name(now)}.", param_hint="--hour")
        try:
            pipeline.run_all(current)
        except Exception as error:
            failed = alerts.run_failed(current.settings, current.id, error)
            with suppress(Exception):  # what stopped the run is what must be told; what kept its alert back is logged
                alerts.tell(current.lake, failed, settings=current.settings.alerts, run_id=current.id)
            err.print(pipeline.left_behind(current), markup=False, highlight=False, soft_wrap=True)
            raise
        out.print(
            summary(pipeline.manifest(current), None, report=current.settings.reports / current.id / "index.html")
        )


@app.command()
def simulate(
    folder: Annotated[
        Path, typer.Argument(help="Where to write: landing/, truth.parquet, simulation.json.", file_okay=False)
    ],
    products: Products = None,
    images: Images = None,
    listings: Annotated[int, typer.Option(help="Listings in the first hour.")] = 2_000,
    hours: Annotated[int, typer.Option(help="Hourly feeds to write.")] = 2,
    seed: Seed = 7,
    pictures: Annotated[bool, typer.Option(help="Write pictures.")] = True,
) -> None:
    """Write a marketplace: listings with sellers' noise, hourly change feeds, and the truth."""
    from sosie.simulate import Marketplace, write

    with _errors():
        marketplace = Marketplace(
            products=products, images=images, listings=listings, hours=hours, seed=seed, with_pictures=pictures
        )
        out.print(write(folder, marketplace))


@app.command()
def evaluate(
    dataset: Annotated[Path, typer.Argument(help="Folder or CSV: shopee, pricerunner, er pairs, or `sosie simulate`.")],
    matcher: Annotated[str, typer.Option(help="sosie, tfidf, tfidf_char or knn_threshold.")] = "sosie",
    fit: Annotated[bool, typer.Option("--fit", help="Fit thresholds on the dataset's own training half.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Labelled listings in, precision, recall and F1 out: mean per row, pairwise and B-cubed."""
    from sosie.evaluate import evaluate as measure
    from sosie.evaluate import render

    with _errors():
        found = measure(dataset, matcher=matcher, fit=fit)
        if as_json:
            sys.stdout.write(json.dumps(found.as_dict(), indent=2) + "\n")
        else:
            out.print(render(found))


@app.command(rich_help_panel="Pairs and people")
def judge(
    one: Annotated[str, typer.Argument(help="A listing id.")],
    other: Annotated[str, typer.Argument(help="Another.")],
    verdict: Annotated[str, typer.Argument(help="same or different")],
    who: Annotated[str, typer.Option(help="Who says so.")] = "",
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Record that two listings are the same product, or are not. No model overrules it.

    The next run joins; what holds both apart is split at once.
    """
    from sosie import pipeline
    from sosie.judgements import judge as record
    from sosie.judgements import said_of, standing
    from sosie.lake import Lake
    from sosie.pairs import ordered
    from sosie.settings import settings

    with _errors():
        lake = Lake(settings().lake_uri)
        before = said_of(standing(lake), *ordered(one, other))
        pair = record(lake, one, other, verdict, who or getpass.getuser(), note)
        effect = pipeline.part(settings(), [pair]) if verdict == "different" else "joined"
        told = {
            "joined": "The next run applies it.",
            "split": "Their cluster is split now.",
            "apart": "No cluster holds both, and none will.",
            "waits": "A run is at work; the next one splits their cluster.",
        }[effect]
        if before and before["verdict"] != verdict:
            told += f" {before['who']} said {before['verdict']} on {before['when']:%Y-%m-%d %H:%M} UTC; now this holds."
        out.print(f"{pair[0]} and {pair[1]}: {verdict}. {told}", markup=False, highlight=False, soft_wrap=True)


@app.command(rich_help_panel="Pairs and people")
def explain(
    listing: Annotated[str, typer.Argument(help="A listing id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Tell a listing's history: its pairs and why, its clusters, who judged it, when it was refused."""
    from sosie.explain import explain as tell
    from sosie.explain import lines
    from sosie.lake import Lake
    from sosie.settings import settings

    with _errors():
        found = tell(Lake(settings().lake_uri), listing)
        if as_json:
            sys.stdout.write(json.dumps(found, indent=2, default=str) + "\n")
        else:
            for line in lines(found):
                out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(rich_help_panel="Models and stores")
def models() -> None:
    """List the models that were trained here, with the figures that speak for or against each."""
    from sosie import registry
    from sosie.settings import settings

    with _errors():
        found = registry.candidates(settings())
        for one in found:
            state = registry.state(settings(), one)
            # One line each, however long: people search and pipe this.
            out.print(
                f"[bold]{one.id}[/] {state}, {one.source.profile}, {one.when[:16]}", highlight=False, soft_wrap=True
            )
            for reason in one.gate.reasons:
                out.print(f"  {reason}", markup=False, highlight=False, soft_wrap=True)
        shipped, pinned = registry.live_id(settings()) is None, settings().models_pinned
        out.print(
            f"{len(found)} registered."
            + (" Those that came with the repository are live." if shipped else "")
            + (f" SOSIE_MODELS names {settings().models}: whoever has it set uses those." if pinned else ""),
            highlight=False,
            soft_wrap=True,
        )


@app.command(rich_help_panel="Models and stores")
def promote(
    candidate: Annotated[str, typer.Argument(help="An id that `sosie models` lists.")],
    despite_gate: Annotated[bool, typer.Option("--despite-gate", help="Even where the gate failed.")] = False,
    who: Annotated[str, typer.Option(help="Who says so.")] = "",
) -> None:
    """Serve these models from now on; the index is rebuilt first where their vectors differ."""
    from sosie import registry
    from sosie.settings import settings

    with _errors():
        counts = registry.promote(settings(), candidate, who or getpass.getuser(), despite_gate=despite_gate)
        _tell_served(candidate, counts)


@app.command(rich_help_panel="Models and stores")
def rollback(who: Annotated[str, typer.Option(help="Who says so.")] = "") -> None:
    """Serve again what was live before the last promotion."""
    from sosie import registry
    from sosie.settings import settings

    with _errors():
        counts = registry.rollback(settings(), who or getpass.getuser())
        _tell_served(registry.live_id(settings()) or "What came with the repository", counts)


def _tell_served(models: str, counts: dict[str, int]) -> None:
    out.print(
        f"{models} is live for whatever starts from now on. "
        + (f"All pairs were decided again: {listed(counts)}." if counts else "No pair was decided again."),
        highlight=False,
    )
