"""What runs again on a real Airflow: the bill says how often each image was bought."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from tests.system.conftest import System


def finished(system: System, dag_id: str, run: str) -> dict[str, Any]:
    """Wait for a run's success, and return the result of its image, checked."""
    assert system.airflow.wait_for_run(dag_id, run) == "success", system.fails(dag_id, run)
    results = system.results(dag_id, run)
    return results[-1]


def deferred(system: System, dag_id: str, prompt: str) -> str:
    """Start a run whose image takes a while, and wait until it is deferred."""
    system.service.add_fault(on="submit", kind="latency", match=prompt, seconds=15, times=1)
    run = system.airflow.trigger(dag_id)
    system.airflow.wait_for_task(dag_id, run, "image", ["deferred"])
    return run


def test_a_clear_while_deferred_waits_for_the_same_prediction(system: System) -> None:
    run = deferred(system, "of_a_variable", "a cat")
    system.airflow.clear("of_a_variable", run)
    result = finished(system, "of_a_variable", run)
    assert (system.billed, result["reused"], result["possibly_paid"]) == (1, False, 0)


def test_a_clear_while_deferred_buys_another_prompt_and_names_what_stays_collectable(system: System) -> None:
    run = deferred(system, "of_the_moment", "at 2")
    system.airflow.clear("of_the_moment", run)
    finished(system, "of_the_moment", run)
    assert system.billed == 2
    log = system.airflow.task_log("of_the_moment", run, "image", try_number=2)
    assert "stays collectable for 7 days" in log
    assert system.service.predictions()[-2]["id"] in log


def test_a_prompt_of_the_moment_is_bought_as_it_was_planned(system: System) -> None:
    run = deferred(system, "of_the_moment", "at 2")
    finished(system, "of_the_moment", run)
    assert system.billed == 1


def test_a_variable_that_changes_while_deferred_changes_nothing(system: System) -> None:
    run = deferred(system, "of_a_variable", "a cat")
    system.airflow.post("/variables", {"key": "subject", "value": "dog"})
    finished(system, "of_a_variable", run)
    assert system.billed == 1
    prompts = [made["prompt"] for made in system.service.predictions()]
    assert prompts[-1] == "a cat"


def test_an_upstream_that_is_cleared_while_deferred_changes_nothing(system: System) -> None:
    run = deferred(system, "of_an_upstream", "an upstream")
    system.airflow.clear("of_an_upstream", run, ["subject"])
    assert system.airflow.wait_for_run("of_an_upstream", run) == "success"
    assert system.airflow.task_instance("of_an_upstream", run, "subject")["try_number"] == 2
    assert system.billed == 1


def test_a_clear_after_success_buys_anew_only_where_it_is_asked_to(system: System) -> None:
    run = system.airflow.trigger("regenerated")
    first = finished(system, "regenerated", run)
    system.airflow.clear("regenerated", run)
    second = finished(system, "regenerated", run)
    assert system.billed == 2
    assert (second["reused"], second["uri"]) == (False, first["uri"])
    assert second["prediction_id"] != first["prediction_id"]


def test_a_second_run_and_a_second_dag_at_one_address_reuse_and_another_prompt_replaces(
    system: System,
) -> None:
    first = finished(system, "named", system.airflow.trigger("named"))
    run = system.airflow.trigger("named_twin")
    twin = finished(system, "named_twin", run)
    assert system.billed == 1
    assert (twin["reused"], twin["prediction_id"]) == (True, first["prediction_id"])
    assert "Reusing" in system.airflow.task_log("named_twin", run, "image")

    other = finished(system, "named", system.airflow.trigger("named", conf={"prompt": "another cover"}))
    assert (system.billed, other["reused"], other["uri"]) == (2, False, first["uri"])


def test_two_dags_at_one_address_at_once_buy_one_image(system: System) -> None:
    system.service.add_fault(on="submit", kind="latency", match="at once", seconds=8, times=2)
    conf = {"prompt": "at once", "name": "at-once"}
    runs = [(dag_id, system.airflow.trigger(dag_id, conf=conf)) for dag_id in ("named", "named_twin")]
    results = [finished(system, dag_id, run) for dag_id, run in runs]
    assert system.billed == 1
    assert sorted(result["reused"] for result in results) == [False, True]


def test_another_image_for_an_address_that_is_being_made_is_refused_with_both_names(system: System) -> None:
    system.service.add_fault(on="submit", kind="latency", match="slow cover", seconds=30, times=1)
    first = system.airflow.trigger("named", conf={"prompt": "slow cover", "name": "contested"})
    deadline = time.monotonic() + 60
    while system.billed == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = system.airflow.trigger("named_twin", conf={"prompt": "quick cover", "name": "contested"})
    assert system.airflow.wait_for_run("named_twin", second) == "failed"
    log = system.airflow.task_log("named_twin", second, "image")
    assert "named.image of run" in log
    assert "named_twin.image of run" in log
    assert system.airflow.task_instance("named_twin", second, "image")["try_number"] == 1
    finished(system, "named", first)
    assert system.billed == 1


def test_a_backfill_of_a_day_that_is_done_reuses_its_image(system: System) -> None:
    def backfill(tries: int, **options: Any) -> dict[str, Any]:
        body = {"dag_id": "daily", "from_date": "2026-03-01", "to_date": "2026-03-01", **options}
        system.airflow.post("/backfills", body)
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline
            time.sleep(0.5)
            backfills = system.airflow.get("/backfills", dag_id="daily")["backfills"]
            [run] = system.airflow.get("/dags/daily/dagRuns")["dag_runs"] or [{"state": "not yet"}]
            if run["state"] == "success" and all(each["completed_at"] for each in backfills):
                task = system.airflow.task_instance("daily", run["dag_run_id"], "image")
                assert task["try_number"] == tries
                return system.results("daily", run["dag_run_id"])[0]

    first = backfill(1)
    again = backfill(2, reprocess_behavior="completed")
    assert system.billed == 1
    assert (first["reused"], again["reused"]) == (False, True)


@pytest.mark.parametrize("dag_id", ["sleeper"])
def test_a_machine_that_slept_after_the_intent_buys_nothing_when_it_wakes_up(
    system: System, dag_id: str
) -> None:
    # What the test before this one has bought shall not pass for what the sleeper may have bought.
    time.sleep(CLOCK_MARGIN + 1)
    run = system.airflow.trigger(dag_id)
    assert system.airflow.wait_for_run(dag_id, run) == "success", system.fails(dag_id, run)
    before = Path(system.images, "sleeper.pids").read_text()
    task_pid, supervisor_pid = map(int, before.split())
    records = {path: path.read_bytes() for path in system.images.rglob("*") if path.is_file()}
    for pid in (supervisor_pid, task_pid):
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while task_pid in [process.pid for process in system.airflow.task_processes()]:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    (result,) = system.results(dag_id, run)
    # The account's history had nothing of the intent that it left, which proves nothing yet.
    assert (system.billed, result["possibly_paid"]) == (1, 1)
    assert system.airflow.task_instance(dag_id, run, "image")["state"] == "success"
    assert records == {path: path.read_bytes() for path in system.images.rglob("*") if path.is_file()}
