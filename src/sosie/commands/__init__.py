"""Commands for whoever keeps Sosie running. Importing them costs nothing; what they need, they import when called."""

from collections.abc import Callable

import typer

from sosie.commands.alerts import alerts, silence
from sosie.commands.bench import bench
from sosie.commands.doctor import doctor
from sosie.commands.features import features
from sosie.commands.judgements import judgements
from sosie.commands.metrics import metrics
from sosie.commands.rebuild import rebuild
from sosie.commands.replay import replay
from sosie.commands.sql import sql
from sosie.commands.upkeep import upkeep


def register(app: typer.Typer) -> None:
    """Add them to the program."""
    panels: dict[str, tuple[Callable[..., None], ...]] = {
        "Models and stores": (rebuild, upkeep),
        "Operations": (replay, doctor, alerts, silence, metrics, sql, bench),
    }
    for panel, callbacks in panels.items():
        for callback in callbacks:
            app.command(rich_help_panel=panel)(callback)
    app.add_typer(features, name="features", rich_help_panel="Models and stores")
    app.add_typer(judgements, name="judgements", rich_help_panel="Pairs and people")
