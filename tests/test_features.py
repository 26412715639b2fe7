"""Apply, publish, look up and travel in time, on a real Feast repo over real Delta tables."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sosie import artifacts, features, settings
from sosie.errors import ModelError, SchemaMismatch, SettingsError
from sosie.features import datasets
from sosie.features.quick import lean
from sosie.features.versions import Versions, service_name, versions, view_name
from sosie.lake import Lake
from sosie.tables import DECISIONS, DIM, IMAGE_EMBEDDINGS, RUNS, TEXT_EMBEDDINGS, TIMESTAMP, VECTOR

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
IDS = ["a", "b", "it's c", "ünï"]


def embeddings(ids: list[str], at: datetime, version: str, *, seed: int, written: datetime | None = None):
    vectors = np.random.default_rng(seed).normal(size=(len(ids), DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pl.DataFrame(
        {
            "listing_id": pl.Series(ids, dtype=pl.String),
            "vector": pl.Series(vectors.tolist(), dtype=VECTOR),
            "content_hash": pl.Series([f"{seed}/{one}" for one in ids], dtype=pl.String),
        }
    ).with_columns(
        pl.lit(version).alias("embedding_version"),
        pl.lit(at).cast(TIMESTAMP).alias("event_timestamp"),
        pl.lit(written or at).cast(TIMESTAMP).alias("created_timestamp"),
    )


def decisions(ids: list[str], at: datetime, cluster: str | None) -> pl.DataFrame:
    return pl.DataFrame({"listing_id": pl.Series(ids, dtype=pl.String)}).select(
        "listing_id",
        pl.lit(cluster is not None).alias("is_duplicate"),
        pl.lit(cluster, pl.String).alias("cluster_id"),
        pl.lit(cluster and f"first of {cluster}", pl.String).alias("canonical_id"),
        pl.lit(0.9 if cluster else None, pl.Float64).alias("score"),
        pl.lit(at).cast(TIMESTAMP).alias("event_timestamp"),
        pl.lit(at).cast(TIMESTAMP).alias("created_timestamp"),
        pl.lit("2026-01-05T00").alias("run_id"),
    )


NO_TEXT, NO_IMAGE, NO_DECISIONS = (table.schema.to_frame() for table in (TEXT_EMBEDDINGS, IMAGE_EMBEDDINGS, DECISIONS))


def counts(**expected: int) -> dict[str, int]:
    names = [f"{name}{end}" for name in ("text", "image", "decisions") for end in ("", "_unchanged", "_late")]
    return dict.fromkeys(names, 0) | expected


def entities(*rows: tuple[str, datetime]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"listing_id": pl.String, "event_timestamp": TIMESTAMP}, orient="row")


@pytest.fixture(scope="module")
def lake_settings(tmp_path_factory: pytest.TempPathFactory) -> settings.Settings:
    """Two hours of embeddings and decisions in the lake, models beside it, definitions applied."""
    home = tmp_path_factory.mktemp("features")
    for modality in ("text", "image"):
        folder = home / "models" / modality
        folder.mkdir(parents=True)
        (folder / "weights").write_text(modality)
        artifacts.save(folder, f"{modality}-encoder", ["weights"], usage={}, about={})
    given = settings.load(home=home, models=home / "models")
    lake = Lake(given.lake_uri)
    text, image = live(given)
    lake.append(TEXT_EMBEDDINGS, embeddings(IDS, NOON, text, seed=1))
    lake.append(TEXT_EMBEDDINGS, embeddings(["a"], NOON + 2 * HOUR, text, seed=2))
    lake.append(TEXT_EMBEDDINGS, embeddings(["a"], NOON + HOUR, "0ld", seed=3))
    lake.append(IMAGE_EMBEDDINGS, embeddings(["a", "b"], NOON, image, seed=4, written=NOON + 5 * HOUR))
    lake.append(DECISIONS, decisions(IDS, NOON, "c1"))
    lake.append(DECISIONS, decisions(["b"], NOON + HOUR, None))
    assert features.apply(given)
    return given


def live(given: settings.Settings) -> tuple[str, str]:
    text, image = (
        artifacts.Artifact.load(given.models / kind, f"{kind}-encoder").version for kind in ("text", "image")
    )
    return text, image


def service(given: settings.Settings) -> str:
    return "listing_embeddings_{}_{}".format(*live(given))


def vector(rows: pl.DataFrame, at: int = 0) -> list[float]:
    return rows["vector"][at].to_list()


def test_the_repo_has_a_view_for_every_version_there_is(lake_settings: settings.Settings) -> None:
    text, image = live(lake_settings)
    feast = features.store(lake_settings)
    assert {one.name for one in feast.list_feature_views()} == {
        view_name("text", text), view_name("text", "0ld"), view_name("image", image), "decisions",
    }  # fmt: skip
    assert {one.name for one in feast.list_feature_services()} == {
        service(lake_settings), features.LOOKUP,
        *(service_name("text", one) for one in (text, "0ld")), service_name("image", image),
    }  # fmt: skip
    field = feast.get_feature_view(view_name("text", text)).features[0]
    assert (field.name, str(field.dtype), field.vector_length) == ("text_vector", "Array(Float32)", DIM)


def test_feasts_own_command_line_works_on_the_same_repo(lake_settings: settings.Settings) -> None:
    command = [Path(sys.executable).with_name("feast"), "-c", lake_settings.feature_repo, "apply", "--no-progress"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOSIE_")}
    ours = {"SOSIE_HOME": str(lake_settings.home), "SOSIE_MODELS": str(lake_settings.models)}
    done = subprocess.run(command, env=environment | ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No changes to registry" in done.stdout, f"the command line applies something else: {done.stdout}"


def test_apply_does_nothing_until_a_version_appears_and_takes_back_what_is_gone(tmp_path: Path) -> None:
    given = settings.load(home=tmp_path, models=tmp_path / "none yet")
    assert versions(given) == Versions((), (), ())
    assert features.apply(given)
    assert not features.apply(given)
    lake = Lake(given.lake_uri)
    lake.append(TEXT_EMBEDDINGS, embeddings(["a"], NOON, "t1", seed=1))
    lake.append(IMAGE_EMBEDDINGS, embeddings(["a"], NOON, "i1", seed=1))
    run = dict.fromkeys(RUNS.columns) | {
        "run_id": "r",
        "state": "succeeded",
        "text_version": "t1",
        "image_version": "i1",
    }
    lake.append(RUNS, pl.DataFrame([run], schema=RUNS.schema))
    assert features.apply(given)
    feast = features.store(given)
    assert {one.name for one in feast.list_feature_services()} == {
        "listing_embeddings_t1_i1", "text_vectors_t1", "image_vectors_i1", features.LOOKUP,
    }  # fmt: skip
    lake.delete(TEXT_EMBEDDINGS, pl.DataFrame({"embedding_version": ["t1"]}))
    assert features.apply(given)
    assert {one.name for one in feast.list_feature_views()} == {"image_embedding_i1", "decisions"}
    assert {one.name for one in feast.list_feature_services()} == {"image_vectors_i1", features.LOOKUP}


def test_publishing_twice_writes_once_and_late_rows_never_win(lake_settings: settings.Settings) -> None:
    text, image = live(lake_settings)
    texts, images = embeddings(IDS, NOON, text, seed=1), embeddings(["a", "b"], NOON, image, seed=4)
    decided = decisions(IDS, NOON, "c1")
    assert features.publish(lake_settings, texts, images, decided) == counts(text=4, image=2, decisions=4)
    assert features.publish(lake_settings, texts, images, decided) == counts(
        text_unchanged=4, image_unchanged=2, decisions_unchanged=4
    )
    newer = pl.concat([decided, decisions(["b"], NOON + HOUR, None)])  # several events of one listing: the newest
    assert features.publish(lake_settings, NO_TEXT, NO_IMAGE, newer) == counts(decisions=1, decisions_unchanged=3)
    assert features.publish(lake_settings, texts, NO_IMAGE, decisions(["b", "new"], NOON, "c9")) == counts(
        text_unchanged=4, decisions=1, decisions_late=1
    )
    assert features.publish(lake_settings, NO_TEXT, NO_IMAGE, decisions(["new"], NOON, "c2")) == counts(decisions=1), (
        "a correction of the same hour counts"
    )
    found = features.lookup(lake_settings, ["b", "it's c", "never seen", "new", "a"])
    assert found.rows() == [
        ("b", False, None, None, None),
        ("it's c", True, "c1", "first of c1", 0.9),
        ("never seen", None, None, None, None),
        ("new", True, "c2", "first of c2", 0.9),
        ("a", True, "c1", "first of c1", 0.9),
    ]
    assert features.lookup(lake_settings, []).is_empty()


def test_vectors_come_back_from_the_online_store_by_version(lake_settings: settings.Settings) -> None:
    text, image = live(lake_settings)
    new, old = embeddings(["b"], NOON, text, seed=11), embeddings(["b"], NOON, "0ld", seed=12)
    picture = embeddings(["b"], NOON, image, seed=13)
    features.publish(lake_settings, pl.concat([new, old]), picture, NO_DECISIONS)
    feast = features.store(lake_settings)
    answer = feast.get_online_features(
        features=feast.get_feature_service(service(lake_settings)), entity_rows=[{"listing_id": "b"}]
    ).to_dict()
    np.testing.assert_array_equal(answer["text_vector"][0], vector(new))
    np.testing.assert_array_equal(answer["image_vector"][0], vector(picture))
    answer = feast.get_online_features(
        features=[f"{view_name('text', '0ld')}:text_vector"], entity_rows=[{"listing_id": "b"}]
    ).to_dict()
    np.testing.assert_array_equal(answer["text_vector"][0], vector(old))


def test_history_is_what_was_known_then(lake_settings: settings.Settings) -> None:
    asked = entities(
        ("b", NOON + 3 * HOUR), ("b", NOON), ("b", NOON + HOUR), ("b", NOON - HOUR), ("nobody", NOON), ("b", NOON)
    ).with_columns(label=pl.Series([1, 2, 3, 4, 5, 6]))
    found = features.history(lake_settings, asked, features.LOOKUP)
    assert found.select(asked.columns).equals(asked), "rows, order and other columns stay"
    assert found["is_duplicate"].to_list() == [False, True, False, None, None, True]
    assert found["cluster_id"].to_list() == [None, "c1", None, None, None, "c1"]


def test_history_of_one_version_never_shows_another(lake_settings: settings.Settings) -> None:
    text, _ = live(lake_settings)
    asked = entities(("a", NOON + HOUR), ("a", NOON + 2 * HOUR), ("ünï", NOON))
    found = features.history(lake_settings, asked, service(lake_settings), as_known_then=False)
    first, second = embeddings(IDS, NOON, text, seed=1), embeddings(["a"], NOON, text, seed=2)
    # At one o'clock the newest vector of listing a is of another version: it must not show.
    np.testing.assert_array_equal(found["text_vector"][0].to_list(), vector(first))
    np.testing.assert_array_equal(found["text_vector"][1].to_list(), vector(second))
    np.testing.assert_array_equal(found["text_vector"][2].to_list(), vector(first, IDS.index("ünï")))
    assert found["image_vector"].is_null().to_list() == [False, False, True]


def test_history_can_leave_out_what_was_written_later(lake_settings: settings.Settings) -> None:
    asked = entities(("a", NOON + HOUR), ("a", NOON + 5 * HOUR))
    found = features.history(lake_settings, asked, service(lake_settings))
    assert found["image_vector"].is_null().to_list() == [True, False]
    assert not found["text_vector"].has_nulls()


def test_materialising_the_lake_fills_an_empty_online_store(lake_settings: settings.Settings) -> None:
    """Feast's own way, for an online store that was lost."""
    feast = features.store(lake_settings)
    feast.materialize(NOON - HOUR, NOON + HOUR, feature_views=[view_name("text", "0ld"), "decisions"])
    answer = feast.get_online_features(
        features=[f"{view_name('text', '0ld')}:text_vector"], entity_rows=[{"listing_id": "a"}]
    ).to_dict()
    np.testing.assert_array_equal(answer["text_vector"][0], vector(embeddings(["a"], NOON, "0ld", seed=3)))


