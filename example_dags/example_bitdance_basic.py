"""Three images from three prompts: the smallest useful Dag.

Each task buys one image (about $0.01), stores it in a folder and records it. Run the Dag again: its images
have new names, since a name is made from Dag, task and run, so three more are bought. Clear a finished run:
nothing is bought, for the same request at the same place is there already.

The folder is ``BITDANCE_OUTPUT_PATH``, an environment variable, or /tmp/bitdance-images. It may be any
URI that Airflow's ObjectStoragePath takes, such as ``s3://my_connection@bucket/images``, and every worker
must see it.

``retries=2`` because Airflow's default is none, and then a killed worker leaves a paid image uncollected
until somebody clears the task. A retry buys nothing that was bought.
"""

from __future__ import annotations

import os

from airflow.sdk import dag

from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")


@dag(schedule=None, tags=["bitdance", "example"], doc_md=__doc__, default_args={"retries": 2})
def example_bitdance_basic() -> None:
    """Make three images side by side."""
    for name, prompt, size in (
        ("teapot", "A teapot on a wooden table, soft morning light", "1:1"),
        ("lighthouse", "A lighthouse above the sea at dusk, long exposure", "16:9"),
        ("fox", "A paper-cut fox in a birch forest", "3:4"),
    ):
        BitDanceTextToImageOperator(
            task_id=name,
            prompt=prompt,
            size=size,
            seed=42,
            output_path=f"{OUTPUT}/",
            deferrable=True,
        )


example_bitdance_basic()
