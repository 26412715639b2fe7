"""Commands for whoever keeps Sosie running. Importing them costs nothing; what they need, they import when called."""

import typer

from sosie.commands.alerts import alerts, silence
from sosie.commands.doctor import doctor
from sosie.commands.metrics import metrics
from sosie.commands.sql import sql


def register(app: typer.Typer) -> None:
    """Add them to the program."""
    for command in (doctor, alerts, silence, metrics, sql):
        app.command()(command)
