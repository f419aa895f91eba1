"""Dags of the system tests: one image each way, fifty mapped, and every bad input."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator

OUTPUT = os.environ["BITDANCE_OUTPUT_PATH"]
PROMPTS = [f"picture {number:02} of fifty" for number in range(50)]
BAD_INPUTS: dict[str, dict[str, Any]] = {
    "blank_prompt": {"prompt": "{{ '  ' }}"},
    "unknown_preset": {"prompt": "bad", "size": "5:4"},
    "side_too_long": {"prompt": "bad", "size": "1024*2048"},
    "size_and_width": {"prompt": "bad", "size": "1:1", "width": 512, "height": 512},
    "width_alone": {"prompt": "bad", "width": "512"},
    "seed_too_large": {"prompt": "bad", "seed": "{{ 2 ** 31 }}"},
    "seed_no_number": {"prompt": "bad", "seed": "lucky"},
    "model_with_dots": {"prompt": "bad", "model": "../balance"},
    "relative_path": {"prompt": "bad", "output_path": "images/"},
    "relative_records": {"prompt": "bad", "records_path": "records"},
}


def dag(dag_id: str, **params: Any) -> DAG:
    return DAG(
        dag_id,
        schedule=None,
        params={name: Param(value) for name, value in params.items()},
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
        max_active_tasks=64,
    )


def an_image(**options: Any) -> BitDanceTextToImageOperator:
    options = {"task_id": "image", "output_path": OUTPUT, "prompt": "{{ params.prompt }}", **options}
    return BitDanceTextToImageOperator(**options)


with dag("one_image", prompt="one"):
    an_image()

with dag("one_deferred", prompt="one"):
    an_image(deferrable=True, defer_after=0)

with dag("bad_inputs"):
    for name, options in BAD_INPUTS.items():
        an_image(task_id=name, **options)

for dag_id, defer_after in (("fifty", 20.0), ("fifty_deferred_at_once", 0.0)):
    with dag(dag_id):
        BitDanceTextToImageOperator.partial(
            task_id="image", output_path=OUTPUT, deferrable=True, defer_after=defer_after
        ).expand(prompt=PROMPTS)
