"""Features for others: history by point in time and by model version, and decisions in milliseconds, through Feast.

The lake's Delta tables are the offline store; the pipeline appends to them. This module keeps Feast's registry and
online store in step with them. Definitions are in `feature_repo/views.py`.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sqlite3
import string
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from sosie import faults
from sosie.errors import ModelError, SchemaMismatch, SettingsError, StoreBusy, TerminalError
from sosie.features.quick import lean
from sosie.features.versions import Versions, versions, view_name
from sosie.lake import Lake
from sosie.locks import exclusive
from sosie.settings import Settings
from sosie.tables import DECISIONS, EMBEDDINGS, Modality

LOOKUP = "duplicate_lookup"
_WRITE_BATCH = 5_000
_LOCK_SECONDS = 300.0


# The repo


def store(settings: Settings) -> Any:
    """The `feast.FeatureStore` of these settings; one a process, because it takes seconds to import and to open.

    Raises `SettingsError` where feature_store.yaml names a variable that is not set, and `TerminalError` where the
    registry is damaged.
    """
    return _store(str(settings.home), str(settings.feature_repo))


@lru_cache(maxsize=4)
def _store(home: str, repo: str) -> Any:
    import yaml

    with lean():
        from feast import FeatureStore, RepoConfig
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    # Feast turns every DeprecationWarning on; these two are its own business, not our users'.
    warnings.filterwarnings("ignore", message='Field name "vector_enabled"', category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")

    path = Path(repo) / "feature_store.yaml"
    try:
        text = string.Template(path.read_text()).substitute({**os.environ, "SOSIE_HOME": home})
    except FileNotFoundError:
        raise SettingsError(f"No feature repo in {repo}: point SOSIE_FEATURE_REPO at a folder that has one.") from None
    except KeyError as missing:
        raise SettingsError(f"{path} names the variable {missing}, which is not set; set it.") from None
    except ValueError as error:
        raise SettingsError(f"{path} has a `$` that starts no variable ({error}); write it `$$`.") from None
    _folder(Path(home)).mkdir(parents=True, exist_ok=True)
    with lean():  # which stores there are is known, and imported, only now
        feast = FeatureStore(config=RepoConfig(**yaml.safe_load(text), repo_path=Path(repo)))
    try:
        feast.list_entities()
    except DecodeError as error:
        raise _damaged(Path(home), "registry", "registry.db and applied.json", error) from error
    return feast


def _folder(home: Path) -> Path:
    return home / "feast"


def apply(settings: Settings) -> bool:
    """Bring registry and online store in line with the definitions; returns whether there was anything to do.

    Does nothing, and imports no Feast, where neither definitions nor versions changed since the last time.
    """
    known = versions(settings)
    digest = _digest(settings, known)
    record = _folder(settings.home) / "applied.json"
    if _recorded(record) == digest:
        return False
    lake = Lake(settings.lake_uri)
    with _alone(settings), _usable(settings):
        lake.create([*EMBEDDINGS.values(), DECISIONS])
        feast = store(settings)
        wanted = _views(settings).build(lake, known)
        names = {(type(one).__name__, one.name) for one in wanted}
        surplus = [
            one
            for one in (*feast.list_feature_services(), *feast.list_feature_views(), *feast.list_data_sources())
            if (type(one).__name__, one.name) not in names
        ]
        with faults.around("features.apply"):
            feast.apply(wanted, objects_to_delete=surplus, partial=False)
        path = getattr(feast.config.online_store, "path", None)  # of the embedded one
        online = str((settings.feature_repo / path).resolve()) if path else None
        record.write_text(json.dumps({"digest": digest, "online": online, **asdict(known)}, indent=2) + "\n")
    return True


def is_applied(settings: Settings) -> bool:
    """Whether registry and online store are in line with the definitions. Imports no Feast, changes nothing."""
    folder = _folder(settings.home)
    return _recorded(folder / "applied.json") == _digest(settings, versions(settings))


def _recorded(record: Path) -> str | None:
    """The digest of what was applied; None where nothing was, or the embedded online store has lost it since."""
    try:
        held = json.loads(record.read_text())
        digest, online = held["digest"], held.get("online")
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return str(digest) if online is None or _has_tables(Path(online)) else None


def _has_tables(online: Path) -> bool:
    if not online.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{online.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table'").fetchone() is not None
    except sqlite3.DatabaseError:
        return True  # busy or damaged, which whoever uses it is told


def _digest(settings: Settings, known: Versions) -> str:
    """Of everything that can change what is applied."""
    hashed = hashlib.sha256(json.dumps(asdict(known), sort_keys=True).encode())
    hashed.update(f"{settings.home} {settings.lake_uri} {importlib.metadata.version('feast')}".encode())
    for path in sorted([*settings.feature_repo.glob("*.py"), *settings.feature_repo.glob("*.yaml")]):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _views(settings: Settings) -> ModuleType:
    path = settings.feature_repo / "views.py"
    spec = importlib.util.spec_from_file_location("sosie_feature_views", path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path} can't be read as a Python module.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _alone(settings: Settings) -> AbstractContextManager[None]:
    """One writer at a time: what is there is read before it is replaced."""
    return exclusive(_folder(settings.home) / "write.lock", _LOCK_SECONDS, "writing features")


# The online store


def publish(settings: Settings, text: pl.DataFrame, image: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, int]:
    """Write rows of the tables `text_embeddings`, `image_embeddings` and `decisions` to the online store.

    Returns, for each of the three, how many listings were written, were there already (`…_unchanged`), and lost to a
    newer row (`…_late`). An older event never overwrites a newer one. Applies the definitions first where they changed.
    Raises `SchemaMismatch`, `StoreBusy`, and `ModelError` for vectors of a version that has no view.
    """
    lake = Lake(settings.lake_uri)
    apply(settings)
    counts = dict.fromkeys(
        (f"{name}{end}" for name in ("text", "image", "decisions") for end in ("", "_unchanged", "_late")), 0
    )
    with _alone(settings), _usable(settings):
        given: dict[Modality, pl.DataFrame] = {"text": text, "image": image}
        for modality, rows in given.items():
            for (version,), part in lake.checked(EMBEDDINGS[modality], rows).group_by("embedding_version"):
                part = part.rename({"vector": f"{modality}_vector", "content_hash": f"{modality}_hash"})
                _write(settings, view_name(modality, str(version)), part, counts, modality)
        _write(settings, "decisions", lake.checked(DECISIONS, decisions), counts, "decisions")
    return counts


def _write(settings: Settings, view: str, rows: pl.DataFrame, counts: dict[str, int], name: str) -> None:
    """Write the newest row of each listing that the online store doesn't hold yet, and count."""
    if rows.is_empty():
        return
    feast = store(settings)
    table = _view(feast, view)
    columns = [one.name for one in table.features]
    # A vector follows from its content and its view's version: comparing the hash is enough, and much cheaper.
    compared = [one for one in columns if not one.endswith("_vector")]
    newest = rows.sort("event_timestamp", "created_timestamp").unique("listing_id", keep="last", maintain_order=True)
    for batch in newest.iter_slices(_WRITE_BATCH):
        held = _held(feast, table, batch["listing_id"].to_list(), compared)
        # Some online stores keep whole seconds only.
        at = batch["event_timestamp"].dt.truncate("1s").to_list()
        late = pl.Series([t is not None and now < t for now, (t, _) in zip(at, held, strict=True)], dtype=pl.Boolean)
        same = pl.Series(
            [
                now == t and values == row
                for now, (t, values), row in zip(at, held, batch.select(compared).rows(), strict=True)
            ],
            dtype=pl.Boolean,
        )
        fresh = batch.filter(~late & ~same)
        counts[f"{name}_late"] += int(late.sum())
        counts[f"{name}_unchanged"] += int(same.sum())
        counts[name] += fresh.height
        if not fresh.is_empty():
            kept = fresh.select("listing_id", *columns, "event_timestamp", "created_timestamp")
            with faults.around(f"features.{name}"):
                feast.write_to_online_store(view, df=kept.to_pandas())


