"""Settings: where values come from, and what a bad one says."""

from pathlib import Path

import pytest

from sosie.errors import SettingsError
from sosie.settings import load


def test_one_variable_moves_everything(tmp_path: Path) -> None:
    found = load(home=tmp_path)
    assert found.lake_uri == str(tmp_path / "lake")
    assert found.landing == tmp_path / "landing"
    assert found.pictures_root == str(tmp_path / "landing")
    assert found.reports == tmp_path / "reports"


def test_models_may_be_named_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOSIE_MODELS", "models/light")
    found = load(home=tmp_path)
    monkeypatch.chdir("/")
    assert found.models == tmp_path / "models" / "light"


def test_the_environment_overlays_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_BLOCKING__TEXT_NEIGHBOURS", "7")
    monkeypatch.setenv("SOSIE_ALERTS__URLS", '["json://localhost/x"]')
    found = load()
    assert found.blocking.text_neighbours == 7
    assert found.alerts.urls == ("json://localhost/x",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"validation": {"max_bad_share": 2}}, "SOSIE_VALIDATION__MAX_BAD_SHARE"),
        ({"validation": {"max_bat_share": 0.1}}, "SOSIE_VALIDATION__MAX_BAT_SHARE"),
        ({"validation": {"picture_roots": [""]}}, "SOSIE_VALIDATION__PICTURE_ROOTS"),
        ({"home": "/tmp/a [b]"}, r"has '\[' in it, which Delta tables can't lie below"),
        ({"lake_uri": "/tmp/a%20b"}, "has '%20' in it"),
        ({"lake_uri": "s4://bucket/lake"}, "s4://bucket/lake is in no store that is known"),
        ({"reports": "s4://bucket/reports"}, "'s4' .environment: SOSIE_REPORTS"),
        ({"blocking": {"text_neighbours": -1}}, "SOSIE_BLOCKING__TEXT_NEIGHBOURS"),
        ({"blocking": {"min_text_similarity": 7}}, "SOSIE_BLOCKING__MIN_TEXT_SIMILARITY"),
        ({"embedding": {"batch_size": 0}}, "SOSIE_EMBEDDING__BATCH_SIZE"),
        ({"embedding": {"shard_size": 0}}, "SOSIE_EMBEDDING__SHARD_SIZE"),
        ({"embedding": {"threads": -1}}, "SOSIE_EMBEDDING__THREADS"),
        ({"clusters": {"max_size": 0}}, "SOSIE_CLUSTERS__MAX_SIZE"),
        ({"decider": {"match_at": 0.2, "review_at": 0.5}}, "lower the first or raise the second"),
    ],
)
def test_a_bad_setting_is_named_with_its_variable(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(**values)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOSIE_ALERTS__URLS", "json://localhost/x"),
        ("SOSIE_ALERTS__THRESHOLDS", "quarantine"),
        ("SOSIE_BLOCKING", "{bad"),
    ],
)
def test_what_is_no_json_is_named_with_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"\(environment: {variable}\).*JSON"):
        load()


@pytest.mark.parametrize("variable", ["SOSIE_BLOKING__TEXT_NEIGHBOURS", "SOSIE_HOME__LAKE"])
def test_a_section_that_there_is_not_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOSIE_SCHEDULE", "@hourly")  # not a setting, and not ours to refuse
    load()
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=rf"\(environment: {variable}\)"):
        load()


@pytest.mark.parametrize(("variable", "meant"), [("SOSIE_LAKE_URL", "SOSIE_LAKE_URI"), ("SOSIE_MODEL", "SOSIE_MODELS")])
def test_a_name_like_a_settings_is_refused_with_the_one_that_is_meant(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "elsewhere")
    with pytest.raises(SettingsError, match=rf"\(environment: {variable}; perhaps {meant} is meant\)"):
        load()


CLIENTS = {"abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "gs": "gcsfs", "s3": "s3fs", "S3": "s3fs", "s3a": "s3fs"}


@pytest.mark.parametrize("scheme", CLIENTS)
def test_each_store_is_known_and_its_client_named_where_it_is_missing(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{scheme}://bucket/lake"
    monkeypatch.setattr("sosie.settings.find_spec", lambda _: object())
    assert load(lake_uri=uri).lake_uri == uri
    monkeypatch.setattr("sosie.settings.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=f"needs the package {CLIENTS[scheme]} beside Sosie"):
        load(lake_uri=uri)
