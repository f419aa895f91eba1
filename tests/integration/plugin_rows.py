"""A Dag run in Airflow's database, and the XComs of its tasks: what the tab's pages are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, text

from airflow_provider_bitdance.preview.content import PREVIEW_KEY

DAG_ID, TASK_ID = "shows_images", "group.cover"
RUN_ID = "manual__2026-11-29T10:00:00+00:00"


@contextmanager
def a_run() -> Iterator[None]:
    """Have a run of the Dag."""
    when = datetime(2026, 11, 29, 10, tzinfo=UTC)
    run = {"run_type": "manual", "logical_date": when, "run_after": when, "state": "success"}
    with create_session() as session:
        session.merge(DagBundleModel(name="tests"))
        session.flush()
        session.merge(DagModel(dag_id=DAG_ID, bundle_name="tests", fileloc="f.py"))
        session.flush()
        session.add(DagRun(dag_id=DAG_ID, run_id=RUN_ID, **run))
    yield
    with create_session() as session:
        for model in (XComModel, DagRun, DagModel):
            session.execute(delete(model).where(model.dag_id == DAG_ID))


def write_xcom(value: Any, *, task_id: str = TASK_ID, map_index: int = -1, key: str = PREVIEW_KEY) -> None:
    """Write an XCom as a task instance does; the instance itself is of no interest here."""
    with create_session() as session:
        # Not back to the pool: whoever got it next would delete runs and leave their rows behind.
        session.connection().detach()
        session.execute(text("PRAGMA foreign_keys = OFF"))
        run = session.query(DagRun).filter_by(dag_id=DAG_ID, run_id=RUN_ID).one()
        session.add(
            XComModel(
                dag_run_id=run.id, dag_id=DAG_ID, run_id=RUN_ID, task_id=task_id, map_index=map_index,
                key=key, value=value,
            )
        )  # fmt: skip
