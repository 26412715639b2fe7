"""The same history by Spark as by DuckDB, over the same tables, in a Spark of this machine."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from test_features import HOUR, IDS, NOON, decisions, embeddings, entities

from sosie import features
from sosie.artifacts import save
from sosie.features.versions import service_name
from sosie.lake import Lake
from sosie.settings import PROJECT, Settings, load
from sosie.tables import DECISIONS, TEXT_EMBEDDINGS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="no Spark (pip install pyspark==4.1.0)"),
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java (apt-get install openjdk-17-jre-headless)"),
]
EXAMPLE = PROJECT / "docker" / "feature_repo_spark"
OLD, NEW = "0ld", "new"
NEEDS_MAVEN = ("spark.jars.packages", "spark.sql.extensions", "spark.sql.catalog.spark_catalog")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Settings]]:
    """The same lake under DuckDB's definitions and under the example's, less what Spark would have to download."""
    home = tmp_path_factory.mktemp("spark")
    for modality in ("text", "image"):
        (home / "models" / modality).mkdir(parents=True)
        (home / "models" / modality / "weights").write_text(modality)
        save(home / "models" / modality, f"{modality}-encoder", ["weights"], usage={}, about={})
    repo = Path(shutil.copytree(EXAMPLE, home / "repo"))
    config = yaml.safe_load((repo / "feature_store.yaml").read_text())
    conf = config["offline_store"]["spark_conf"]
    assert set(NEEDS_MAVEN) <= set(conf)
    kept = {name: value for name, value in conf.items() if name not in NEEDS_MAVEN}
    config["offline_store"]["spark_conf"] = kept | {
        "spark.master": "local[1]", "spark.driver.memory": "1g", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2",
    }  # fmt: skip
    config["registry"]["path"], config["online_store"]["path"] = f"{home}/spark.db", f"{home}/online.db"
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
    duck = load(home=home, models=home / "models")
    spark = load(home=home / "other", lake_uri=duck.lake_uri, models=home / "models", feature_repo=repo)
    lake = Lake(duck.lake_uri)
    lake.append(TEXT_EMBEDDINGS, embeddings(IDS, NOON, NEW, seed=1))
    lake.append(TEXT_EMBEDDINGS, embeddings(["a"], NOON + HOUR, OLD, seed=3))
    lake.append(TEXT_EMBEDDINGS, embeddings(["a"], NOON + 2 * HOUR, NEW, seed=2, written=NOON + 5 * HOUR))
    lake.append(DECISIONS, decisions(IDS, NOON, "c1"))
    lake.append(DECISIONS, decisions(["b"], NOON + HOUR, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOSIE_SPARK_FORMAT", "parquet")
        assert features.apply(duck)
        assert features.apply(spark)
        yield duck, spark
    from pyspark.sql import SparkSession

    if (session := SparkSession.getActiveSession()) is not None:
        session.stop()


@pytest.mark.parametrize("as_known_then", [True, False])
@pytest.mark.parametrize("service", [features.LOOKUP, service_name("text", NEW), service_name("text", OLD)])
def test_spark_tells_the_history_that_duckdb_tells(
    both: tuple[Settings, Settings], service: str, as_known_then: bool
) -> None:
    asked = entities(
        ("b", NOON + 3 * HOUR), ("a", NOON + 3 * HOUR), ("a", NOON + 6 * HOUR), ("a", NOON - HOUR), ("nobody", NOON),
        ("it's c", NOON), ("b", NOON),
    )  # fmt: skip
    duck, spark = (features.history(one, asked, service, as_known_then=as_known_then) for one in both)
    assert spark.columns == duck.columns
    assert spark.to_dicts() == duck.to_dicts()
    told = duck.select(column for column in duck.columns if column not in asked.columns)
    assert any(value is not None for row in told.rows() for value in row), "there is something to tell"
