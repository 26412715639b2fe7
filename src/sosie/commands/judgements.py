"""`sosie judgements`: what people said, for training and for measuring."""

import typer

from sosie.commands.console import errors, out

judgements = typer.Typer(no_args_is_help=True, help="What people said of pairs: exported for training, and counted.")


@judgements.command()
def export() -> None:
    """Export the lake's judgements and pin them in judgements.yaml: the next training learns from them."""
    from sosie.settings import settings
    from sosie.training.judged import export as exporting

    with errors():
        pinned = exporting.export(settings())
        if pinned["digest"] is None:
            out.print("Nobody has judged a pair yet, so there is nothing to export.", highlight=False)
        _tell(pinned)


@judgements.command()
def forget() -> None:
    """Pin none: the next training learns from no judgement. The exports stay."""
    from sosie.settings import settings
    from sosie.training.judged import pin

    with errors():
        pin.forget(settings().repository)
        _tell(pin.pinned(settings().repository))


@judgements.command()
def show() -> None:
    """Tell what is pinned for training, and how often the decider is right where it is sure."""
    from sosie import sampling
    from sosie.judgements import standing
    from sosie.lake import Lake
    from sosie.review_queue import sampled
    from sosie.settings import settings
    from sosie.training.judged import pin

    with errors():
        _tell(pin.pinned(settings().repository))
        lake = Lake(settings().lake_uri)
        said = standing(lake)
        out.print(f"{said.height:,} judgements stand in the lake.", highlight=False)
        _, matches, others = sampled(lake)
        for drawn, name in ((matches, "sure matches"), (others, "near misses that it is sure of")):
            found = sampling.estimate(drawn, said)
            if found is None:
                out.print(f"Of {name} none was judged at random yet.", highlight=False)
                continue
            out.print(
                f"Of {name} {found.judged:,} were judged at random: {found.same:,} are the same product, "
                f"{found.same / found.judged:.1%} (95 % interval {found.low:.1%} to {found.high:.1%}).",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def _tell(pinned: dict[str, object]) -> None:
    if pinned["digest"] is None:
        out.print("No judgements are pinned: training learns from none.", highlight=False)
        return
    told = (
        f"{pinned['judgements']:,} judgements are pinned ({pinned['same']:,} the same, {pinned['different']:,} "
        f"different), export {pinned['digest']} of {str(pinned['exported_at'])[:16]}."
    )
    out.print(told, highlight=False, soft_wrap=True)
    for name, why in (
        ("contradicting", "contradict others and are left out"),
        ("without_title", "are left out, as a listing of theirs has no title any more"),
        ("updated_since", "are of listings that were updated since; they are learnt from as they are now"),
    ):
        if pinned[name]:
            out.print(f"{pinned[name]:,} {why}.", highlight=False, soft_wrap=True)
