"""`sosie features`: what the feature store offers, from the shell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sosie.commands.console import errors, out

if TYPE_CHECKING:
    import polars as pl

LOOKUP = "duplicate_lookup"  # features.LOOKUP, spelled: to import it would load the stores for every `--help`

features = typer.Typer(no_args_is_help=True, help="Duplicates online, embeddings and decisions as known at any time.")

Entities = Annotated[Path, typer.Argument(help="CSV or Parquet with listing_id and event_timestamp (UTC).")]
Service = Annotated[str, typer.Option(help="A feature service that `sosie features list` names.")]
Corrected = Annotated[
    bool, typer.Option("--corrected", help="With what was written later about that time: not for training sets.")
]


@features.command("list")
def list_() -> None:
    """Name the feature services, one for each embedding version, and the saved training sets."""
    from sosie import features as store
    from sosie.features import datasets
    from sosie.settings import settings

    with errors():
        store.apply(settings())
        for one in sorted(store.store(settings()).list_feature_services(), key=lambda one: one.name):
            out.print(f"{one.name}  {one.description}", markup=False, highlight=False, soft_wrap=True)
        for name in datasets.names(settings()):
            out.print(f"training set {name}", markup=False, highlight=False)


@features.command()
def lookup(listing_ids: Annotated[list[str], typer.Argument(help="Listing ids.")]) -> None:
    """Is each of these a duplicate, and of which listing?"""
    from sosie import features as store
    from sosie.settings import settings

    with errors():
        store.apply(settings())
        for row in store.lookup(settings(), listing_ids).iter_rows(named=True):
            told = "nothing is known of it" if row["is_duplicate"] is None else "no duplicate"
            if row["is_duplicate"]:
                told = f"a duplicate of {row['canonical_id']} (cluster {row['cluster_id']})"
            out.print(f"{row['listing_id']}: {told}", markup=False, highlight=False, soft_wrap=True)


@features.command()
def history(
    entities: Entities,
    to: Annotated[Path, typer.Argument(help="Parquet to write.", dir_okay=False)],
    service: Service = LOOKUP,
    corrected: Corrected = False,
) -> None:
    """Write features of listings as they were known at each row's time."""
    import polars as pl

    from sosie import features as store
    from sosie.settings import settings

    with errors():
        if not to.parent.is_dir():
            raise typer.BadParameter(f"{to.parent} is no folder.", param_hint="TO")
        if to.suffix != ".parquet":
            raise typer.BadParameter(f"{to} is to be Parquet: let its name end in .parquet.", param_hint="TO")
        store.apply(settings())
        given = _read(entities)
        rows = store.history(settings(), given, service, as_known_then=not corrected)
        rows.write_parquet(to)
        known = rows.filter(~pl.all_horizontal(pl.exclude(given.columns).is_null())).height
        out.print(
            f"{rows.height:,} rows in {to}, {known:,} of them with something known at their time.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@features.command()
def save(
    name: Annotated[str, typer.Argument(help="Name of the training set.")],
    entities: Entities,
    service: Service = LOOKUP,
    corrected: Corrected = False,
) -> None:
    """Keep features of listings, as known at each row's time, as a training set that never changes."""
    from sosie import features as store
    from sosie.features import datasets
    from sosie.settings import settings

    with errors():
        store.apply(settings())
        rows = datasets.save(settings(), name, _read(entities), service, as_known_then=not corrected)
        out.print(f"{name}: {rows.height:,} rows.", markup=False, highlight=False)


def _read(entities: Path) -> "pl.DataFrame":
    import polars as pl

    from sosie.errors import DatasetError

    try:
        if entities.suffix == ".parquet":
            rows = pl.read_parquet(entities)
        else:
            rows = pl.read_csv(entities, schema_overrides={"listing_id": pl.String, "event_timestamp": pl.String})
        if rows.schema.get("event_timestamp") == pl.String:
            rows = rows.with_columns(pl.col("event_timestamp").str.to_datetime(time_zone="UTC"))
        return rows
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]  # Polars goes on with advice for who wrote the call
        raise DatasetError(
            f"{entities} can't be read ({reason}); it needs the columns listing_id and event_timestamp, "
            "the latter as 2026-01-05T09:00:00Z in every row."
        ) from None
