"""`sosie rebuild`: the index again, for the live models or for others beside them."""

from typing import TYPE_CHECKING, Annotated

import typer

from sosie.commands.console import errors, listed, out

if TYPE_CHECKING:
    from sosie.settings import Settings


def rebuild(
    models: Annotated[
        str | None,
        typer.Option(help="An id that `sosie models` lists, or `packaged`: built beside the live index, not served."),
    ] = None,
    compare: Annotated[bool, typer.Option(help="Compare the second index with the live one at the end.")] = True,
    status: Annotated[bool, typer.Option("--status", help="Only tell what stands beside the live index.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Let hours stop writing the second index.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="Where to embed: local, or ray (needs sosie\\[ray]). Default: `rebuild.engine`.")
    ] = None,
) -> None:
    """Make the index again from the lake: the live one, or with --models a second one for other models.

    A second one is filled while hourly runs go on and write both; one that was stopped goes on where it was. It is
    served by nobody until `sosie promote`.
    """
    with errors():
        if status or abandon:
            _tell_second(abandon)
            return
        chosen = _by(engine)
        if models is None:
            from sosie.rebuild import in_place

            out.print(listed(in_place(chosen)), highlight=False)
        else:
            _second(chosen, models, compare)


def _by(engine: str | None) -> "Settings":
    """The settings, with another engine where one was asked for."""
    from sosie.errors import SettingsError
    from sosie.settings import ENGINES, settings

    if engine is None:
        return settings()
    if engine not in ENGINES:
        raise SettingsError(f"Received --engine {engine}. Valid values are {', '.join(ENGINES)}.")
    chosen = settings().rebuild.model_copy(update={"engine": engine})
    return settings().model_copy(update={"rebuild": chosen})


def _second(settings: "Settings", models: str, compare: bool) -> None:
    from sosie import rebuild as second
    from sosie import registry
    from sosie.errors import TerminalError
    from sosie.rebuild.comparison import folder

    registry.check_switchable(settings)
    target = second.Target.of(settings, models)
    if not target.modalities(settings):
        raise TerminalError(
            f"{target.name} has the live models' embeddings, so there is no second index to build. "
            "`sosie promote` needs none; `sosie rebuild` alone mends the live one."
        )
    out.print(listed(second.build(settings, target)), highlight=False)
    if compare:
        found = second.compare(settings, target)
        for modality, rows in found["overlap"].items():
            if rows["mean"] is not None:
                out.print(f"{modality}: {rows['mean']:.1%} of the neighbours are the same.", highlight=False)
        agree = found["decisions"]["agree"]
        if agree is not None:
            out.print(f"{agree:.1%} of {found['decisions']['pairs']:,} pairs are decided alike.", highlight=False)
        for concern in found["concerns"]:
            out.print(f"[yellow]•[/] {concern}", highlight=False, soft_wrap=True)
        out.print(f"{folder(settings, target) / 'index.html'}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"Hours write both from now on. `sosie promote {target.name}` switches.", highlight=False, soft_wrap=True)


def _tell_second(abandon: bool) -> None:
    from sosie import rebuild as second
    from sosie.settings import settings

    told = second.abandon(settings()) if abandon else second.progress(settings())
    kept = second.second(settings())
    if told is None:
        out.print(
            f"No second index is being built. Hours also write {kept.name}, live until lately." if kept
            else "No second index.", highlight=False,
        )  # fmt: skip
        return
    name = told.id or second.PACKAGED
    state = f"{told.phase} {told.modality}, {told.done:,} of {told.total:,} listings"
    state = told.phase if told.phase == "ready" else state
    out.print(
        f"{name}: hours write it no more." if abandon else f"{name}: {state}, begun {told.since}.", highlight=False
    )
