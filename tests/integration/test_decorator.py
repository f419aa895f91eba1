"""``@task.bitdance`` in whole Dags in ``dag.test()``, as a user writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from tests.integration.test_dag_test import assert_right_picture, local_path, results, run_of

pytestmark = pytest.mark.usefixtures("airflow_db")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "decorator.md"
DEFERS: dict[str, Any] = {"deferrable": True, "defer_after": 0}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def given(output: Path) -> dict[str, Any]:
    return {"output_path": f"{output}/", "size": "256*256", "retries": 2}


def prompts(output: Path) -> list[str]:
    return sorted(labels(path.read_bytes()).prompt for path in output.rglob("*.png"))


def test_a_function_may_return_a_prompt_a_request_or_a_list(
    local: LocalService, output: Path, given: dict[str, Any]
) -> None:
    with DAG("kinds", schedule=None) as dag:

        @task.bitdance(**given)
        def cover() -> str:
            return "A lighthouse"

        @task.bitdance(**given)
        def back() -> dict[str, Any]:
            return {"prompt": "A harbour", "seed": 7}

        @task.bitdance(**given)
        def pages() -> list[dict[str, Any]]:
            return [{"key": f"page-{number}", "prompt": f"Page {number}"} for number in (1, 2)]

        cover()
        back()
        pages()

    run = run_of(dag)

    of = {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in run.get_task_instances()}
    assert run.state == "success"
    assert_right_picture(of["cover"])
    assert_right_picture(of["back"])
    assert of["back"]["seed"] == 7
    assert [row.key for row in read_manifest(of["pages"]["manifest"])] == ["page-1", "page-2"]
    assert prompts(output) == ["A harbour", "A lighthouse", "Page 1", "Page 2"]
    assert local.bill().billed == 4


@pytest.mark.parametrize("is_list", [False, True])
def test_a_resume_stores_what_was_planned_however_the_function_has_changed_its_mind(
    local: LocalService, output: Path, given: dict[str, Any], is_list: bool
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=100)
    asked: list[str] = []

    with DAG(f"changes_its_mind_{is_list}", schedule=None) as dag:

        @task.bitdance(**given, **DEFERS)
        def fickle() -> Any:
            asked.append(f"Thought {len(asked) + 1}")
            return [asked[-1]] if is_list else asked[-1]

        fickle()

    (result,) = results(run_of(dag))

    journals = [json.loads(path.read_text()) for path in output.rglob("0*.json")]
    assert len({entry["writer"]["token"] for entry in journals}) == 2, "it was deferred"
    assert (asked, prompts(output)) == (["Thought 1"], ["Thought 1"])
    assert ("manifest" in result) is is_list
    assert local.bill().billed == 1


def test_a_retry_stores_what_was_planned(local: LocalService, output: Path, given: dict[str, Any]) -> None:
    local.add_fault(on="output", kind="status", status=503, times=3)
    thoughts = (f"Thought {number}" for number in range(1, 9))

    with DAG("changes_its_mind_and_fails", schedule=None) as dag:

        @task.bitdance(**given)
        def fickle() -> str:
            return next(thoughts)

        fickle()

    run = run_of(dag)

    (ti,) = run.get_task_instances()
    assert (run.state, ti.try_number) == ("success", 2)
    assert (next(thoughts), prompts(output)) == ("Thought 2", ["Thought 1"])
    assert local.bill().billed == 1


def test_a_mapped_function_makes_an_image_of_each_argument(
    local: LocalService, output: Path, given: dict[str, Any]
) -> None:
    with DAG("mapped_function", schedule=None) as dag:

        @task.bitdance(**given)
        def draw(animal: str, style: str) -> str:
            return f"A {style} {animal}"

        draw.partial(style="paper-cut").expand(animal=["fox", "owl", "hare"])

    uris = {result["uri"] for result in results(run_of(dag))}

    assert len(uris) == 3
    assert prompts(output) == ["A paper-cut fox", "A paper-cut hare", "A paper-cut owl"]


def test_a_mapped_function_may_return_chunks(
    local: LocalService, output: Path, given: dict[str, Any]
) -> None:
    with DAG("mapped_chunks", schedule=None) as dag:

        @task.bitdance(**given)
        def draw(chunk: list[str]) -> list[str]:
            return chunk

        draw.expand(chunk=[["A fox", "An owl"], ["A hare"]])

    assert [result["stored"] for result in results(run_of(dag))] == [2, 1]
    assert prompts(output) == ["A fox", "A hare", "An owl"]


def test_results_flow_in_and_out_as_between_other_tasks(
    local: LocalService, output: Path, given: dict[str, Any]
) -> None:
    seen: list[object] = []

    with DAG("flow", schedule=None) as dag:

        @task
        def pick() -> list[str]:
            return ["A fox", "An owl"]

        @task.bitdance(**given, multiple_outputs=True)
        def draw(animals: list[str]) -> str:
            return animals[1]

        @task
        def publish(uri: str, image: dict[str, Any]) -> None:
            seen.extend([uri, image])

        image = draw(pick())
        publish(image["uri"], image)

    assert run_of(dag).state == "success"
    assert dag.get_task("draw").upstream_task_ids == {"pick"}
    uri, whole = seen
    assert isinstance(whole, dict)
    assert uri == whole["uri"]
    assert local_path(whole["uri"]).exists()
    assert prompts(output) == ["An owl"]


def test_options_are_templates_and_what_comes_from_people_is_not(
    local: LocalService, output: Path, given: dict[str, Any]
) -> None:
    with DAG("templates", schedule=None) as dag:

        @task.bitdance(**{**given, "output_path": f"{output}/{{{{ dag.dag_id }}}}/{{{{ ti.task_id }}}}"})
        def cover(name: str, file: str, dag: Any = None) -> str:
            return f"{name}, {file}, {dag.dag_id}, {{{{ dag.dag_id }}}}"

        cover("{{ dag.dag_id }}", "cover.prompt")

    (result,) = results(run_of(dag))

    assert local_path(result["uri"]) == output / "templates" / "cover.png"
    assert prompts(output) == ["templates, cover.prompt, templates, {{ dag.dag_id }}"]


def test_an_override_holds_for_one_call(local: LocalService, output: Path, given: dict[str, Any]) -> None:
    with DAG("overridden", schedule=None) as dag:

        @task.bitdance(**given)
        def cover() -> str:
            return "A lighthouse"

        cover()
        cover.override(task_id="large", size="512*512", output_path=f"{output}/large.png")()

    sizes = {local_path(result["uri"]).stem: result["size"] for result in results(run_of(dag))}

    assert len(sizes) == 2
    assert sizes["large"] == "512*512"


@pytest.mark.parametrize("returned", [None, []])
def test_a_bad_return_fails_the_run_without_a_retry_or_a_request(
    local: LocalService, given: dict[str, Any], returned: object
) -> None:
    with DAG(f"bad_return_{type(returned).__name__}", schedule=None) as dag:

        @task.bitdance(**given)
        def cover() -> Any:
            return returned

        cover()

    run = run_of(dag)

    (ti,) = run.get_task_instances()
    assert (run.state, ti.state, ti.try_number) == ("failed", "failed", 1)
    assert local.requests() == []


def snippets() -> Iterator[str]:
    return (match[1] for match in re.finditer(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def test_the_snippets_of_the_page_run(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_IMAGES", str(output))

    for snippet in snippets():
        names: dict[str, Any] = {}
        exec(compile(snippet, str(PAGE), "exec"), names)
        (dag,) = (found for found in names.values() if isinstance(found, DAG))
        assert run_of(dag).state == "success"

    assert len(prompts(output)) == local.bill().billed == 4
