"""`sosie sql`: a question to the lake, for whoever follows a runbook."""

import re
import sys
from typing import Annotated

import typer

from sosie.commands.console import errors

SHOWN = 50
_CHANGE = re.compile(r"\s*(alter|create|delete|drop|insert|truncate|update)\b", re.IGNORECASE)


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
        if change := _CHANGE.match(query):  # Polars would do some of them, to its own view of a table
            raise SettingsError(f"{change[1].lower()} is no query, and nothing was changed; ask by select.")
        if not query.strip(" ;\n"):
            raise SettingsError("The query is empty; ask by select, as in: select rule, count(*) from quarantine.")
        lake = Lake(settings().lake_uri)
        with pl.SQLContext({table.name: lake.scan(table) for table in tables.ALL}) as context:
            try:
                rows = context.execute(query).collect()
            except pl.exceptions.PolarsError as error:
                known = ", ".join(table.name for table in tables.ALL)
                reason = str(error).partition("\n")[0]  # the plan follows
                raise SettingsError(f"The query can't be run ({reason}). Tables are {known}.") from None
        if as_json:
            sys.stdout.write(rows.write_ndjson())
            return
        with pl.Config(tbl_rows=SHOWN, tbl_cols=-1, fmt_str_lengths=80, tbl_hide_dataframe_shape=True):
            sys.stdout.write(f"{rows}\n{rows.height:,} rows\n")
