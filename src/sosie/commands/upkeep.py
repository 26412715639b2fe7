"""`sosie upkeep`: the daily round through the stores."""

from sosie.commands.console import errors, listed, out


def upkeep() -> None:
    """Mend the index and the online store from the lake, drop old versions and scratch, compact and vacuum tables."""
    from sosie.settings import settings
    from sosie.upkeep import upkeep as keep

    with errors():
        for part, counts in keep(settings()).items():
            out.print(f"[bold]{part.replace('_', ' ')}[/]: {listed(counts)}", highlight=False, soft_wrap=True)
