"""Tasks in a loop of Airflow 3.4, in ``dag.test()``: each iteration is a job of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.models.xcom import XComModel
from airflow.sdk import DAG, BaseOperator, task, task_group
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.operators.bitdance import (
    BitDanceBatchOperator,
    BitDanceTextToImageOperator,
    sheet_markdown,
)
from airflow_provider_bitdance.plugin.app import of_run, of_task, sheet_of_row
from airflow_provider_bitdance.plugin.page import NO_SHEET, WHICH_SHEET
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


class Question(BaseOperator):
    """Its text is templated, as that of a question to a person."""

    template_fields = ("body",)

    def __init__(self, *, body: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = body

    def execute(self, context: Any) -> str:
        return self.body


@task_group
def approvals(**options: Any) -> None:
    items = [{"key": "jazz", "prompt": "Jazz {{ loop.index }}"}]
    one = BitDanceBatchOperator(task_id="one", items=items, **options)
    mapped = BitDanceBatchOperator.partial(task_id="mapped", **options).expand(items=[items])
    body = sheet_markdown("approvals.one", "jazz", map_index="{{ loop.index }}")
    one >> mapped >> Question(task_id="last", body=body)


def test_a_question_in_a_loop_shows_the_sheet_of_its_iteration_and_never_that_of_another(
    local: LocalService, tmp_path: Path
) -> None:
    output = f"{tmp_path}/{{{{ ti.task_id }}}}-{{{{ loop.index }}}}/"
    with DAG("approvals", schedule=None) as dag:
        approvals.partial(output_path=output, variants=2, size="256*256").loop(max_iterations=2)

    run = run_of(dag)

    assert run.state == "success"
    with create_session() as session:
        values = select(XComModel.value).where(XComModel.run_id == run.run_id, XComModel.dag_id == dag.dag_id)
        ofs = XComModel.task_id == "approvals.last", XComModel.key == "return_value"
        bodies = [str(body) for body in session.scalars(values.where(*ofs).order_by(XComModel.map_index))]
        sheets = [sheet(session, dag.dag_id, run.run_id, "approvals.one", index) for index in (0, 1)]
        mapped = sheet(session, dag.dag_id, run.run_id, "approvals.mapped", 0)
        without_index = sheet(session, dag.dag_id, run.run_id, "approvals.one", -1)
    assert [f"approvals.one/{index}/jazz" in body for index, body in enumerate(bodies)] == [True, True]
    assert sheets[0] != sheets[1]
    assert all(picture.startswith(b"RIFF") for picture in sheets)
    assert (mapped, without_index) == (WHICH_SHEET, NO_SHEET)


def sheet(session: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> bytes:
    return bytes(sheet_of_row(dag_id, run_id, task_id, map_index, "jazz", session).body)
