"""Commands for whoever keeps Sosie running. Importing them costs nothing; what they need, they import when called."""

import typer

from sosie.commands.alerts import alerts, silence
from sosie.commands.bench import bench
from sosie.commands.doctor import doctor
from sosie.commands.features import features
from sosie.commands.metrics import metrics
from sosie.commands.rebuild import rebuild
from sosie.commands.sql import sql
from sosie.commands.upkeep import upkeep


def register(app: typer.Typer) -> None:
    """Add them to the program."""
    for command in (rebuild, upkeep, doctor, alerts, silence, metrics, sql, bench):
        app.command()(command)
    app.add_typer(features, name="features")
