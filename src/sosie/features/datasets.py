"""Training sets that stay as they were: looked up once, as known then, and kept under a name in Feast's registry."""

import re
from typing import Any

import polars as pl

from sosie.errors import SettingsError
from sosie.features import history, store
from sosie.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def save(
    settings: Settings, name: str, entities: pl.DataFrame, service: str, *, as_known_then: bool = True
) -> pl.DataFrame:
    """Keep `entities` with the features of `service` (see `features.history`) under a name; returns the rows.

    By default as they were known at each row's time, so that nothing that was written, corrected or run again later
    gets into a training set. A name is given once. Raises `SettingsError` where it is taken.
    """
    feast = store(settings)
    if not _NAME.fullmatch(name):
        raise SettingsError(f"Received the name {name!r}. Letters, digits, dots, hyphens and underscores make a name.")
    if name in names(settings):
        raise SettingsError(f"There is a training set {name} already; give another name, its rows never change.")
    rows = history(settings, entities, service, as_known_then=as_known_then)
    path = settings.home / "feast" / "datasets" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    feast.registry.apply_saved_dataset(_dataset(feast, name, entities, rows, service, path), feast.project)
    return rows


def names(settings: Settings) -> list[str]:
    """Every training set that was saved."""
    feast = store(settings)
    feast.refresh_registry()
    return sorted(one.name for one in feast.registry.list_saved_datasets(feast.project))


def load(settings: Settings, name: str) -> pl.DataFrame:
    """The rows of a saved training set. Raises `SettingsError` naming those that there are."""
    known = names(settings)
    if name not in known:
        raise SettingsError(f"There is no training set {name}; valid are: {', '.join(known) or 'none yet'}.")
    kept = store(settings).get_saved_dataset(name)
    return pl.read_parquet(kept.storage.file_options.uri)


def _dataset(feast: Any, name: str, entities: pl.DataFrame, rows: pl.DataFrame, service: str, path: Any) -> Any:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
    from feast.saved_dataset import SavedDataset

    wanted = feast.get_feature_service(service)
    times = entities["event_timestamp"]
    kept = SavedDataset(
        name=name,
        features=[f"{view.name}:{one.name}" for view in wanted.feature_view_projections for one in view.features],
        join_keys=["listing_id"],
        storage=SavedDatasetFileStorage(path=str(path)),
        feature_service_name=service,
        tags={"rows": str(rows.height), "service": service},
    )
    kept.min_event_timestamp, kept.max_event_timestamp = times.min(), times.max()
    return kept
