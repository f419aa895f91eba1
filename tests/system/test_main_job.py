"""The main job on a real Airflow: bought once, stored, recorded, whatever happens to its processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.system.conftest import API_KEY, System

EXAMPLE = "example_bitdance_basic"


def test_the_example_stores_what_it_buys_and_a_clear_buys_nothing(system: System) -> None:
    run = system.airflow.trigger(EXAMPLE)
    assert system.airflow.wait_for_run(EXAMPLE, run) == "success", system.fails(EXAMPLE, run)
    first = system.results(EXAMPLE, run)
    assert len({result["uri"] for result in first}) == 3 == system.billed
    assert sorted(system.images_tab(EXAMPLE, run)) == sorted(result["uri"] for result in first)

    system.airflow.clear(EXAMPLE, run)
    assert system.airflow.wait_for_run(EXAMPLE, run) == "success", system.fails(EXAMPLE, run)
    again = system.results(EXAMPLE, run)
    assert system.billed == 3
    assert [result["reused"] for result in again] == [True, True, True]
    assert {result["sha256"] for result in again} == {result["sha256"] for result in first}
    assert sorted(system.images_tab(EXAMPLE, run)) == sorted(result["uri"] for result in again)


def test_a_task_killed_between_submission_and_storing_is_stored_once_and_billed_once(system: System) -> None:
    system.service.add_fault(on="submit", kind="latency", match="killed", seconds=8, times=1)
    run = system.airflow.trigger("one_image", conf={"prompt": "to be killed while it waits"})
    _until(lambda: system.service.bill().in_flight == 1)
    # The journal says "submitted" a moment after the service has the task.
    _until(lambda: any(system.images.glob(".bitdance/jobs/one_image/*/image/*/*/000002.json")))
    pid = system.airflow.task_pid("one_image", run, "image")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert system.airflow.wait_for_run("one_image", run) == "success", system.fails("one_image", run)
    assert system.airflow.task_instance("one_image", run, "image")["try_number"] == 2
    [result] = system.results("one_image", run)
    assert (system.billed, result["possibly_paid"], result["reused"]) == (1, 0, False)


def test_bad_input_fails_before_any_request_and_without_retry(system: System) -> None:
    asked_before = len(system.service.requests())
    run = system.airflow.trigger("bad_inputs")
    assert system.airflow.wait_for_run("bad_inputs", run) == "failed"
    tasks = system.airflow.task_instances("bad_inputs", run)
    assert len(tasks) == 10
    assert {(task["state"], task["try_number"]) for task in tasks} == {("failed", 1)}
    assert len(system.service.requests()) == asked_before
    for task in tasks:
        log = system.airflow.task_log("bad_inputs", run, task["task_id"])
        assert "Nothing was charged for it." in log, task["task_id"]
        assert "Allowed:" in log, task["task_id"]


def test_neither_key_nor_prompt_nor_output_url_leaves_its_place(system: System) -> None:
    prompt = "a prompt that is no longer than it has to be"
    system.service.add_fault(on="submit", kind="latency", match=prompt, seconds=5, times=1)
    run = system.airflow.trigger("one_deferred", conf={"prompt": prompt})
    system.airflow.wait_for_task("one_deferred", run, "image", ["deferred"])
    with sqlite3.connect(system.airflow.database) as database:
        triggers = str(database.execute("select * from trigger").fetchall())
    database.close()
    assert "bitdance_conn_id" in triggers
    for secret in (API_KEY, prompt, "/outputs/", system.service.url):
        assert secret not in triggers

    assert system.airflow.wait_for_run("one_deferred", run) == "success", system.fails("one_deferred", run)
    assert system.airflow.was_deferred("one_deferred", run, "image")
    assert system.billed == 1
    files = [path for path in system.airflow.home.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    assert any(path.name == "airflow.db" for path in files)
    assert any("receipts" in path.parts for path in files)
    assert [path for path in files if API_KEY.encode() in path.read_bytes()] == []
    logs = [path for path in files if path.suffix == ".log"]
    assert [path for path in logs if b"/outputs/" in path.read_bytes()] == []


@pytest.mark.parametrize("dag_id", ["fifty", "fifty_deferred_at_once"])
def test_fifty_mapped_images_are_stored_and_billed_once(
    system: System, dag_id: str, record_property: pytest.RecordProperty
) -> None:
    chance = random.Random(7)
    for number in range(50):
        seconds = round(chance.uniform(1, 12), 1)
        system.service.add_fault(
            on="submit", kind="latency", match=f"picture {number:02} of", seconds=seconds, times=1
        )
    start = time.monotonic()
    run = system.airflow.trigger(dag_id)
    assert system.airflow.wait_for_run(dag_id, run, timeout=600) == "success", system.fails(dag_id, run)
    seconds = time.monotonic() - start
    results = system.results(dag_id, run)
    assert len({result["uri"] for result in results}) == 50
    assert (system.billed, sum(result["possibly_paid"] for result in results)) == (50, 0)

    tasks = system.airflow.task_instances(dag_id, run)
    deferred = sum(system.airflow.was_deferred(dag_id, run, "image", task["map_index"]) for task in tasks)
    retried = [task["map_index"] for task in tasks if task["try_number"] > 1]
    assert deferred == (50 if dag_id == "fifty_deferred_at_once" else 0)
    # Airflow's own race may cost tries (DESIGN.md 4, decision 3); it must not cost money. Shown by `-rA`.
    print(f"{dag_id}: {seconds:.0f} s, {deferred} deferred, tries lost to Airflow: {len(retried)} {retried}")
    record_property("retried", len(retried))


def _until(there: object, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not there():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_temporary_file_is_left_behind(system: System) -> None:
    assert [path for path in Path(system.images).rglob("*") if path.suffix == ".tmp"] == []
