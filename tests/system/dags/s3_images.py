"""Images and their records on S3, with a connection that the task looks up in its own process."""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator

for dag_id, options in {
    "s3_in_the_worker": {},
    "s3_deferred": {"deferrable": True, "defer_after": 0},
}.items():
    with DAG(dag_id, schedule=None, params={"prompt": Param("one")}):
        BitDanceTextToImageOperator(
            task_id="image",
            prompt="{{ params.prompt }}",
            output_path=os.environ["BITDANCE_S3_OUTPUT_PATH"],
            retries=2,
            **options,
        )
