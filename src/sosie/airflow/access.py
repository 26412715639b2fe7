"""Who asks for Sosie's page, by Airflow's login and its auth manager's word on our two DAGs.

Whoever may read runs of the hourly DAG reads; whoever may trigger them judges; who may trigger training moves models.
"""

from urllib.parse import quote, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi import HTTPException, Request
from sqlalchemy import select

from sosie.airflow import DAG_ID, bridge
from sosie.page import Person

TRAINING_DAG_ID = "dedup_train"
LOOKED_THROUGH = 500
"""Airflow's newest runs, among which an hour's own is looked for."""

_read = requires_access_dag("GET", DagAccessEntity.RUN, DAG_ID)
_judge = requires_access_dag("POST", DagAccessEntity.RUN, DAG_ID)
_manage = requires_access_dag("POST", DagAccessEntity.RUN, TRAINING_DAG_ID)


def person(request: Request, user: GetUserDep) -> Person:
    """The logged-in user. Raises 401 for nobody, 403 for somebody who may not read."""
    _read(request, user)

    def may(access: object) -> bool:
        try:
            access(request, user)  # type: ignore[operator]
        except HTTPException:
            return False
        return True

    return Person(user.get_name(), may_judge=may(_judge), may_manage=may(_manage))


def links(hour: str) -> list[tuple[str, str]]:
    """Airflow's own page of the hour's run, which has the tasks' logs; of all runs where it has none of this hour."""
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    dag = f"{base}/dags/{DAG_ID}"
    newest = select(DagRun).where(DagRun.dag_id == DAG_ID).order_by(DagRun.run_after.desc()).limit(LOOKED_THROUGH)
    with create_session() as session:
        ids = [run.run_id for run in session.scalars(newest) if bridge.run_id({"dag_run": run}) == hour]
    if ids:
        return [("Tasks and logs in Airflow", f"{dag}/runs/{quote(ids[0], safe='')}")]
    return [("Runs in Airflow", f"{dag}/runs")]
