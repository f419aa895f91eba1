"""Estimates of mapped tasks and of groups, in a Dag run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, get_current_context, task, task_group

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import (
    BitDanceBatchOperator,
    BitDanceTextToImageOperator,
    estimate,
)
from tests.integration.test_dag_test import run_of

pytestmark = pytest.mark.usefixtures("airflow_db")

SMALL = {"size": "256*256", "seed": 7}


def test_mapped_tasks_and_groups_are_estimated_index_by_index(local: LocalService, tmp_path: Path) -> None:
    said: list[dict[str, str]] = []
    asked: dict[str, Any] = {}
    animals = ["A fox", "A hare"]

    def cover(name: str, **given: Any) -> Any:
        path = f"{tmp_path}/{name}/"
        return BitDanceTextToImageOperator.partial(task_id=name, output_path=path, size="256*256", **given)

    with DAG("estimates", schedule=None) as dag:

        @task
        def prompts() -> list[str]:
            return animals

        @task
        def ask() -> None:
            said.append({name: str(estimate(each, get_current_context())) for name, each in asked.items()})

        @task_group
        def covers() -> None:
            cover("in_group", seed=7).expand(prompt=animals)
            BitDanceBatchOperator(task_id="more", items=["A cat"], output_path=f"{tmp_path}/more/", **SMALL)

        source = prompts()
        asked["expand"] = cover("expand", seed=7).expand(prompt=animals)
        asked["product"] = cover("product").expand(prompt=animals, seed=[1, 2])
        asked["kwargs"] = cover("kwargs", seed=7).expand_kwargs([{"prompt": prompt} for prompt in animals])
        asked["xcom"] = cover("xcom", seed=7).expand(prompt=source)
        covers()
        asked["group"] = dag.task_group_dict["covers"]
        first, last = ask(), ask.override(task_id="ask_again")()
        source >> first >> list(asked.values()) >> last

    assert run_of(dag).state == "success"

    counts = {"expand": 2, "product": 4, "kwargs": 2, "xcom": 2, "group": 3}
    assert said == [
        {name: f"0 reused, {count} to buy, about ${count / 100:.2f}" for name, count in counts.items()},
        {name: f"{count} reused, 0 to buy, about $0.00" for name, count in counts.items()},
    ]


def test_a_mapped_task_whose_length_is_not_known_yet_is_refused(local: LocalService, tmp_path: Path) -> None:
    said: list[str] = []
    with DAG("unknown", schedule=None) as dag:

        @task
        def ask() -> None:
            with pytest.raises(InputError) as refused:
                estimate(asked, get_current_context())
            said.append(str(refused.value))

        @task
        def prompts() -> list[str]:
            return ["A fox"]

        source = prompts()
        asked = BitDanceTextToImageOperator.partial(
            task_id="cover", output_path=f"{tmp_path}/", **SMALL
        ).expand(prompt=source)
        ask() >> source

    assert run_of(dag).state == "success"
    assert said[0].startswith("The number of mapped tasks of cover is unknown: it is mapped over the result")


def test_a_task_in_a_mapped_group_is_estimated_within_the_group_only(
    local: LocalService, tmp_path: Path
) -> None:
    said: list[str] = []
    with DAG("grouped", schedule=None) as dag:

        @task_group
        def covers(prompt: str) -> None:
            cover = BitDanceTextToImageOperator(
                task_id="cover", prompt=prompt, output_path=f"{tmp_path}/", **SMALL
            )
            asked.append(cover)

            @task
            def ask() -> None:
                said.append(str(cover.estimate(get_current_context())))

            cover >> ask()

        @task
        def outside() -> None:
            with pytest.raises(InputError, match="only inside its mapped group covers"):
                asked[0].estimate(get_current_context())

        asked: list[BitDanceTextToImageOperator] = []
        covers.expand(prompt=["A fox", "A hare"])
        outside()

    assert run_of(dag).state == "success"
    assert said == ["1 reused, 0 to buy, about $0.00"] * 2


@pytest.mark.parametrize(("approved", "state"), [("0.02", "success"), ("0.01", "failed"), (None, "failed")])
def test_an_approved_sum_is_the_limit_of_the_task_after_it(
    local: LocalService, tmp_path: Path, approved: str | None, state: str
) -> None:
    said: list[Any] = []
    with DAG("approved", schedule=None, default_args={"retries": 0}) as dag:

        @task
        def ask() -> None:
            said.append(covers.estimate(get_current_context()))

        @task
        def approve() -> dict[str, str | None]:
            return {"usd": approved}

        @task(trigger_rule="all_done")
        def ask_again() -> None:
            said.append(covers.estimate(get_current_context()))

        sum_of_money = approve()
        covers = BitDanceBatchOperator(
            task_id="covers",
            items=["A fox", "A hare"],
            output_path=f"{tmp_path}/",
            max_cost_usd=sum_of_money["usd"],
            **SMALL,
        )
        ask() >> sum_of_money
        if approved:
            sum_of_money >> ask_again() >> covers

    assert run_of(dag).state == state
    assert local.bill().billed == (2 if state == "success" else 0)
    assert (said[0].buy, said[0].max_cost_usd) == (2, None)
    assert [each.max_cost_usd for each in said[1:]] == ([float(approved)] if approved else [])
