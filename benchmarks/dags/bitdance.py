"""This provider: one image in a task, or many. Each Dag has a connection of its own, named as the Dag."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator

PARAMS = {"file": Param("/nowhere.jsonl"), "folder": Param("/nowhere")}

with DAG("bitdance_1", schedule=None, params=PARAMS):
    BitDanceTextToImageOperator(
        task_id="image",
        bitdance_conn_id="bitdance_1",
        prompt="image-0000",
        output_path="{{ params.folder }}/image-0000",
        deferrable=True,
    )

for dag_id, max_in_flight in (
    ("bitdance_100_in_flight", 100),
    ("bitdance_50_in_flight", 50),
    ("bitdance_unconfigured", None),
):
    with DAG(dag_id, schedule=None, params=PARAMS):
        BitDanceBatchOperator(
            task_id="images",
            bitdance_conn_id=dag_id,
            items="{{ params.file }}",
            output_path="{{ params.folder }}/",
            deferrable=True,
            max_in_flight=max_in_flight,
        )
