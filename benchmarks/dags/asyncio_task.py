"""The script of `asyncio_script.py` in one task: the slot is held to the end, a killed task buys all anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from airflow.sdk import DAG, BaseHook, Param, get_current_context, task

from benchmarks.asyncio_script import make_images

for in_flight in (50, 100):
    with DAG(
        f"asyncio_{in_flight}_in_flight",
        schedule=None,
        params={"file": Param("/nowhere.jsonl"), "folder": Param("/nowhere")},
    ):

        @task(task_id="images")
        def images(at_once: int) -> None:
            context = get_current_context()
            account = BaseHook.get_connection(context["dag"].dag_id)
            assert account.host
            assert account.password
            lines = Path(context["params"]["file"]).read_text().splitlines()
            prompts = [json.loads(line)["prompt"] for line in lines]
            folder = Path(context["params"]["folder"])
            asyncio.run(make_images(account.host, account.password, prompts, folder, at_once=at_once))

        images(in_flight)
