"""``enhance_prompt`` in whole Dags in ``dag.test()``: against the local service, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, get_current_context, task

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.catalogue import STYLE_WORDS
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from tests.integration.test_dag_test import local_path, results, run_of

pytestmark = pytest.mark.usefixtures("airflow_db")

SMALL: dict[str, Any] = {"size": "256*256", "seed": 7, "retries": 2}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def enhanced(prompt: str, style: str = "photographic") -> str:
    return f"{prompt}, {STYLE_WORDS[style]}"


def bought(local: LocalService) -> dict[str, int]:
    """Return how many texts and images are on the bill."""
    models = [made["model"] for made in local.predictions()]
    texts = models.count(PROMPT_OPTIMIZER)
    assert local.bill().billed == len(models)
    return {"texts": texts, "images": len(models) - texts}


def receipt_of(result: dict[str, Any]) -> Receipt:
    return Receipt.model_validate_json(local_path(result["receipt"]).read_bytes())


def a_fox(output: Path, **options: Any) -> DAG:
    with DAG("fox", schedule=None, params={"style": "photographic"}) as dag:
        options = {**SMALL, "enhance_prompt": "{{ params.style }}", "output_path": f"{output}/fox", **options}
        BitDanceTextToImageOperator(task_id="fox", prompt="A fox", **options)
    return dag


@pytest.mark.parametrize("waiting", [{}, {"deferrable": True, "defer_after": 0}], ids=["worker", "deferred"])
def test_an_image_is_made_of_the_enhanced_prompt_and_a_rerun_and_another_image_buy_no_text(
    local: LocalService, output: Path, waiting: dict[str, Any]
) -> None:
    (first,) = results(run_of(a_fox(output, **waiting)))

    assert labels(local_path(first["uri"]).read_bytes()).prompt == enhanced("A fox")
    receipt = receipt_of(first)
    assert (receipt.prompt_asked, receipt.request.prompt) == ("A fox", enhanced("A fox"))
    assert receipt.enhancement is not None
    assert receipt.enhancement.style == "photographic"
    assert first["estimated_cost_usd"] == 0.011
    assert "A fox" not in json.dumps(first)
    assert bought(local) == {"texts": 1, "images": 1}

    (again,) = results(run_of(a_fox(output, **waiting)))
    assert (again["reused"], again["estimated_cost_usd"]) == (True, 0.0)
    assert bought(local) == {"texts": 1, "images": 1}

    (other,) = results(run_of(a_fox(output, seed=8, **waiting)))
    assert (other["reused"], other["estimated_cost_usd"]) == (False, 0.01)
    assert bought(local) == {"texts": 1, "images": 2}


def test_without_a_style_the_prompt_is_sent_as_it_is(local: LocalService, output: Path) -> None:
    (result,) = results(run_of(a_fox(output, enhance_prompt="{{ None }}")))

    assert receipt_of(result).request.prompt == "A fox"
    assert bought(local) == {"texts": 0, "images": 1}


def test_a_style_that_there_is_not_is_refused_before_anything_is_sent(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_of(a_fox(output, enhance_prompt="sharper"))

    assert run.state == "failed"
    assert "enhance_prompt is 'sharper'. Allowed: None, or default, artistic" in capfd.readouterr().out
    assert local.requests() == []


def test_a_text_is_found_where_the_image_is_not_there_any_more(local: LocalService, output: Path) -> None:
    dag = a_fox(output)
    results(run_of(dag))
    for file in [*output.rglob("receipts/*.json"), *output.glob("*.png")]:
        file.unlink()

    results(run_of(dag))

    assert bought(local) == {"texts": 1, "images": 2}


def test_a_batch_enhances_each_text_once_and_its_manifest_has_both_prompts(
    local: LocalService, output: Path
) -> None:
    with DAG("batch", schedule=None) as dag:
        BitDanceBatchOperator(
            task_id="images",
            items=[{"key": "a", "prompt": "A cat"}, {"key": "b", "prompt": "A dog"}],
            variants=2,
            enhance_prompt="anime",
            output_path=f"{output}/",
            **SMALL,
        )

    (result,) = results(run_of(dag))

    assert bought(local) == {"texts": 2, "images": 4}
    assert (result["estimated_cost_usd"], result["prompts_possibly_paid"]) == (0.042, 0)
    rows = read_manifest(result["manifest"])
    assert [(row.prompt_asked, row.prompt_sent) for row in rows] == [
        *[("A cat", enhanced("A cat", "anime"))] * 2,
        *[("A dog", enhanced("A dog", "anime"))] * 2,
    ]
    assert [row.estimated_cost_usd for row in rows] == [0.011, 0.01, 0.011, 0.01]
    for row in rows:
        assert labels(local_path(str(row.uri)).read_bytes()).prompt == row.prompt_sent

    (again,) = results(run_of(dag))
    assert (again["reused"], again["estimated_cost_usd"]) == (4, 0.0)
    assert bought(local) == {"texts": 2, "images": 4}


def test_a_batch_beyond_its_budget_buys_no_prompt(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with DAG("dear", schedule=None) as dag:
        BitDanceBatchOperator(
            task_id="images",
            items=["A cat", "A dog"],
            enhance_prompt="anime",
            max_cost_usd=0.021,
            output_path=f"{output}/",
            **SMALL,
        )

    assert run_of(dag).state == "failed"

    said = "2 prompts to enhance and 2 images to buy cost about $0.022, but max_cost_usd is $0.021"
    assert said in capfd.readouterr().out
    assert bought(local) == {"texts": 0, "images": 0}


def test_a_decorated_function_has_its_prompts_enhanced(local: LocalService, output: Path) -> None:
    with DAG("decorated", schedule=None) as dag:

        @task.bitdance(output_path=f"{output}/", enhance_prompt="technical", **SMALL)
        def one() -> str:
            return "A pump"

        @task.bitdance(output_path=f"{output}/", enhance_prompt="technical", **SMALL)
        def two() -> list[str]:
            return ["A valve", "A pump"]

        one() >> two()

    single, batch = results(run_of(dag))

    assert receipt_of(single).request.prompt == enhanced("A pump", "technical")
    assert [row.prompt_sent for row in read_manifest(batch["manifest"])] == [
        enhanced("A valve", "technical"),
        enhanced("A pump", "technical"),
    ]
    assert bought(local) == {"texts": 2, "images": 3}


def test_an_estimate_counts_prompts_that_are_missing(local: LocalService, output: Path) -> None:
    said: list[str] = []
    with DAG("estimated", schedule=None) as dag:
        fox = BitDanceTextToImageOperator(
            task_id="fox", prompt="A fox", enhance_prompt="default", output_path=f"{output}/fox", **SMALL
        )

        @task
        def ask() -> None:
            said.append(str(fox.estimate(get_current_context())))

        ask() >> fox >> ask.override(task_id="ask_again")()

    assert run_of(dag).state == "success"
    assert said == [
        "0 reused, 1 to buy, 1 prompt to enhance, about $0.011",
        "1 reused, 0 to buy, about $0.00",
    ]