def test_mistakes_are_named(lake_settings: settings.Settings) -> None:
    with pytest.raises(SettingsError, match=f"no feature service nope; valid are: .*{features.LOOKUP}"):
        features.history(lake_settings, entities(("a", NOON)), "nope")
    with pytest.raises(SchemaMismatch, match="lack event_timestamp"):
        features.history(lake_settings, pl.DataFrame({"listing_id": ["a"]}), features.LOOKUP)
    with pytest.raises(SchemaMismatch, match="columns that duplicate_lookup fills: score"):
        features.history(lake_settings, entities(("a", NOON)).with_columns(score=1.0), features.LOOKUP)
    with pytest.raises(ModelError, match="no feature view text_embedding_unknown"):
        features.publish(lake_settings, embeddings(["a"], NOON, "unknown", seed=1), NO_IMAGE, NO_DECISIONS)
    with pytest.raises(SettingsError, match="SOSIE_FEATURE_REPO"):
        features.store(settings.load(home=lake_settings.home, feature_repo=lake_settings.home / "nowhere"))


# --- corrections, training sets, the documentation -------------------------------------------------------------------


def written(rows: pl.DataFrame, at: datetime) -> pl.DataFrame:
    return rows.with_columns(created_timestamp=pl.lit(at).cast(TIMESTAMP))


