"""Which embedding versions there are features of."""

from dataclasses import dataclass

from sosie.artifacts import Artifact
from sosie.errors import TerminalError
from sosie.lake import Lake
from sosie.settings import Settings
from sosie.tables import EMBEDDINGS, RUNS, Table


@dataclass(frozen=True)
class Versions:
    """Embedding versions that have a view, and the (text, image) pairs that have a feature service."""

    text: tuple[str, ...]
    image: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def versions(settings: Settings) -> Versions:
    """Those of the models in use or built beside them, of every vector in the lake, and of pairs that a run used.

    So a consumer that is pinned to an old version keeps its view for as long as the lake keeps the vectors.
    """
    lake = Lake(settings.lake_uri)
    live = {modality: _model_version(settings, modality) for modality in EMBEDDINGS}
    known = {modality: _partitions(lake, table) for modality, table in EMBEDDINGS.items()}
    for modality, version in live.items():
        if version:
            known[modality].add(version)
    ran = lake.scan(RUNS).select("text_version", "image_version").unique().drop_nulls().collect().rows()
    pairs = {
        (text, image) for text, image in [*ran, (live["text"], live["image"]), _beside(settings)] if text and image
    }
    return Versions(
        text=tuple(sorted(known["text"])),
        image=tuple(sorted(known["image"])),
        pairs=tuple(sorted(pair for pair in pairs if pair[0] in known["text"] and pair[1] in known["image"])),
    )


def _beside(settings: Settings) -> tuple[str | None, str | None]:
    """Text and picture version of the second models, so that their service is there before they are served.

    None of models that can't be used: the storefront's answers don't wait for them, and the step `follow` says why.
    """
    from sosie.rebuild import second

    try:
        target = second(settings)
    except TerminalError:
        return None, None
    return (target.versions["text"], target.versions["image"]) if target else (None, None)


def view_name(modality: str, version: str) -> str:
    return f"{modality}_embedding_{version}"


def service_name(modality: str, version: str) -> str:
    return f"{modality}_vectors_{version}"


def _model_version(settings: Settings, modality: str) -> str | None:
    folder = settings.encoder(modality)
    if not folder.is_dir():
        return None
    return Artifact.load(folder, f"{modality}-encoder").version


def _partitions(lake: Lake, table: Table) -> set[str]:
    held = lake.open(table)
    return {str(partition["embedding_version"]) for partition in held.partitions()} if held else set()
