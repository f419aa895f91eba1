"""What runs again on a real Airflow, each with an account of its own: the bill says how often it was bought.

All of it runs at the same time, for it waits more than it works.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from demo.real_airflow import RealAirflow
from tests.system.conftest import API_KEY, System

Scenario = Callable[[System], None]
SCENARIOS: list[Scenario] = []


def at_once(scenario: Scenario) -> Callable[[dict[str, Future[None]]], None]:
    """Play a test at the same time as the others that are wanted; what pytest calls waits for its end."""
    SCENARIOS.append(scenario)

    def wait(playing: dict[str, Future[None]]) -> None:
        playing[scenario.__name__].result()

    return wait


@pytest.fixture(scope="module")
def playing(
    running: tuple[RealAirflow, LocalService, Path], request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[None]]]:
    airflow, _, images = running
    wanted = {item.name for item in request.session.items}
    scenarios = {each.__name__: each for each in SCENARIOS if each.__name__ in wanted}

    def play(name: str) -> None:
        with running_service(Options(api_key=API_KEY, latency=1.0)) as service:
            account = {"conn_type": "bitdance", "host": service.url, "password": API_KEY}
            airflow.post("/connections", {"connection_id": name, **account})
            scenarios[name](System(airflow, service, images, name))

    with ThreadPoolExecutor(len(scenarios)) as pool:
        yield {name: pool.submit(play, name) for name in scenarios}


def finished(system: System, dag_id: str, run: str) -> dict[str, Any]:
    """Wait for a run's success, and return the result of its image, checked."""
    assert system.airflow.wait_for_run(dag_id, run) == "success", system.fails(dag_id, run)
    results = system.results(dag_id, run)
    return results[-1]


def deferred(system: System, dag_id: str, prompt: str, **conf: str) -> str:
    """Start a run whose image takes a while, and wait until it is deferred."""
    system.service.add_fault(on="submit", kind="latency", match=prompt, seconds=20, times=1)
    run = system.trigger(dag_id, **conf)
    system.airflow.wait_for_task(dag_id, run, "image", ["deferred"])
    return run


@at_once
def test_a_clear_while_deferred_waits_for_the_same_prediction(system: System) -> None:
    run = deferred(system, "of_a_variable", "a cat")
    system.airflow.clear("of_a_variable", run)
    result = finished(system, "of_a_variable", run)
    assert (system.billed, result["reused"], result["possibly_paid"]) == (1, False, 0)


@at_once
def test_a_clear_while_deferred_buys_another_prompt_and_names_what_stays_collectable(system: System) -> None:
    run = deferred(system, "of_the_moment", "at 2")
    system.airflow.clear("of_the_moment", run)
    finished(system, "of_the_moment", run)
    assert system.billed == 2
    # From the disk: below 3.4 Airflow may take the resume for killed, and then its API forgets the try.
    files = system.airflow.task_log_files("of_the_moment", run, "image")
    log = "\n".join(file.read_text() for file in files)
    assert "stay collectable for 7 days" in log
    assert system.service.predictions()[-2]["id"] in log


@at_once
def test_a_prompt_of_the_moment_is_bought_as_it_was_planned(system: System) -> None:
    run = deferred(system, "of_the_moment", "at 2")
    finished(system, "of_the_moment", run)
    assert system.billed == 1


@at_once
def test_a_variable_that_changes_while_deferred_changes_nothing(system: System) -> None:
    run = deferred(system, "of_a_variable", "a cat", variable="subject_that_changes")
    system.airflow.post("/variables", {"key": "subject_that_changes", "value": "dog"})
    finished(system, "of_a_variable", run)
    assert system.billed == 1
    prompts = [made["prompt"] for made in system.service.predictions()]
    assert prompts[-1] == "a cat"


@at_once
def test_an_upstream_that_is_cleared_while_deferred_changes_nothing(system: System) -> None:
    run = deferred(system, "of_an_upstream", "an upstream")
    system.airflow.clear("of_an_upstream", run, ["subject"])
    assert system.airflow.wait_for_run("of_an_upstream", run) == "success"
    assert system.airflow.task_instance("of_an_upstream", run, "subject")["try_number"] == 2
    assert system.billed == 1