def test_an_hour_that_is_decided_again_leaks_nothing_into_what_was_known(lake_settings: settings.Settings) -> None:
    lake = Lake(lake_settings.lake_uri)
    said = written(decisions(["late"], NOON, "c1"), NOON + HOUR)
    corrected = written(decisions(["late"], NOON, "c7"), NOON + 6 * HOUR)
    assert lake.append(DECISIONS, said).inserted == 1
    assert lake.append(DECISIONS, corrected).inserted == 1, "a correction takes no row's place"
    asked = entities(("late", NOON), ("late", NOON + 2 * HOUR), ("late", NOON + 5 * HOUR), ("late", NOON + 7 * HOUR))
    known = features.history(lake_settings, asked, features.LOOKUP)
    assert known["cluster_id"].to_list() == [None, "c1", "c1", "c7"]
    later = features.history(lake_settings, asked, features.LOOKUP, as_known_then=False)
    assert later["cluster_id"].to_list() == ["c7"] * 4


def test_every_version_has_a_service_of_its_own(lake_settings: settings.Settings) -> None:
    asked = entities(("a", NOON + 3 * HOUR))
    old = features.history(lake_settings, asked, service_name("text", "0ld"))
    np.testing.assert_array_equal(old["text_vector"][0].to_list(), vector(embeddings(["a"], NOON, "0ld", seed=3)))
    assert set(old.columns) == {"listing_id", "event_timestamp", "text_vector", "text_hash"}


