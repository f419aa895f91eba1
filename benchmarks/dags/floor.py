"""Airflow's floor: a Dag run of one task that does nothing, and a run whose task waits for no trigger."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("floor", schedule=None):

    @task
    def nothing() -> None: ...

    nothing()
