"""A Dag run in Airflow's database, and the XComs of its tasks: what the tab's pages are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow.models import xcom
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.utils.session import create_session
from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from airflow_provider_bitdance.preview.content import PREVIEW_KEY

DAG_ID, TASK_ID = "shows_images", "group.cover"
RUN_ID = "manual__2026-11-29T10:00:00+00:00"
# Airflow 3.4 keeps the XComs of each try; its XComModel is a view of this table and of the one before.
XCOM_TABLE = "xcom_v2" if hasattr(xcom, "XComModelV2") else "xcom"


@contextmanager
def a_run() -> Iterator[None]:
    """Have a run of the Dag; with it go its task instances and their XComs."""
    when = datetime(2026, 11, 29, 10, tzinfo=UTC)
    run = {"run_type": "manual", "logical_date": when, "run_after": when, "state": "success"}
    with create_session() as session:
        session.merge(DagBundleModel(name="tests"))
        session.flush()
        session.merge(DagModel(dag_id=DAG_ID, bundle_name="tests", fileloc="f.py"))
        session.flush()
        DagVersion.write_dag(dag_id=DAG_ID, bundle_name="tests", session=session)
        session.add(DagRun(dag_id=DAG_ID, run_id=RUN_ID, **run))
    yield
    with create_session() as session:
        for model in (DagRun, DagModel):
            session.execute(delete(model).where(model.dag_id == DAG_ID))


def write_xcom(value: Any, *, task_id: str = TASK_ID, map_index: int = -1, key: str = PREVIEW_KEY) -> None:
    """Write an XCom as the latest try of a task instance does."""
    write_xcom_text(json.dumps(value), task_id=task_id, map_index=map_index, key=key)


def write_xcom_text(
    value: str, *, task_id: str = TASK_ID, map_index: int = -1, key: str = PREVIEW_KEY
) -> None:
    """Write an XCom whose JSON is this text; it need not be JSON."""
    where = {"dag_id": DAG_ID, "run_id": RUN_ID, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        if session.query(TaskInstance).filter_by(**where).one_or_none() is None:
            _add_task_instance(session, where)
        # Airflow 3.1's set() encodes the value twice, which is not what it does for a task.
        xcom.XComModel.set(key, "to be replaced", session=session, **where)
        update = text(f"UPDATE {XCOM_TABLE} SET value = :value WHERE value LIKE '%to be replaced%'")
        session.execute(update, {"value": value})


def begin_next_try(task_id: str = TASK_ID) -> None:
    """Do what the scheduler does when a task instance is retried or was cleared."""
    with create_session() as session:
        instance = session.query(TaskInstance).filter_by(dag_id=DAG_ID, run_id=RUN_ID, task_id=task_id).one()
        instance.prepare_db_for_next_try(session)


def _add_task_instance(session: Session, where: dict[str, Any]) -> None:
    version = session.query(DagVersion).filter_by(dag_id=DAG_ID).one()
    instance = TaskInstance(EmptyOperator(task_id="any"), dag_version_id=version.id)
    for name, value in where.items():
        setattr(instance, name, value)
    session.add(instance)
    session.flush()
