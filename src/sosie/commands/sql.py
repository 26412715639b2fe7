"""`sosie sql`: a question to the lake, for whoever follows a runbook."""

import sys
from typing import Annotated

import typer

from sosie.commands.console import errors

SHOWN = 50


def sql(
    query: Annotated[str, typer.Argument(help="SQL over the lake's tables: select rule, count(*) from quarantine …")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, and all of them.")] = False,
) -> None:
    """Ask the lake's tables, and change nothing: listings, pairs, clusters, quarantine, runs, alerts …"""
    import polars as pl

    from sosie import tables
    from sosie.errors import SettingsError
    from sosie.lake import Lake
    from sosie.settings import settings

    with errors():
        lake = Lake(settings().lake_uri)
        with pl.SQLContext({table.name: lake.scan(table) for table in tables.ALL}) as context:
            try:
                rows = context.execute(query).collect()
            except pl.exceptions.PolarsError as error:
                known = ", ".join(table.name for table in tables.ALL)
                raise SettingsError(f"The query can't be run ({error}). Tables are {known}.") from None
        if as_json:
            sys.stdout.write(rows.write_ndjson())
            return
        with pl.Config(tbl_rows=SHOWN, tbl_cols=-1, fmt_str_lengths=80, tbl_hide_dataframe_shape=True):
            sys.stdout.write(f"{rows}\n{rows.height:,} rows\n")
