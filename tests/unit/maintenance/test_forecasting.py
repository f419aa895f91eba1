"""Plan mode from the command line: a task of a Dag file, rendered for a run, without spending."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_bitdance.__main__ import FINDINGS, FINE, NOT_RUN, main
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from tests.builders import context

DAG = """
from airflow.sdk import DAG, task
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator

with DAG("covers", schedule=None, params={"style": "oil"}):
    BitDanceTextToImageOperator(
        task_id="cover", prompt="{{ params.style }} of {{ ds }}", output_path="%(folder)s/{{ ds }}", seed=7
    )
    BitDanceBatchOperator(
        task_id="many", items=["a", "b", "c"], output_path="%(folder)s/many/", max_cost_usd=%(budget)s
    )
    BitDanceTextToImageOperator(
        task_id="dated",
        prompt="A cover",
        output_path="%(folder)s/{{ logical_date.in_timezone('Asia/Tokyo').format('YYYY-MM-DD') }}/"
        "{{ dag_run.run_after.add(days=1).format('DD') }}",
    )
    BitDanceTextToImageOperator(task_id="typo", prompt="{{ nothing.here }}", output_path="%(folder)s/")
    BitDanceTextToImageOperator(
        task_id="after", prompt="{{ ti.xcom_pull('cover') }}", output_path="%(folder)s/"
    )

    @task
    def other(): ...

    other()
"""
Plan = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def plan(tmp_path: Path, folder: Path, local: LocalService, capsys: pytest.CaptureFixture[str]) -> Plan:
    def run(*arguments: str, budget: float = 1.0) -> tuple[int, str, str]:
        (tmp_path / "covers.py").write_text(DAG % {"folder": folder, "budget": budget})
        code = main(["plan", *arguments, "--dags", str(tmp_path / "covers.py")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_task_is_rendered_for_the_run_and_compared_with_what_is_there(
    plan: Plan, folder: Path, local: LocalService, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("covers", "cover", "--logical-date", "2026-11-22")
    assert plan(*asked)[:2] == (FINE, "0 reused, 1 to buy, about $0.01\n")
    made = BitDanceTextToImageOperator(
        task_id="x", prompt="oil of 2026-11-22", output_path=f"{folder}/2026-11-22", seed=7
    )
    made.execute(context())
    capsys.readouterr()
    assert plan(*asked)[1] == "1 reused, 0 to buy, about $0.00\n"
    assert plan("covers", "cover", "--logical-date", "2026-11-23")[1].startswith("0 reused, 1 to buy")
    assert plan(*asked, "--params", '{"style": "ink"}')[1].startswith("0 reused, 1 to buy")
    assert local.bill().billed == 1


def test_a_batch_over_its_budget_is_a_finding(plan: Plan) -> None:
    code, said, _ = plan("covers", "many", budget=0.02)
    assert code == FINDINGS
    assert said == "0 reused, 3 to buy, about $0.03. Would be refused: max_cost_usd is $0.02\n"


def test_programs_get_json(plan: Plan) -> None:
    code, said, _ = plan("covers", "many", "--json")
    assert code == FINE
    read = json.loads(said)
    assert (read["reuse"], read["buy"], read["is_within_budget"]) == (0, 3, True)
    assert read["cost_usd"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("nobody", "cover"), "There is no Dag 'nobody'. Allowed: covers"),
        (
            ("covers", "other"),
            "none that buys images, or it is mapped. Allowed: after, cover, dated, many, typo",
        ),
        (("covers", "typo"), "The fields of task 'typo' cannot be rendered: 'nothing' is undefined"),
        (("covers", "nothing"), "none that buys images"),
        (("covers", "after"), "asks for the result of another task"),
    ],
)
def test_what_cannot_be_planned_says_why(plan: Plan, asked: tuple[str, str], why: str) -> None:
    code, said, error = plan(*asked)
    assert (code, said) == (NOT_RUN, "")
    assert why in error


def test_a_dag_file_that_cannot_be_imported_is_named(
    tmp_path: Path, local: LocalService, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("from airflow.sdk import DAG\nraise ValueError('a typo')\n")
    assert main(["plan", "covers", "cover", "--dags", str(tmp_path / "broken.py")]) == NOT_RUN
    assert "a typo" in capsys.readouterr().err


@pytest.mark.parametrize("params", ["[]", "oil", "{"])
def test_params_are_a_json_object(params: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "covers", "cover", "--params", params])
    assert "is not a JSON object" in capsys.readouterr().err


def test_templates_have_the_dates_as_airflow_gives_them(
    plan: Plan, folder: Path, local: LocalService, capsys: pytest.CaptureFixture[str]
) -> None:
    made = BitDanceTextToImageOperator(task_id="x", prompt="A cover", output_path=f"{folder}/2026-11-22/22")
    made.execute(context())
    capsys.readouterr()

    said = plan("covers", "dated", "--logical-date", "2026-11-22T00:30+02:00")[1]

    assert said == "1 reused, 0 to buy, about $0.00\n"
