"""What every test leaves as it found it, and what makes all of them together quick."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Tests start a hundred processes. Where Python is told to keep no compiled modules each of them would compile thousands
# anew, so they are kept, but beside no source.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "compiled"))

# No test fails because a machine is slow: the first draw of all reads every module for constants to try.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

LONGEST = (
    "test_airflow_stack",
    "test_rebuild",
    "test_pipeline",
    "test_celery",
    "test_crash_safety",
    "test_page_browser",
    "test_index",
    "test_milvus",
    "test_object_store",
    "test_ray",
    "test_judged",
    "test_registry",
    "test_incremental_law",
    "test_page",
    "test_upkeep",
    "test_dags",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first: the last one to be handed to a worker is short, and no worker waits for it."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def no_logs_to_a_closed_stream() -> Iterator[None]:
    """A command that a test ran logs to the runner's stderr, which is closed when the next test logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """A landing folder with one good hour of a few listings; the index's server stays up between the steps."""
    from homes import land, run_of
    from PIL import Image

    from sosie.index import server

    landing = tmp_path / "landing"
    for number, colour in enumerate(("red", "blue", "green")):
        picture = Image.new("RGB", (80, 80), colour)
        (landing / "pictures").mkdir(parents=True, exist_ok=True)
        picture.save(landing / "pictures" / f"{number}.jpg")
    rows = (
        {"listing_id": f"a{n}", "title": f"Acme kettle {n} litre steel", "image_uri": f"pictures/{n}.jpg"}
        for n in "012"
    )
    land(landing, "2026-01-05T00", *rows)
    with server.serve(run_of(landing, "2026-01-05T00").settings):
        yield landing


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow writes its configuration where AIRFLOW_HOME says, on its first import."""
    home = tmp_path_factory.mktemp("airflow")
    if "airflow" not in sys.modules:
        os.environ["AIRFLOW_HOME"] = str(home)
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "300"
    return home
