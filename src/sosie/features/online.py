"""Single keys taken out of Feast's online stores, which Feast itself only fills."""

from collections.abc import Iterator, Sequence
from typing import Any

from sosie.errors import SettingsError

FORGETTING = ("sqlite", "redis")
"""Kinds of online store that single rows can be taken out of."""

_BATCH = 500


def remove(feast: Any, views: Sequence[Any], listing_ids: Sequence[str]) -> int:
    """Remove these listings from these feature views; returns how many (listing, view) rows there were.

    Raises `SettingsError` where the online store's `kind` is none of `FORGETTING`.
    """
    if kind(feast) == "sqlite":
        return sum(_from_sqlite(feast, view, listing_ids) for view in views)
    if kind(feast) == "redis":
        return _from_redis(feast, views, listing_ids)
    raise SettingsError(f"Old rows can be removed from SQLite and Redis; the online store is {kind(feast)}.")


def kind(feast: Any) -> str:
    """One of `FORGETTING`, whichever of Feast's classes for it that is; any other store's own name."""
    name = str(feast.config.online_store.type).rpartition(".")[2].lower()
    return next((known for known in FORGETTING if name.startswith(known)), name)


def _keys(listing_ids: Sequence[str]) -> Iterator[list[Any]]:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for start in range(0, len(listing_ids), _BATCH):
        some = listing_ids[start : start + _BATCH]
        yield [EntityKey(join_keys=["listing_id"], entity_values=[Value(string_val=one)]) for one in some]


def _from_sqlite(feast: Any, view: Any, listing_ids: Sequence[str]) -> int:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.sqlite import _quote_id, _table_id

    config = feast.config
    connection = feast.provider.online_store._get_conn(config)
    table = _quote_id(_table_id(config.project, view))
    removed = 0
    with connection:
        for keys in _keys(listing_ids):
            held = [serialize_entity_key(key, config.entity_key_serialization_version) for key in keys]
            among = f"entity_key IN ({','.join('?' * len(held))})"
            rows = connection.execute(f"SELECT COUNT(DISTINCT entity_key) FROM {table} WHERE {among}", held)  # noqa: S608
            removed += int(rows.fetchone()[0])
            connection.execute(f"DELETE FROM {table} WHERE {among}", held)  # noqa: S608
    return removed


def _from_redis(feast: Any, views: Sequence[Any], listing_ids: Sequence[str]) -> int:
    """One hash a listing holds all views: a field a feature, and one with the view's event time."""
    from feast.infra.online_stores.helpers import _mmh3, _redis_key

    config = feast.config
    client = feast.provider.online_store._get_client(config.online_store)
    removed = 0
    for keys in _keys(listing_ids):
        pipe = client.pipeline(transaction=False)
        for key in keys:
            name = _redis_key(config.project, key, config.entity_key_serialization_version)
            for view in views:
                pipe.hdel(name, f"_ts:{view.name}", *(_mmh3(f"{view.name}:{one.name}") for one in view.features))
        removed += sum(1 for gone in pipe.execute() if gone)
    return removed