@contextmanager
def _usable(settings: Settings) -> Iterator[None]:
    """Raises `StoreBusy` where another process keeps the embedded online store to itself, or it has no room, and
    `TerminalError` where it is damaged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise StoreBusy(
                f"Feast's online store can't be used ({error}). End whoever holds it, or make room; then run the hour "
                "again: nothing doubles."
            ) from error
        raise _damaged(settings.home, "online store", "online.db", error) from error


def _damaged(home: Path, what: str, files: str, error: Exception) -> TerminalError:
    return TerminalError(
        f"Feast's {what} in {_folder(home)} is damaged ({error}). Remove {files} there, then run `sosie upkeep`: what "
        "was in it is made again from the lake."
    )


def forget(settings: Settings, listing_ids: pl.Series, modalities: Sequence[str] = tuple(EMBEDDINGS)) -> int:
    """Remove the vectors of these listings from the online store, of every version; returns how many rows went.

    Decisions stay: they say that the listing is no duplicate any more. Feast itself can't delete single keys, so this
    knows its SQLite store and its Redis store; raises `SettingsError` for any other.
    """
    from sosie.features.online import remove

    if listing_ids.is_empty():
        return 0
    apply(settings)
    feast = store(settings)
    with _alone(settings), _usable(settings):
        prefixes = tuple(view_name(modality, "") for modality in modalities)
        views = [view for view in feast.list_feature_views() if view.name.startswith(prefixes)]
        return remove(feast, views, listing_ids.to_list())


def _held(feast: Any, table: Any, ids: list[str], columns: list[str]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Event time (whole seconds) and values that the online store holds for each id; (None, ()) where it has none."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    keys = [EntityKey(join_keys=["listing_id"], entity_values=[Value(string_val=one)]) for one in ids]
    found = feast.provider.online_read(feast.config, table, keys, list(columns))  # Redis adds to the list
    return [
        (None, ()) if at is None else (at.replace(microsecond=0), tuple(_plain(values.get(one)) for one in columns))
        for at, values in found
    ]


def _plain(value: Any) -> Any:
    kind = None if value is None else value.WhichOneof("val")
    return None if kind in (None, "null_val") else getattr(value, kind)


def _view(feast: Any, name: str) -> Any:
    from feast.errors import FeatureViewNotFoundException

    try:
        return feast.get_feature_view(name)
    except FeatureViewNotFoundException:
        feast.refresh_registry()  # another process may have applied since we read it
    try:
        return feast.get_feature_view(name)
    except FeatureViewNotFoundException:
        known = ", ".join(sorted(one.name for one in feast.list_feature_views()))
        raise ModelError(
            f"There is no feature view {name}; valid are: {known}. Append the rows to the lake first, or point "
            "SOSIE_MODELS at the models that made them."
        ) from None


def lookup(settings: Settings, listing_ids: Iterable[str]) -> pl.DataFrame:
    """Is each of these listings a duplicate, and of which one?

    One row an id, in their order: listing_id, is_duplicate, cluster_id, canonical_id, score; nulls where the online
    store has no decision on it.
    """
    ids = list(listing_ids)
    names = ("is_duplicate", "cluster_id", "canonical_id", "score")
    schema = {name: DECISIONS.columns[name] for name in ("listing_id", *names)}
    if not ids:
        return pl.DataFrame(schema=schema)
    with _usable(settings):
        answer = store(settings).get_online_features(
            features=[f"decisions:{name}" for name in names], entity_rows={"listing_id": ids}
        )
    return pl.DataFrame(answer.to_dict(), schema_overrides=schema).select(*schema)


# The offline store


def services(settings: Settings) -> list[str]:
    """Names of the feature services that there are, in order."""
    return sorted(one.name for one in store(settings).list_feature_services())


def history(settings: Settings, entities: pl.DataFrame, service: str, *, as_known_then: bool = True) -> pl.DataFrame:
    """`entities` with the features of `service` as they were at each row's own time.

    `entities` has listing_id, event_timestamp (UTC) and whatever else it is to keep; rows and their order stay. A row
    gets the newest value with an event time not after its own, and nulls where there was none. Values that were
    *written* later (backfills, late data, corrections) are left out, as nobody knew them, but where `as_known_then` is
    false. Raises `SettingsError` for an unknown service, `SchemaMismatch` for entities without those columns, or with
    times of another type.
    """
    from feast.errors import FeatureServiceNotFoundException

    if missing := {"listing_id", "event_timestamp"} - set(entities.columns):
        raise SchemaMismatch(f"Entities lack {', '.join(sorted(missing))}; they need listing_id and event_timestamp.")
    if (dtype := entities.schema["event_timestamp"]) not in (pl.Datetime, pl.Date):
        raise SchemaMismatch(f"Entities have {dtype} as event_timestamp; make it a time.")
    if entities.is_empty():
        raise SchemaMismatch("There are no entities to look up; give at least one row.")
    feast = store(settings)
    try:
        wanted = feast.get_feature_service(service)
    except FeatureServiceNotFoundException:
        known = ", ".join(sorted(one.name for one in feast.list_feature_services()))
        raise SettingsError(f"There is no feature service {service}; valid are: {known or 'none yet'}.") from None
    offered = {one.name for view in wanted.feature_view_projections for one in view.features}
    if taken := offered & set(entities.columns):
        raise SchemaMismatch(f"Entities have columns that {service} fills: {', '.join(sorted(taken))}; rename them.")
    keys = {name: DECISIONS.columns[name] for name in ("listing_id", "event_timestamp")}
    asked = entities.with_columns(pl.col(name).cast(dtype) for name, dtype in keys.items())
    answer = feast.get_historical_features(
        entity_df=asked.with_row_index("row_of_entity").to_pandas(),
        features=wanted,
        filter_by_created_timestamp=as_known_then,
    ).to_arrow()
    found = pl.DataFrame(pl.from_arrow(answer)).sort("row_of_entity")
    return asked.hstack(found.drop("row_of_entity", *entities.columns))
