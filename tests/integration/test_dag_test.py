"""Whole Dags in ``dag.test()``, against the local service, on a clock that moves when somebody sleeps."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG, task

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.local import LocalService, pictures
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.version_compat import SHORTEST_DEFERRAL
from tests.builders import API_KEY
from tests.unit.support import FakeClock

try:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag, sync_bag_to_db

pytestmark = pytest.mark.usefixtures("airflow_db")

DAG_FILES = Path(__file__).parents[2] / "example_dags"


def local_path(uri: str) -> Path:
    assert uri.startswith("file:///")
    return Path(uri.removeprefix("file://"))


def run_of(dag: DAG, **options: Any) -> Any:
    """Run a Dag as ``dag.test()`` does, which takes only Dags that Airflow has in its database."""
    for each in dag.tasks:
        each.retry_delay = timedelta(0)  # so that a test that fails does not wait for it
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return dag.test(**options)


def results(run: Any) -> list[dict[str, Any]]:
    """Return the results of a run's tasks, after it ended well."""
    assert run.state == "success"
    tasks = run.get_task_instances()
    return [task.xcom_pull(task_ids=task.task_id, map_indexes=task.map_index) for task in tasks]


def assert_right_picture(result: dict[str, Any]) -> None:
    """The stored file is, byte for byte, the picture of the recorded request."""
    receipt = Receipt.model_validate_json(local_path(result["receipt"]).read_bytes())
    width, height = map(int, receipt.request.size.split("*"))
    assert local_path(result["uri"]).read_bytes() == pictures.draw(
        model=receipt.request.model,
        prompt=receipt.request.prompt,
        width=width,
        height=height,
        seed=receipt.request.seed,
        media_type="image/png",
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def a_dag(output: Path, name: str, **given: Any) -> DAG:
    """Return a Dag of one image."""
    arguments = {"prompt": "A lighthouse", "size": "256*256", "output_path": f"{output}/", "retries": 2}
    with DAG(name, schedule=None) as dag:
        BitDanceTextToImageOperator(task_id="image", **{**arguments, **given})
    return dag


def test_a_deferred_image_is_stored_by_the_resumed_task(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=4)
    start = clock.now

    (result,) = results(run_of(a_dag(output, "deferred", deferrable=True, defer_after=0)))

    assert_right_picture(result)
    assert clock.now - start >= max(4, SHORTEST_DEFERRAL)
    writers = {json.loads(path.read_text())["writer"]["token"] for path in output.rglob("0*.json")}
    assert len(writers) == 2
    assert local.bill().billed == 1


def test_a_second_run_with_the_same_named_file_pays_nothing(local: LocalService, output: Path) -> None:
    dag = a_dag(output, "named", output_path=f"{output}/cover", seed=7)

    (first,) = results(run_of(dag))
    (second,) = results(run_of(dag))

    assert second == {**first, "reused": True, "estimated_cost_usd": 0.0}
    assert local.bill().billed == 1


def test_two_runs_of_a_dag_that_names_a_folder_store_two_images(local: LocalService, output: Path) -> None:
    dag = a_dag(output, "folder", seed=7)

    uris = {results(run_of(dag))[0]["uri"] for _ in range(2)}

    assert {local_path(uri) for uri in uris} == set(output.glob("*.png"))
    assert local.bill().billed == len(uris) == 2


def test_a_prompt_file_beside_the_dag_is_rendered(local: LocalService, output: Path, tmp_path: Path) -> None:
    (tmp_path / "cover.prompt").write_text("A {{ params.animal }} for {{ dag.dag_id }}\n")
    with DAG(
        "prompt_file", schedule=None, template_searchpath=[str(tmp_path)], params={"animal": "fox"}
    ) as dag:
        BitDanceTextToImageOperator(task_id="image", prompt="cover.prompt", output_path=f"{output}/")

    (result,) = results(run_of(dag))

    assert_right_picture(result)
    assert [made["prompt"] for made in local.predictions()] == ["A fox for prompt_file"]


def test_mapped_prompts_give_distinct_files(local: LocalService, output: Path) -> None:
    prompts = ["A teapot", "A fox", "A lighthouse"]
    with DAG("mapped", schedule=None) as dag:
        BitDanceTextToImageOperator.partial(
            task_id="image", size="256*256", output_path=f"{output}/", retries=2
        ).expand(prompt=prompts)

    stored = results(run_of(dag))

    for result in stored:
        assert_right_picture(result)
    assert len({result["uri"] for result in stored}) == len(prompts)
    assert sorted(str(made["prompt"]) for made in local.predictions()) == sorted(prompts)
    assert local.bill().billed == len(prompts)


def test_mapped_prompts_with_one_file_s_name_buy_one_image_and_fail_where_each_would_replace_it(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    clock.now = time.time() + 60  # the Dag run begins by Airflow's clock
    with DAG("one_file", schedule=None) as dag:
        BitDanceTextToImageOperator.partial(
            task_id="image", size="256*256", output_path=f"{output}/cover.png"
        ).expand(prompt=["A fox", "An owl", "An elk"])

    run = run_of(dag)

    assert sorted(task.state for task in run.get_task_instances()) == ["failed", "failed", "success"]
    assert local.bill().billed == 1


def test_a_bad_input_fails_the_run_without_a_retry_or_a_request(local: LocalService, output: Path) -> None:
    run = run_of(a_dag(output, "bad_input", prompt="{{ '' }}"))

    (task,) = run.get_task_instances()
    assert (run.state, task.state, task.try_number) == ("failed", "failed", 1)
    assert local.requests() == []


def test_a_flagged_picture_skips_the_task(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="nsfw")

    (task,) = run_of(a_dag(output, "flagged", nsfw="skip")).get_task_instances()

    assert task.state == "skipped"


def test_no_log_shows_key_or_output_address(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30)
    results(run_of(a_dag(output, "quiet", deferrable=True, defer_after=0)))

    shown = "".join(capfd.readouterr())
    assert "Bought prediction" in shown
    assert API_KEY not in shown
    assert "/outputs/" not in shown


def of_failure(shown: str) -> str:
    """Return what Airflow's task runner logs of an error, up to its next line."""
    return shown.partition("Task failed with exception")[2].partition("::group::Post Execute")[0]


def frames_of_ours(shown: str) -> list[str]:
    """Return the functions of this package in a log's tracebacks: as text, or drawn in a box."""
    return re.findall(
        r"airflow_provider_bitdance/[\w/]+\.py\S* in (\w+)", re.sub(r", line (\d+),", r":\1", shown)
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"on": "submit", "kind": "status", "status": 401}, "AirflowFailException: POST"),
        ({"on": "output", "kind": "not_whole"}, "OutputError: The output is not a whole PNG"),
    ],
    ids=["no retry", "retry"],
)
def test_a_failed_task_logs_one_error_with_few_frames_of_ours(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str], fault: dict[str, Any], said: str
) -> None:
    local.add_fault(**fault)

    run_of(a_dag(output, "failing", retries=0))

    shown = of_failure("".join(capfd.readouterr()))
    assert said in shown
    assert frames_of_ours(shown) == ["execute", "_run"]
    assert "direct cause" not in shown
    assert "another exception occurred" not in shown


def test_a_failed_function_of_the_user_is_shown_whole_and_without_what_called_it(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def look_up_the_headline() -> str:
        return {"monday": "Foxes"}["tuesday"]

    with DAG("users", schedule=None) as dag:

        @task.bitdance(output_path=f"{output}/")
        def cover() -> str:
            try:
                return look_up_the_headline()
            except KeyError as error:
                raise LookupError("No headline") from error

        cover()
    run_of(dag)

    shown = of_failure("".join(capfd.readouterr()))
    assert "LookupError: No headline" in shown
    assert "KeyError: 'tuesday'" in shown
    assert "in cover" in shown
    assert "in look_up_the_headline" in shown
    assert frames_of_ours(shown) == ["execute"]


def test_an_error_of_ours_in_a_function_of_the_user_keeps_the_user_s_frames(
    local: LocalService, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with DAG("users_input", schedule=None) as dag:

        @task.bitdance(output_path=f"{output}/")
        def cover() -> str:
            raise InputError("There is no headline today")

        cover()
    run_of(dag)

    shown = of_failure("".join(capfd.readouterr()))
    assert "AirflowFailException: There is no headline today. A retry does not help." in shown
    assert "in cover" in shown
    assert frames_of_ours(shown) == ["execute", "_run"]
