"""What `docker/` says is true of the program: its settings, paths, pools, ports, and the essentials of each file.

No engine runs here: an image is not built, a container not started.
"""

import json
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from sosie.airflow import INDEX_POOL
from sosie.settings import PROJECT, Settings

DOCKER = PROJECT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*?)(?<!\\)$", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text()
OURS = [name for name, service in SERVICES.items() if "build" in service]


def filled(text: str) -> str:
    """Variables by their defaults, and those without one by a word, as `docker compose` does."""
    text = re.sub(r"(?<!\$)\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)
    return re.sub(r"(?<!\$)\$\{[A-Z_]+(?::\?[^}]*)?\}", "given", text).replace("$$", "$")


def filled_in(part: Any) -> Any:
    """All text of a document; variables take their values after it was read, so that they may hold anything."""
    if isinstance(part, dict):
        return {key: filled_in(value) for key, value in part.items()}
    if isinstance(part, list):
        return [filled_in(value) for value in part]
    return filled(part) if isinstance(part, str) else part


def test_every_component_is_there() -> None:
    assert set(SERVICES) == {
        "airflow-init", "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer",
        "airflow-worker", "postgres", "redis", "etcd", "minio", "milvus", "prometheus", "alertmanager", "grafana",
    }  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_whole(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":[\w.${}:-]+$", service["image"]), "an image has a tag"
    assert not service["image"].endswith(":latest")
    if name != "airflow-init":
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["restart"] == "unless-stopped"
    assert not service.get("privileged")
    for other, condition in service.get("depends_on", {}).items():
        once = condition["condition"] == "service_completed_successfully"
        assert once or "disable" not in SERVICES[other]["healthcheck"], other
    for mount in service.get("volumes", ()):
        source = re.sub(r"^\$\{LANDING:-(.*?)\}", r"\1", mount).split(":")[0]
        if source.startswith("."):
            assert source == "../landing" or (DOCKER / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]
    for network in service["networks"]:
        assert network in COMPOSE["networks"]
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "published on loopback alone"
    for secret in service.get("secrets", ()):
        assert secret in COMPOSE["secrets"]


def test_feeds_write_where_the_documented_folder_is_mounted() -> None:
    made = re.findall(r"mkdir -p docker/secrets (\w+)", OPERATIONS)
    mounts = {mount for name in OURS for mount in SERVICES[name]["volumes"] if ":/landing" in mount}
    assert mounts == {f"${{LANDING:-../{made[0]}}}:/landing"}, "and replays are written there"


def test_what_an_image_mounts_a_volume_on_is_its_users() -> None:
    (owned,) = re.findall(r"install -d -o sosie -g sosie (.+)", DOCKERFILE)
    mounted = {mount.rpartition(":")[2] for name in OURS for mount in SERVICES[name]["volumes"]} - {"/landing"}
    assert mounted <= set(owned.split())


def test_prometheus_alerts_reach_a_service_and_by_it_a_person() -> None:
    told = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["alerting"]["alertmanagers"]
    (target,) = told[0]["static_configs"][0]["targets"]
    assert target.split(":")[0] in SERVICES
    receivers = yaml.safe_load((DOCKER / "prometheus" / "alertmanager.yml").read_text())["receivers"]
    hook = receivers[0]["webhook_configs"][0]["url_file"]
    assert hook.removeprefix("/run/secrets/") in SERVICES["alertmanager"]["secrets"]


def test_compose_needs_no_variable_that_the_example_does_not_explain() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))
    explained = set(re.findall(r"^([A-Z_]+)=", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    assert used - explained <= {"SOSIE_TAG", "ACCELERATOR", "WORKER_CONCURRENCY"}, "these have defaults"
    assert explained <= used
    secret = [name for name in explained if re.search("PASSWORD|SECRET|TOKEN|KEY", name)]
    for name in secret:
        assert f"${{{name}:?" in (DOCKER / "compose.yaml").read_text(), f"{name} must be set"


def settings_in(environment: dict[str, str]) -> list[str]:
    return [name for name in environment if name.startswith("SOSIE_")]


FREE = {
    "SOSIE_SCHEDULE",
    "SOSIE_DEADLINE_MINUTES",
    "SOSIE_RETRY_SECONDS",
    "SOSIE_TRAIN_SCHEDULE",
    "SOSIE_UPKEEP_SCHEDULE",
}
"""Read by the DAGs, not by `Settings`."""


def is_setting(name: str) -> bool:
    section, _, field = name.removeprefix("SOSIE_").lower().partition("__")
    known = Settings.model_fields.get(section)
    return known is not None and (not field or field in known.annotation.model_fields)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_one_that_the_program_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES[name]["environment"]
    assert [one for one in settings_in(environment) if not is_setting(one) and one not in FREE] == []
    for key in settings_in(environment):
        monkeypatch.setenv(key, filled(str(environment[key])))
    found = Settings()
    assert found.milvus_uri == "http://milvus:19530"
    assert found.alerts.base_url == "http://localhost:8080"
    assert found.alerts.urls == ()


def test_airflow_options_are_ones_that_airflow_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from airflow.configuration import conf

    named = {key for name in OURS for key in SERVICES[name]["environment"] if key.startswith("AIRFLOW__")}
    named |= set(re.findall(r"AIRFLOW__\w+", DOCKERFILE))
    assert len(named) > 12
    for key in named:
        _, section, option = key.split("__", 2)
        described = conf.configuration_description.get(section.lower(), {}).get("options", {})
        assert option.lower() in described or conf.has_option(section.lower(), option.lower()), key


def test_the_index_has_its_one_writer() -> None:
    assert f"airflow pools set {INDEX_POOL} 1" in SERVICES["airflow-init"]["command"][0]


def test_compose_is_what_the_specification_allows() -> None:
    found = PyCompose.from_yaml(yaml.safe_dump(filled_in(COMPOSE)))
    found.validate()
    assert set(found.service_names()) == set(SERVICES)
    with pytest.raises(ValueError, match="nosuch"):
        PyCompose.from_yaml("services: {a: {image: b, nosuch: 1}}").validate()


def of(instruction: str) -> list[str]:
    return [argument for name, argument in INSTRUCTIONS if name == instruction]


def test_the_image_runs_as_nobody_in_particular_from_pinned_parts() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER")[-1]), "a number, and not root's"
    assert DOCKERFILE.rindex("\nUSER ") > DOCKERFILE.rindex("\nRUN "), "nothing is installed as that user"
    assert re.search(r"python:3\.11\.\d+-slim", of("ARG")[0])
    assert "requirements.lock" in " ".join(of("COPY"))
    assert "--no-deps" in " ".join(of("RUN")), "what the lock pins and nothing else"
    assert "rm -rf /var/lib/apt/lists" in " ".join(of("RUN"))
    assert not of("ADD")
    assert of("HEALTHCHECK")
    assert of("ENTRYPOINT")[0].startswith("[")
    assert {"cpu)", "cuda)"} <= set(" ".join(of("RUN")).split())
    assert not re.search(r"(?i)(password|secret|token)\s*=", DOCKERFILE)
    for copied in of("COPY"):
        *sources, _ = [part for part in copied.split() if not part.startswith("--")]
        for source in sources:
            assert source.startswith("/opt/venv") or (PROJECT / source).exists(), source


def test_the_image_holds_compiled_modules() -> None:
    """Its user can write none, and each task would compile thousands again."""
    ran = " ".join(of("RUN"))
    assert "--compile-bytecode" in ran
    compiled = re.search(r"-m compileall -q ([\w /]+)", ran)
    assert compiled
    assert {"src", "dags", "plugins"} <= set(compiled[1].split())


PRIVATE = ("docker/.env", "docker/sosie.env", "docker/secrets", "landing")
"""What an installation keeps in the checkout."""


def test_the_image_leaves_out_what_is_secret_or_large() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "var", "data", *PRIVATE} <= set(ignored)


def test_git_takes_no_password_and_no_feed() -> None:
    files = [f"{private}/file" if "." not in Path(private).name else private for private in PRIVATE]
    asked = subprocess.run(["git", "check-ignore", *files], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert asked.stdout.split() == files


def test_passwords_are_those_of_the_installation_and_not_made_up_and_printed() -> None:
    """Airflow makes and prints one for each user whom its file doesn't tell, and wants to write that file."""
    server = SERVICES["airflow-apiserver"]
    users = [
        user.split(":")[0] for user in server["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
    ]
    (told,) = re.findall(r"printf '(\{.*\})' > docker/secrets/airflow_passwords", OPERATIONS)
    assert list(json.loads(told)) == users
    assert server["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] in server["command"][-1]
    helm = yaml.safe_load((DOCKER / "helm" / "airflow-values.yaml").read_text())
    assert helm["config"]["core"]["simple_auth_manager_passwords_file"] in helm["apiServer"]["args"][-1]


def test_helm_values_name_an_auth_manager_that_the_image_holds() -> None:
    helm = yaml.safe_load((DOCKER / "helm" / "airflow-values.yaml").read_text())
    assert pkgutil.resolve_name(helm["config"]["core"]["auth_manager"])


def test_feeds_name_no_file_of_the_workers() -> None:
    for name in OURS:
        assert filled(SERVICES[name]["environment"]["SOSIE_VALIDATION__PICTURE_ROOTS"]) == "[]"
    for file in (DOCKER / "helm").glob("airflow*.yaml"):
        told = {entry["name"]: entry["value"] for entry in yaml.safe_load(file.read_text())["env"]}
        assert told["SOSIE_VALIDATION__PICTURE_ROOTS"] == "[]"


def test_any_setting_reaches_every_component() -> None:
    for name in OURS:
        assert SERVICES[name]["env_file"] == [{"path": "sosie.env", "required": False}]


def test_the_python_that_is_pinned_is_the_one_that_the_project_wants() -> None:
    wanted = re.search(r'requires-python = ">=3\.(\d+)', (PROJECT / "pyproject.toml").read_text())
    assert wanted
    assert f"python:3.{wanted[1]}." in of("ARG")[0]


@pytest.mark.parametrize("file", sorted((DOCKER / "helm").glob("*.yaml")), ids=lambda file: file.stem)
def test_helm_values_name_settings_that_exist(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    for entry in values.get("env", ()):
        assert is_setting(entry["name"]), entry["name"]
    for name in re.findall(r"SOSIE_\w+", file.read_text()):
        assert is_setting(name) or name in FREE, name


def test_helm_values_name_options_of_airflow_and_its_executors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from airflow.configuration import conf
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info

    known = {**conf.configuration_description, **get_provider_info()["config"]}
    executors = set()
    for file in sorted((DOCKER / "helm").glob("airflow*.yaml")):
        values = yaml.safe_load(file.read_text())
        executors.add(values["executor"])
        assert values["executor"] in ExecutorLoader.executors
        for section, options in values["config"].items():
            assert set(options) <= set(known[section]["options"]), section
    assert executors == {"CeleryExecutor", "KubernetesExecutor"}


def test_feast_for_many_workers_differs_in_its_stores_alone() -> None:
    one, many = (
        yaml.safe_load((PROJECT / folder / "feature_store.yaml").read_text())
        for folder in ("feature_repo", "docker/feature_repo")
    )
    differing = {key for key in one.keys() | many.keys() if one.get(key) != many.get(key)}
    assert differing == {"registry", "online_store"}
    wanted = set(re.findall(r"\$\{(\w+)\}", (DOCKER / "feature_repo" / "feature_store.yaml").read_text()))
    assert wanted <= SERVICES["airflow-worker"]["environment"].keys()


def test_prometheus_scrapes_services_that_are_there() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    for job in scraped:
        for target in job["static_configs"][0]["targets"]:
            assert target.split(":")[0] in SERVICES
    assert scraped[0]["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