@at_once
def test_a_clear_after_success_buys_anew_only_where_it_is_asked_to(system: System) -> None:
    run = system.trigger("regenerated")
    first = finished(system, "regenerated", run)
    system.airflow.clear("regenerated", run)
    second = finished(system, "regenerated", run)
    assert system.billed == 2
    assert (second["reused"], second["uri"]) == (False, first["uri"])
    assert second["prediction_id"] != first["prediction_id"]


@at_once
def test_a_second_run_and_a_second_dag_at_one_address_reuse_and_another_prompt_replaces(
    system: System,
) -> None:
    first = finished(system, "named", system.trigger("named"))
    run = system.trigger("named_twin")
    twin = finished(system, "named_twin", run)
    assert system.billed == 1
    assert (twin["reused"], twin["prediction_id"]) == (True, first["prediction_id"])
    assert "Reusing" in system.airflow.task_log("named_twin", run, "image")

    other = finished(system, "named", system.trigger("named", prompt="another cover"))
    assert (system.billed, other["reused"], other["uri"]) == (2, False, first["uri"])


@at_once
def test_two_dags_at_one_address_at_once_buy_one_image(system: System) -> None:
    system.service.add_fault(on="submit", kind="latency", match="at once", seconds=8, times=2)
    conf = {"prompt": "at once", "name": "at-once"}
    runs = [(dag_id, system.trigger(dag_id, **conf)) for dag_id in ("named", "named_twin")]
    results = [finished(system, dag_id, run) for dag_id, run in runs]
    assert system.billed == 1
    assert sorted(result["reused"] for result in results) == [False, True]


@at_once
def test_another_image_for_an_address_that_is_being_made_is_refused_with_both_names(system: System) -> None:
    system.service.add_fault(on="submit", kind="latency", match="slow cover", seconds=30, times=1)
    first = system.trigger("named", prompt="slow cover", name="contested")
    deadline = time.monotonic() + 120
    while system.billed == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = system.trigger("named_twin", prompt="quick cover", name="contested")
    assert system.airflow.wait_for_run("named_twin", second) == "failed"
    log = system.airflow.task_log("named_twin", second, "image")
    assert "named.image of run" in log
    assert "named_twin.image of run" in log
    assert system.airflow.task_instance("named_twin", second, "image")["try_number"] == 1
    finished(system, "named", first)
    assert system.billed == 1


@at_once
def test_a_backfill_of_a_day_that_is_done_reuses_its_image(system: System) -> None:
    def backfill(after_try: int, **options: Any) -> tuple[int, dict[str, Any]]:
        """Return the try that made the result: a busy machine may lose one before it begins."""
        body = {"dag_id": "daily", "from_date": "2026-03-01", "to_date": "2026-03-01", **options}
        system.airflow.post("/backfills", body | {"dag_run_conf": {"conn_id": system.conn_id}})
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline
            time.sleep(0.5)
            backfills = system.airflow.get("/backfills", dag_id="daily")["backfills"]
            [run] = system.airflow.get("/dags/daily/dagRuns")["dag_runs"] or [{"state": "not yet"}]
            if run["state"] == "success" and all(each["completed_at"] for each in backfills):
                task = system.airflow.task_instance("daily", run["dag_run_id"], "image")
                assert task["try_number"] > after_try, "the task did not run again"
                return task["try_number"], system.results("daily", run["dag_run_id"])[0]

    tries, first = backfill(0)
    _, again = backfill(tries, reprocess_behavior="completed")
    assert (system.billed, first["possibly_paid"], again["possibly_paid"]) == (1, 0, 0)
    assert (first["reused"], again["reused"]) == (False, True)


@at_once
def test_a_machine_that_slept_after_the_intent_buys_nothing_when_it_wakes_up(system: System) -> None:
    folder = system.images / "sleeper"
    run = system.trigger("sleeper")
    assert system.airflow.wait_for_run("sleeper", run) == "success", system.fails("sleeper", run)
    before = Path(folder, "pids").read_text()
    task_pid, supervisor_pid = map(int, before.split())
    records = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for pid in (supervisor_pid, task_pid):
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while task_pid in [process.pid for process in system.airflow.task_processes()]:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    (result,) = system.results("sleeper", run)
    # The account's history had nothing of the intent that it left, which proves nothing yet.
    assert (system.billed, result["possibly_paid"]) == (1, 1)
    assert system.airflow.task_instance("sleeper", run, "image")["state"] == "success"
    assert records == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
