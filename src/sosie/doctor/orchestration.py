"""Airflow, asked in a process of its own: it configures itself on import, and writes where AIRFLOW_HOME says."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from sosie.airflow import DAG_IDS
from sosie.doctor.finding import Finding, fault, fine
from sosie.settings import PROJECT, Settings

SECONDS = 180

_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
print("\\n" + json.dumps({"dags": sorted(bag.dags), "errors": {k: v.strip().splitlines()[-1] for k, v in bag.import_errors.items()}}))
"""  # noqa: E501 another process's program


def dags_folder() -> Path:
    return Path(os.environ.get("AIRFLOW__CORE__DAGS_FOLDER", PROJECT / "dags"))


def airflow(settings: Settings) -> Iterator[Finding]:
    """Airflow can be imported, and every DAG file parses there."""
    if importlib.util.find_spec("airflow") is None:
        yield fault("airflow", "Airflow is not installed.", "Install what requirements.lock pins: `make setup`.")
        return
    folder = dags_folder()
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": os.environ.get("AIRFLOW_HOME", scratch),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(SECONDS),
        }
        try:
            told = subprocess.run(
                [sys.executable, "-c", _PARSE, str(folder)],
                env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            yield fault("airflow", f"{folder} was not parsed in {SECONDS} s.", "Look what else takes this machine.")
            return
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["no word"])[-1]
        yield fault(
            "airflow", f"Airflow can't parse DAGs: {last}", "Mend AIRFLOW_HOME/airflow.cfg or the installation."
        )
        return
    found = json.loads(told.stdout.strip().splitlines()[-1])
    for file, error in found["errors"].items():
        what = "what the error names" if "SettingsError" in error else "that file"
        yield fault("airflow", f"{file}: {error}", f"Mend {what}; Airflow shows none of its DAGs until then.")
    missing = [dag for dag in DAG_IDS if dag not in found["dags"]]
    if missing and not found["errors"]:
        yield fault(
            "airflow", f"{folder} has no DAG {', '.join(missing)}.", "Point AIRFLOW__CORE__DAGS_FOLDER at dags/."
        )
    if not found["errors"] and not missing:
        yield fine("airflow", f"Airflow {version('apache-airflow-core')} parses {', '.join(found['dags'])}")
