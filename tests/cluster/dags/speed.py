"""A batch that measures itself: the CPU time of its process, and from when to when it bought and stored."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Context, Param

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator


class MeasuredBatch(BitDanceBatchOperator):
    """Stays in the worker, and writes what it took into the file that its run names."""

    def execute(self, context: Context) -> Any:
        params = context["params"]
        self.bitdance_conn_id = params["conn_id"]
        report = Path(params["report"])
        before, began = os.times(), time.time()
        report.with_suffix(".pid").write_text(str(os.getpid()))
        result = super().execute(context)
        after = os.times()
        cpu = after.user + after.system - before.user - before.system
        report.write_text(json.dumps({"cpu": cpu, "began": began, "ended": time.time()}))
        return result


with DAG(
    "speed",
    schedule=None,
    params={
        "prompts": Param(["a picture"]),
        "output_path": Param("/nowhere/"),
        "conn_id": Param("bitdance_default"),
        "report": Param("/nowhere.json"),
    },
    render_template_as_native_obj=True,  # a list stays one
):
    MeasuredBatch(
        task_id="batch",
        items="{{ params.prompts }}",
        output_path="{{ params.output_path }}",
        max_in_flight=250,
        deferrable=False,
    )
