"""What comes with Airflow: HttpOperator submits, HttpSensor waits, a task stores; a mapped group an image.

Both are deferrable. A deferrable HttpOperator submits in the triggerer, which may run it twice, and bills
twice then (apache/airflow#67945). A deferrable HttpSensor with a response_check polls in the worker all the
same, and without one it takes "processing" for done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, Param, get_current_context, task, task_group


def prediction(response: Any) -> dict[str, Any]:
    """Read the answer's envelope."""
    data: dict[str, Any] = response.json()["data"]
    return data


def result_of(response: Any) -> str:
    """Return where the result of a submission will be."""
    return f"/api/v3/predictions/{prediction(response)['id']}/result"


def is_completed(response: Any) -> bool:
    """Say whether the picture is there."""
    return bool(prediction(response)["status"] == "completed")


for count in (1, 10, 100):
    with DAG(f"http_{count}", schedule=None, params={"folder": Param("/nowhere")}, max_active_tasks=100):

        @task(task_id="store")
        def store(result: str, body: str) -> None:
            import requests
            from airflow.providers.http.hooks.http import HttpHook

            context = get_current_context()
            answer = HttpHook("GET", http_conn_id=context["dag"].dag_id).run(result)
            picture = requests.get(prediction(answer)["outputs"][0], timeout=60)
            picture.raise_for_status()
            name = f"{json.loads(body)['prompt']}.png"
            Path(context["params"]["folder"], name).write_bytes(picture.content)

        @task_group(group_id="image")
        def image(body: str, connection: str) -> None:
            submit = HttpOperator(
                task_id="submit",
                http_conn_id=connection,
                endpoint="/api/v3/wavespeed-ai/bitdance-14b/text-to-image",
                headers={"Content-Type": "application/json"},
                data=body,
                response_filter=result_of,
                deferrable=True,
            )
            wait = HttpSensor(
                task_id="wait",
                http_conn_id=connection,
                endpoint=submit.output,  # type: ignore[arg-type]  # templated
                response_check=is_completed,
                poke_interval=1,
                deferrable=True,
            )
            wait >> store(submit.output, body)  # type: ignore[arg-type]  # an XCom

        image.partial(connection=f"http_{count}").expand(
            body=[
                json.dumps({"prompt": f"image-{number:04}", "size": "1024*1024", "seed": -1})
                for number in range(count)
            ]
        )
