"""The models, their versions, and the index that holds their vectors."""

from collections.abc import Iterator

import polars as pl

from sosie.artifacts import Artifact
from sosie.doctor.finding import Finding, fault, fine, warning
from sosie.errors import ModelError
from sosie.index import alias_name, open_index
from sosie.lake import Lake
from sosie.pipeline.embed import version
from sosie.rebuild.instep import lacking
from sosie.settings import Settings
from sosie.tables import LISTINGS, MODALITIES, having


def files(settings: Settings) -> Iterator[Finding]:
    """Every model is there, and each of its files is the one that its card names."""
    folders = {
        "text-encoder": settings.text_model,
        "image-encoder": settings.image_model,
        "decider": settings.decider_model,
    }
    if not settings.models.is_dir():
        yield fault(
            "models",
            f"The models are to be in {settings.models}, which is no folder.",
            "Correct SOSIE_MODELS, or `models` in params.yaml, or take it out.",
        )
        return
    for kind, folder in folders.items():
        try:
            artifact = Artifact.load(folder, kind)
            yield fine("models", f"{kind} {artifact.version} in {folder}")
        except ModelError as error:
            yield fault(
                "models", str(error), f"Restore {folder} (`git checkout -- models`), or roll back: `sosie rollback`."
            )


def versions(settings: Settings) -> Iterator[Finding]:
    """The lake holds a vector of each live listing under the models in use."""
    lake = Lake(settings.lake_uri)
    for modality in MODALITIES:
        stamp = version(settings, modality)
        missing = lacking(lake, settings, modality).select(pl.len()).collect().item()
        if missing:
            yield fault(
                "versions",
                f"{missing:,} live listings have no {modality} vector of version {stamp}.",
                "Run `sosie rebuild`, which embeds what is missing.",
            )
        else:
            yield fine("versions", f"every live listing has its {modality} vector of version {stamp}")


def index(settings: Settings) -> Iterator[Finding]:
    """Milvus answers, its aliases serve the models in use, and it holds as many vectors as the lake has live ones."""
    lake = Lake(settings.lake_uri)
    with open_index(settings) as held:
        for modality in MODALITIES:
            stamp, serving = version(settings, modality), held.version(modality)
            live = lake.scan(LISTINGS).filter(having(modality)).select(pl.len()).collect().item()
            alias = alias_name(modality)
            if serving is None and not live:
                yield fine("index", f"{alias} is not there yet, and nothing is to be in it")
            elif serving is None:
                yield fault("index", f"There is no alias {alias}.", "Run `sosie rebuild`.")
            elif serving != stamp:
                yield fault(
                    "index",
                    f"{alias} serves version {serving}, the model is {stamp}.",
                    "Run `sosie rebuild`, or point SOSIE_MODELS at the models of the version that it serves.",
                )
            elif (count := held.count(modality)) != live:
                yield fault(
                    "index",
                    f"{alias} holds {count:,} vectors, the lake has {live:,} live listings with one.",
                    "Run `sosie rebuild`, which mends the index from the lake.",
                )
            else:
                yield fine("index", f"{alias} serves {stamp} with {count:,} vectors, as many as the lake")
            if spare := [one for one in held.versions(modality) if one != serving]:
                yield warning(
                    "index",
                    f"Collections of {', '.join(spare)} stand beside {alias}.",
                    "Nothing is wrong with it; they are for a way back, and cost memory.",
                )
