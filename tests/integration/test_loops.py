"""Tasks in a loop of Airflow 3.4, in ``dag.test()``: each iteration is a job of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group
from airflow.utils.session import create_session

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.plugin.app import of_run, of_task
from tests.integration.test_dag_test import run_of


@task_group
def iterations(**options: Any) -> None:
    one = BitDanceTextToImageOperator(task_id="one", prompt="Only {{ loop.index }}", **options)
    mapped = BitDanceTextToImageOperator.partial(task_id="mapped", **options).expand(
        prompt=["First {{ loop.index }}", "Second {{ loop.index }}"]
    )
    last = task(lambda: None, task_id="last")
    one >> mapped >> last()


pytestmark = [
    pytest.mark.usefixtures("airflow_db"),
    pytest.mark.skipif(not hasattr(iterations, "loop"), reason="Airflow has no loops before 3.4"),
]


def test_each_iteration_of_a_loop_makes_and_shows_its_own_image(local: LocalService, tmp_path: Path) -> None:
    with DAG("loops", schedule=None) as dag:
        iterations.partial(output_path=f"{tmp_path}/images/", size="256*256").loop(max_iterations=2)

    run = run_of(dag)

    assert run.state == "success"
    prompts = {path.name: labels(path.read_bytes()).prompt for path in tmp_path.rglob("*.png")}
    expected = [f"{which} {index}" for which in ("First", "Only", "Second") for index in (0, 1)]
    assert sorted(prompts.values()) == expected
    assert local.bill().billed == 6
    with create_session() as session:
        pages = {
            "run": of_run(dag.dag_id, run.run_id, session),
            "one": of_task(dag.dag_id, run.run_id, "iterations.one", "{MAP_INDEX}", session),
            "mapped": of_task(dag.dag_id, run.run_id, "iterations.mapped", "1", session),
        }
    shown = {name: sorted(prompts[file] for file in files_of(page)) for name, page in pages.items()}
    assert shown == {"run": expected, "one": ["Only 0", "Only 1"], "mapped": ["Second 0", "Second 1"]}


def files_of(page: str) -> list[str]:
    return re.findall(r"([^/<>]+\.png)</code>", page)