def test_a_training_set_stays_as_it_was(lake_settings: settings.Settings) -> None:
    lake = Lake(lake_settings.lake_uri)
    lake.append(DECISIONS, written(decisions(["trained"], NOON, "c1"), NOON))
    asked = entities(("trained", NOON + HOUR)).with_columns(label=pl.Series([1]))
    kept = datasets.save(lake_settings, "one", asked, features.LOOKUP)
    assert kept.select("label", "cluster_id").rows() == [(1, "c1")]
    lake.append(DECISIONS, written(decisions(["trained"], NOON + timedelta(minutes=30), "c8"), NOON))
    assert features.history(lake_settings, asked, features.LOOKUP)["cluster_id"].to_list() == ["c8"]
    assert datasets.load(lake_settings, "one").equals(kept)
    assert "one" in datasets.names(lake_settings)
    told = features.store(lake_settings).get_saved_dataset("one")
    assert (told.feature_service_name, told.join_keys) == (features.LOOKUP, ["listing_id"])
    with pytest.raises(SettingsError, match="training set one already"):
        datasets.save(lake_settings, "one", asked, features.LOOKUP)
    with pytest.raises(SettingsError, match="no training set two; valid are: "):
        datasets.load(lake_settings, "two")
    with pytest.raises(SettingsError, match="Letters, digits"):
        datasets.save(lake_settings, "../two", asked, features.LOOKUP)


