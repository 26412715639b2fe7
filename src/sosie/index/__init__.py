"""Nearest neighbours of listings, by text or by picture, in Milvus.

One collection per modality and embedding version, `listings_<modality>_<version>`, and one alias per modality,
`listings_<modality>`, which searches and writes use. A listing without a picture has no row in the image collection: a
null vector would become a zero vector and come back as a hit. The index holds nothing that the lake does not; it can
always be loaded again from there.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import polars as pl

from sosie import faults
from sosie.artifacts import Artifact
from sosie.errors import IndexOutOfStep, SettingsError, TerminalError
from sosie.index import server
from sosie.index.client import MilvusCalls, among
from sosie.index.profiles import METRIC, PROFILES, IndexProfile, index_params, profile_for
from sosie.index.rows import BATCH, CLUSTER_BATCH, MAX_ID_BYTES, NEIGHBOURS, batches, checked, neighbours, same
from sosie.lake import Written
from sosie.locks import exclusive
from sosie.settings import Settings
from sosie.tables import DIM, MODALITIES, Modality
from sosie.vectors import Picked, Vectors

_ID, _VECTOR = "listing_id", "vector"
_INDEX_SECONDS = 6 * 3_600.0


def collection_name(modality: Modality, version: str) -> str:
    return f"{alias_name(modality)}_{version}"


def alias_name(modality: Modality) -> str:
    return f"listings_{modality}"


@contextmanager
def open_index(settings: Settings) -> Iterator["VectorIndex"]:
    """The index of these settings, its server started where it is ours. Raises `IndexUnavailable`."""
    with server.serve(settings) as uri:
        # The embedded server loses acknowledged writes of concurrent writers: one writer at a time.
        lock = None if settings.milvus_uri else server.folder(settings) / "write.lock"
        with VectorIndex(
            uri,
            token=settings.milvus_token,
            timeout=settings.milvus_timeout_seconds,
            write_lock=lock,
            profile=settings.milvus_profile,
        ) as index:
            _follow_live(index, settings)
            yield index


def _follow_live(index: "VectorIndex", settings: Settings) -> None:
    """Move each alias to the version that the last switch of models made live, where that died before it did."""
    from sosie import registry

    for modality in MODALITIES:
        wanted = registry.committed(settings).get(modality)
        if (
            wanted
            and index.version(modality) not in (None, wanted)
            # The packaged models may be others by now than at the time of the switch.
            and Artifact.load(settings.encoder(modality), registry.KINDS[modality]).version == wanted
            and wanted in index.versions(modality)
        ):
            index.promote(modality, wanted)


class VectorIndex:
    """Vectors of listings in one Milvus. Close it, or use it as a context manager."""

    def __init__(
        self,
        uri: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        write_lock: Path | None = None,
        profile: str | None = None,
    ) -> None:
        self._milvus = MilvusCalls(uri, token=token, timeout=timeout)
        self._write_lock = write_lock
        self._embedded = write_lock is not None
        self._batch = BATCH if self._embedded else CLUSTER_BATCH
        self._profile = profile
        self._profiles: dict[str, IndexProfile | None] = {}
        self._loaded: set[str] = set()
        self._pinned: dict[str, str] = {}

    def __enter__(self) -> "VectorIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._milvus.close()

    # Collections and aliases

    def ensure(self, modality: Modality, version: str) -> None:
        """Make the collection of this version where it is missing, and the alias where there is none.

        From then on this object reads and writes that very collection, so that an alias which moves meanwhile can't
        mix two versions. Raises `SettingsError` where the alias serves another version: only `promote` moves it.
        """
        serving = self.version(modality)
        if serving not in (None, version):
            raise SettingsError(
                f"Alias {alias_name(modality)} serves embedding version {serving}; the {modality} model is of version "
                f"{version}. Run `sosie rebuild`, or point SOSIE_MODELS at the models of {serving}."
            )
        self.create(modality, version)
        if serving is None:
            self.promote(modality, version)
        self._pinned[modality] = version

    def create(self, modality: Modality, version: str) -> None:
        """Make the collection of this version where it is missing; no search sees it before `promote`.

        It is indexed as a small one is until `fit` knows better.
        """
        from pymilvus import DataType, MilvusClient

        name = collection_name(modality, version)
        if self._milvus.call("has_collection", name):
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ID, DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=DIM)
        self._milvus.call(
            "create_collection",
            name,
            schema=schema,
            index_params=index_params(PROFILES["exact"], _VECTOR),
            consistency_level="Strong",
        )

    def profile_for(self, rows: int) -> str:
        """Name of the index profile for so many rows: the one that is set, else the best that this server can build."""
        if self._profile is not None:
            return self._profile
        return profile_for(rows, "" if self._embedded else str(self._milvus.call("get_server_version")))

    def load(self, modality: Modality) -> None:
        """Have the server read the collection that is served, where there is one: else who asks first waits for it."""
        if self.version(modality) is not None:
            self._milvus.call("load_collection", alias_name(modality))

    def fit(self, modality: Modality, version: str, rows: int) -> bool:
        """Index the collection by the profile for so many rows; returns whether it was by another.

        It can't be searched meanwhile. One that shrank stays as it is, but where a profile is set.
        """
        name, wanted = collection_name(modality, version), PROFILES[self.profile_for(rows)]
        now = self._indexed(name)
        if now is wanted or (now is not None and self._profile is None and now.up_to >= wanted.up_to):
            return False
        with self._writing():
            self._milvus.call("release_collection", name)
            if now is not None:  # none where whoever indexed it anew died half-way
                self._milvus.call("drop_index", name, _VECTOR)
            self._milvus.call("create_index", name, index_params(wanted, _VECTOR), timeout=_INDEX_SECONDS)
            # Loaded again as it was: others, and an alias, may know it so.
            self._milvus.call("load_collection", name, timeout=_INDEX_SECONDS)
        self._profiles.clear()
        return True

    def promote(self, modality: Modality, version: str) -> str | None:
        """Let the alias serve this version from now on, in one step; returns the version that it served before.

        Raises `IndexOutOfStep` where there is no collection of this version.
        """
        name, before = collection_name(modality, version), self.version(modality)
        if not self._milvus.call("has_collection", name):
            raise IndexOutOfStep(f"There is no collection {name} to promote. Run `sosie rebuild` first.")
        if before != version:
            self._milvus.call("create_alias" if before is None else "alter_alias", name, alias_name(modality))
            self._forget(alias_name(modality))
            self._pinned.pop(modality, None)
        return before

    def version(self, modality: Modality) -> str | None:
        """The embedding version that searches use; none before the first `ensure`."""
        try:
            told = self._milvus.call("describe_alias", alias_name(modality))
        except IndexOutOfStep:
            return None
        return str(told["collection_name"]).removeprefix(alias_name(modality) + "_")

    def versions(self, modality: Modality) -> list[str]:
        """All versions that have a collection, served or not, in order."""
        prefix = alias_name(modality) + "_"
        return sorted(
            name.removeprefix(prefix) for name in self._milvus.call("list_collections") if name.startswith(prefix)
        )

    def drop(self, modality: Modality, version: str) -> None:
        """Delete a collection. Raises `SettingsError` where the alias serves it: Milvus itself would not mind."""
        name = collection_name(modality, version)
        if self._milvus.call("list_aliases", name)["aliases"]:
            raise SettingsError(f"Collection {name} is being served. Promote another version first.")
        self._milvus.call("drop_collection", name)
        self._forget(name)

    def compact(self, modality: Modality, version: str) -> None:
        """Have Milvus merge small segments and drop deleted rows: now, or soon where it does so in the background."""
        name = self._name(modality, version)
        self._milvus.call("flush", name)  # the embedded server merges whenever it has flushed
        if not self._embedded:
            self._milvus.call("compact", name)

    # Writes

    def upsert(
        self, modality: Modality, ids: Sequence[str], vectors: Vectors, *, version: str | None = None
    ) -> Written:
        """Hold these unit vectors, shape (len(ids), 128), under these ids. Vectors that are there already are left.

        Reads back what it wrote. Raises `SchemaMismatch` on rows that can't be held, `IndexOutOfStep` where Milvus
        doesn't hold them afterwards, `IndexUnavailable`, `StoreBusy`.
        """
        return self.exchange(modality, ids, vectors, [], version=version) if ids else Written()

    def delete(self, modality: Modality, ids: Sequence[str], *, version: str | None = None) -> Written:
        """Delete these ids; those that aren't there are fine. Raises as `upsert`."""
        nothing = np.empty((0, DIM), np.float32)
        return self.exchange(modality, [], nothing, ids, version=version) if ids else Written()

    def exchange(
        self,
        modality: Modality,
        ids: Sequence[str],
        vectors: Vectors,
        gone: Sequence[str],
        *,
        version: str | None = None,
    ) -> Written:
        """`upsert` some and `delete` others."""
        ids, vectors = checked(ids, vectors)
        name = self._name(modality, version)
        with self._writing():
            inserted, updated = self._put(modality, name, ids, vectors)
            deleted = self._take(modality, name, list(dict.fromkeys(gone)))
        left_alone = len(ids) - inserted - updated + len(set(gone)) - deleted
        return Written(inserted, updated, left_alone, deleted)

    def _put(self, modality: Modality, name: str, ids: list[str], vectors: Vectors) -> tuple[int, int]:
        """How many rows were inserted, and how many updated."""
        inserted, updated = 0, 0
        for batch, wanted in batches(ids, vectors, self._batch):
            held = self._held(name, batch)
            new = np.array([one not in held for one in batch])
            differs = new | np.array([not same(held.get(i), v) for i, v in zip(batch, wanted, strict=True)])
            if not differs.any():
                continue
            rows = [{_ID: batch[at], _VECTOR: wanted[at]} for at in np.flatnonzero(differs)]
            with faults.around(f"index.{modality}.upsert"):
                self._milvus.call("upsert", name, rows)
            inserted, updated = inserted + int(new.sum()), updated + int((differs & ~new).sum())
        if inserted + updated:
            self._verify_held(name, ids, vectors)
        return inserted, updated

    def _take(self, modality: Modality, name: str, ids: list[str]) -> int:
        """How many rows were deleted."""
        deleted, left = 0, 0
        for start in range(0, len(ids), self._batch):
            held = list(self._held(name, ids[start : start + self._batch], vectors=False))
            if held:
                with faults.around(f"index.{modality}.delete"):
                    self._milvus.call("delete", name, filter=among(_ID, held))
                deleted, left = deleted + len(held), left + len(self._held(name, held, vectors=False))
        if left:
            raise IndexOutOfStep(f"{left} of {deleted} deleted listings are still in {name}. Run the step again.")
        return deleted

    def rebuild_from(self, modality: Modality, version: str, ids: pl.Series, vectors: Vectors | Picked) -> Written:
        """Make the collection of this version hold exactly these ids and their vectors, whatever it holds now.

        The alias is left as it is. Raises as `upsert`.
        """
        self.create(modality, version)
        surplus = set(self.ids(modality, version=version)) - set(ids)
        written = self.delete(modality, sorted(surplus), version=version)
        for start in range(0, len(ids), CLUSTER_BATCH):
            part = slice(start, start + CLUSTER_BATCH)
            written += self.upsert(modality, ids[part].to_list(), vectors[part], version=version)
        self.fit(modality, version, len(ids))
        return written

    # Reads

    def count(self, modality: Modality, *, version: str | None = None) -> int:
        """Rows held now (`num_entities` lags; this does not). The embedded server reads the whole collection for it."""
        rows = self._milvus.call(
            "query",
            self._name(modality, version),
            filter="",
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        return int(rows[0]["count(*)"])

    def ids(self, modality: Modality, *, version: str | None = None) -> Iterator[str]:
        """Every id held, in no order."""
        name = self._name(modality, version)
        if self._embedded:  # where each page would cost a look at the whole collection
            every = self._milvus.call(
                "query", name, filter=f'{_ID} >= ""', output_fields=[_ID], consistency_level="Strong"
            )
            yield from (row[_ID] for row in every)
            return
        pages = self._milvus.call("query_iterator", name, batch_size=10 * BATCH, output_fields=[_ID])
        try:
            while page := pages.next():
                yield from (row[_ID] for row in page)
        finally:
            pages.close()

    def search(
        self, modality: Modality, ids: Sequence[str], vectors: Vectors, k: int, *, min_similarity: float = -1.0
    ) -> pl.DataFrame:
        """The `k` nearest listings of each query vector, itself left out, as a neighbours frame.

        `vectors` has shape (len(ids), 128); `ids` need not be held. Rows come by query, nearest first. Sees every write
        that was acknowledged before it.
        """
        ids, vectors = checked(ids, vectors)
        name, frames = self._name(modality, None), []
        profile, limit = self._profile_of(name), k + 1  # one may be the query itself
        options = {"metric_type": METRIC, "params": profile.asking(limit) if profile else {}}
        for batch, queries in batches(ids, vectors, BATCH):
            found = self._milvus.call(
                "search",
                name,
                data=list(queries),
                limit=limit,
                anns_field=_VECTOR,
                search_params=options,
                output_fields=[_ID],
                consistency_level="Strong",
            )
            frames.append(neighbours(batch, found, k, min_similarity))
        return pl.concat(frames) if frames else pl.DataFrame(schema=NEIGHBOURS)

    # Inner parts

    def _name(self, modality: Modality, version: str | None) -> str:
        """Collection or alias, loaded: a server that was started again holds its collections released."""
        version = version or self._pinned.get(modality)
        name = alias_name(modality) if version is None else collection_name(modality, version)
        if name not in self._loaded:
            try:
                self._milvus.call("load_collection", name)
            except TerminalError:
                if self._indexed(name) is not None:
                    raise
                # Whoever indexed it anew died half-way, and a cluster loads nothing that has no index.
                self._milvus.call("create_index", name, index_params(PROFILES["exact"], _VECTOR))
                self._milvus.call("load_collection", name)
            self._loaded.add(name)
        return name

    def _indexed(self, name: str) -> IndexProfile | None:
        """The profile that a collection is indexed by; none where it has no index. Embedded, it counts all rows."""
        told = self._milvus.call("describe_index", name, _VECTOR)
        kind = told["index_type"] if told else None
        return next((profile for profile in PROFILES.values() if profile.index_type == kind), None)

    def _forget(self, name: str) -> None:
        self._loaded.discard(name)
        self._profiles.pop(name, None)

    def _profile_of(self, name: str) -> IndexProfile | None:
        """By which the collection is really indexed, asked once."""
        if name not in self._profiles:
            self._profiles[name] = self._indexed(name)
        return self._profiles[name]

    def _writing(self) -> AbstractContextManager[object]:
        if self._write_lock is None:
            return nullcontext()
        return exclusive(self._write_lock, 20 * self._milvus.timeout, "writing to Milvus")

    def _held(self, name: str, ids: Sequence[str], *, vectors: bool = True) -> dict[str, Vectors]:
        rows = self._milvus.call(
            "query",
            name,
            filter=among(_ID, ids),
            output_fields=[_ID, _VECTOR] if vectors else [_ID],
            consistency_level="Strong",
        )
        return {row[_ID]: np.asarray(row.get(_VECTOR, ()), dtype=np.float32) for row in rows}

    def _verify_held(self, name: str, ids: list[str], vectors: Vectors) -> None:
        right = 0
        for batch, wanted in batches(ids, vectors, self._batch):
            held = self._held(name, batch)
            right += sum(same(held.get(i), v) for i, v in zip(batch, wanted, strict=True))
        if right != len(ids):
            raise IndexOutOfStep(
                f"{right} of {len(ids)} vectors are in {name}; the rest are not, or are others. Run the step again: "
                "keys are stable, nothing doubles. If it stays so, run `sosie rebuild`."
            )
