"""The official SDK, in a mapped task an image."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, BaseHook, Param, get_current_context, task

for count in (1, 10, 100):
    with DAG(f"sdk_{count}", schedule=None, params={"folder": Param("/nowhere")}, max_active_tasks=100):

        @task(task_id="image")
        def image(prompt: str) -> None:
            import requests
            import wavespeed

            context = get_current_context()
            account = BaseHook.get_connection(context["dag"].dag_id)
            client = wavespeed.Client(api_key=account.password, base_url=account.host)
            made = client.run(
                "wavespeed-ai/bitdance-14b/text-to-image",
                {"prompt": prompt, "size": "1024*1024", "seed": -1},
                poll_interval=1.0,
            )
            picture = requests.get(made["outputs"][0], timeout=60)
            picture.raise_for_status()
            Path(context["params"]["folder"], f"{prompt}.png").write_bytes(picture.content)

        image.expand(prompt=[f"image-{number:04}" for number in range(count)])
