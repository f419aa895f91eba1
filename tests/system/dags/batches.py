"""One batch a run: the items lie in a file that the test has written, one row an image."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

for dag_id, options in {
    "batch": {},
    "batch_deferred": {"deferrable": True, "defer_after": 0},
}.items():
    with DAG(
        dag_id,
        schedule=None,
        params={"file": Param("/nowhere.jsonl"), "output_path": Param("/nowhere/")},
        default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
    ):
        BitDanceBatchOperator(
            task_id="batch",
            bitdance_conn_id="batches",
            items="{{ params.file }}",
            prompt="A poster of {subject}",
            size="256*256",
            output_path="{{ params.output_path }}",
            **options,
        )
