"""Plan mode for a task of a Dag file: what is there for a run. Airflow need not run; nothing is spent."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pendulum
from jinja2 import TemplateError

from airflow_provider_bitdance.engine import Estimate
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.version_compat import load_dags

MANUAL_RUN = "manual__%Y-%m-%dT%H:%M:%S+00:00"


def forecast_task(
    dag_id: str,
    task_id: str,
    *,
    logical_date: datetime,
    run_id: str = "",
    params: dict[str, Any] | None = None,
    dags_folder: str | None = None,
) -> Estimate:
    """Count what is there for a task in a run, and what is missing.

    Templates know the run's dates, its params, and Airflow's variables and connections; not what other tasks
    would return.

    :param logical_date: Of the run, with its time zone.
    :param run_id: Default: that of a manual run at the logical date.
    :param params: Beside the Dag's own.
    :param dags_folder: A Dag file, or a folder of them. Default: Airflow's.
    :raises InputError: There is no such task, it is not one of ours, or its fields cannot be used.
    """
    task = _task(dag_id, task_id, dags_folder)
    at = pendulum.instance(logical_date).in_timezone("UTC")  # as Airflow has it
    context = _context(task, at, run_id or at.strftime(MANUAL_RUN), params or {})
    try:
        return task.plan(context)
    except TemplateError as error:
        raise InputError(
            f"The fields of task {task_id!r} cannot be rendered: {error}",
            allowed="the run's dates, its params, and Airflow's variables and connections",
            fix="Use operator.plan(context) in a task of the run for all else",
        ) from None


def _task(dag_id: str, task_id: str, dags_folder: str | None) -> BitDanceBaseOperator:
    bag = load_dags(dags_folder)
    dag = bag.dags.get(dag_id)
    if dag is None:
        errors = [f"{file}: {error.strip().splitlines()[-1]}" for file, error in bag.import_errors.items()]
        broken = "; ".join(errors)
        raise InputError(
            f"There is no Dag {dag_id!r}" + (f". Not imported: {broken}" if broken else ""),
            allowed=", ".join(sorted(bag.dags)) or "a Dag of the Dags folder",
        )
    task = dag.task_dict.get(task_id)
    ours = sorted(name for name, found in dag.task_dict.items() if isinstance(found, BitDanceBaseOperator))
    if not isinstance(task, BitDanceBaseOperator):
        raise InputError(
            f"Task {task_id!r} of Dag {dag_id!r} is none that buys images, or it is mapped",
            allowed=", ".join(ours) or "a task of this provider that is not mapped",
        )
    return task


def _context(
    task: BitDanceBaseOperator, logical_date: pendulum.DateTime, run_id: str, params: dict[str, Any]
) -> Any:
    """Return the part of a task's context that templates of scheduled Dags use."""
    from airflow.sdk.execution_time.context import ConnectionAccessor, MacrosAccessor, VariableAccessor

    ds, ts = f"{logical_date:%Y-%m-%d}", logical_date.isoformat()
    ti = SimpleNamespace(
        dag_id=task.dag_id,
        run_id=run_id,
        task_id=task.task_id,
        map_index=-1,
        try_number=1,
        max_tries=task.retries or 0,
        xcom_pull=_no_xcom,
    )
    dag_run = SimpleNamespace(
        run_id=run_id, logical_date=logical_date, run_after=logical_date, conf=params, run_type="manual"
    )
    return {
        "dag": task.dag,
        "task": task,
        "ti": ti,
        "task_instance": ti,
        "dag_run": dag_run,
        "run_id": run_id,
        "logical_date": logical_date,
        "data_interval_start": logical_date,
        "data_interval_end": logical_date,
        "ds": ds,
        "ds_nodash": ds.replace("-", ""),
        "ts": ts,
        "ts_nodash": f"{logical_date:%Y%m%dT%H%M%S}",
        "params": {**_dumped(task.dag.params if task.dag else {}), **_dumped(task.params), **params},
        "macros": MacrosAccessor(),
        "var": {
            "value": VariableAccessor(deserialize_json=False),
            "json": VariableAccessor(deserialize_json=True),
        },
        "conn": ConnectionAccessor(),
    }


def _dumped(params: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = params.dump() if hasattr(params, "dump") else dict(params)
    return dumped


def _no_xcom(*_: object, **__: object) -> Any:
    raise InputError(
        "A template asks for the result of another task, which there is none of before the run",
        fix="Use operator.plan(context) in a task of the run",
    )