def test_the_documentation_runs(lake_settings: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (settings.PROJECT / "docs" / "features.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) == 2
    monkeypatch.setenv("SOSIE_HOME", str(lake_settings.home))
    monkeypatch.setenv("SOSIE_MODELS", str(lake_settings.models))
    settings.settings.cache_clear()
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # what a reader would paste
    settings.settings.cache_clear()
    assert names["known"]["listing_id"].to_list() == ["listing-1", "listing-1"]
    assert "first-model" in datasets.names(lake_settings)


@pytest.fixture
def shell(lake_settings: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """`sosie features …` over that home."""
    from typer.testing import CliRunner

    from sosie.cli import app

    monkeypatch.setenv("SOSIE_HOME", str(lake_settings.home))
    monkeypatch.setenv("SOSIE_MODELS", str(lake_settings.models))
    monkeypatch.setenv("COLUMNS", "200")
    settings.settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(app, ["features", *map(str, arguments)])
    settings.settings.cache_clear()


def test_the_shell_looks_up_and_saves(
    lake_settings: settings.Settings, tmp_path: Path, shell: Callable[..., Any]
) -> None:
    Lake(lake_settings.lake_uri).append(DECISIONS, written(decisions(["shelled"], NOON, "c1"), NOON))
    (tmp_path / "asked.csv").write_text("listing_id,event_timestamp,label\nshelled,2026-03-01T13:00:00Z,1\n")

    def sosie(*arguments: str) -> str:
        told = shell(*arguments)
        assert told.exit_code == 0, told.output
        return " ".join(told.output.split())

    assert features.LOOKUP in sosie("list")
    assert "never heard of: nothing is known of it" in sosie("lookup", "never heard of")
    assert "1 rows" in sosie("history", str(tmp_path / "asked.csv"), str(tmp_path / "found.parquet"))
    assert pl.read_parquet(tmp_path / "found.parquet")["cluster_id"].to_list() == ["c1"]
    sosie("save", "from-shell", str(tmp_path / "asked.csv"))
    assert datasets.load(lake_settings, "from-shell")["label"].to_list() == [1]


def test_the_shell_takes_entities_in_any_type_and_names_what_it_can_not_take(
    lake_settings: settings.Settings, tmp_path: Path, shell: Callable[..., Any]
) -> None:
    from sosie.cli import EXIT_TERMINAL

    Lake(lake_settings.lake_uri).append(DECISIONS, written(decisions(["17"], NOON, "c1"), NOON))
    asked, found = tmp_path / "asked.parquet", tmp_path / "found.parquet"

    def sosie(entities: Path, to: Path = found) -> tuple[int, str]:
        told = shell("history", entities, to)
        return told.exit_code, told.output

    pl.DataFrame({"listing_id": [17], "event_timestamp": ["2026-03-01T13:00:00Z"]}).write_parquet(asked)
    assert sosie(asked) == (0, f"1 rows in {found}, 1 of them with something known at their time.\n")
    assert pl.read_parquet(found)["cluster_id"].to_list() == ["c1"]

    code, said = sosie(asked, tmp_path / "nowhere" / "found.parquet")
    assert (code, "nowhere is no folder" in said) == (EXIT_TERMINAL, True)

    pl.DataFrame({"listing_id": ["17"], "event_timestamp": [1_772_370_000]}).write_parquet(asked)
    assert sosie(asked) == (EXIT_TERMINAL, "SchemaMismatch: Entities have Int64 as event_timestamp; make it a time.\n")

    (tmp_path / "asked.csv").write_text("listing_id,event_timestamp\n17,2026-03-01T13:00:00Z\n17,yesterday\n")
    code, said = sosie(tmp_path / "asked.csv")
    assert (code, said.count("\n"), '"yesterday"' in said) == (EXIT_TERMINAL, 1, True)
    assert said.endswith("the latter as 2026-01-05T09:00:00Z in every row.\n")


def test_type_checks_are_left_out_while_feast_is_imported_and_not_after() -> None:
    import typeguard

    def half(number: int) -> float:
        return number / 2

    guarded = typeguard.typechecked
    with lean():
        assert typeguard.typechecked(half) is half
    assert typeguard.typechecked is guarded
    with pytest.raises(typeguard.TypeCheckError):
        guarded(half)("one")
    with pytest.raises(ImportError), lean():
        import there_is_no_such_module  # noqa: F401
    assert typeguard.typechecked is guarded
