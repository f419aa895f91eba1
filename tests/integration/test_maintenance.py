"""The command line of maintenance, and its example Dag, against the local service over a real socket.

A worker bought an image an hour ago and died; its Dag run was deleted. The clocks of the service and of the
worker are an hour late, so nothing has to be waited for.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.__main__ import FINDINGS, NOT_RUN, main
from airflow_provider_bitdance.engine import JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings
from tests.builders import API_KEY, connection_to
from tests.integration.test_dag_test import DAG_FILES, run_of
from tests.unit.support import Crash, FakeClock, SteppingFolder, a_job, a_request, a_writer, run

HOUR = 3600.0
PROMPT = "A lighthouse " + "far away " * 20


@dataclass
class Place:
    """A local service, and a disk with images and records."""

    service: LocalService
    path: Path

    @property
    def records(self) -> LocalFolder:
        return LocalFolder(self.path / "records")

    def image(self, dag_id: str, prompt: str = PROMPT, *, dies: str = "") -> None:
        """Run a task's process an hour ago; it may die at a step of its store."""

        def step(name: str) -> None:
            if dies and name == dies:
                raise Crash(name)

        settings = ClientSettings(self.service.api_key, base_url=self.service.url)
        folder = SteppingFolder(self.records, step)
        clock = FakeClock(time.time() - HOUR)
        journal = Journal(folder, a_writer(job=a_job(dag_id=dag_id, run_id="manual__1")))
        wanted = Wanted("image", a_request(prompt, seed=7, size="256*256"), self._address(dag_id))

        async def advanced() -> None:
            async with AsyncClient(settings) as client:
                context = JobContext(
                    client=client,
                    journal=journal,
                    records=folder,
                    images=LocalFolder(self.path / "images"),
                    policy=Policy(),
                    log=logging.getLogger("bitdance.test"),
                    started_at=clock.time(),
                    clock=clock,
                )
                await run_job(context, [wanted])

        if dies:
            with pytest.raises(Crash):
                run(advanced())
        else:
            run(advanced())

    def _address(self, dag_id: str) -> Any:
        return parse_destination(f"{self.path}/images/", default_stem=dag_id)

    @property
    def stored(self) -> set[str]:
        return {file.name for file in (self.path / "images").glob("*.png")}


def program(*arguments: str, code: int = 0) -> Any:
    """Run a command as a program of its own, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_bitdance", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert_discreet(done.stdout + done.stderr)
    return json.loads(done.stdout)


class Shell:
    """Runs commands in this process, which is quicker than programs of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command; return what it prints, or what it says where it could not be run."""
        self._capsys.readouterr()
        try:
            returned = main(arguments)
        except SystemExit as ended:
            returned = int(ended.code or 0)
        out, err = self._capsys.readouterr()
        assert returned == code, err
        assert_discreet(out + err)
        return err if code == NOT_RUN else out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


def assert_discreet(text: str) -> None:
    """No key, no whole prompt, no address of an output."""
    assert not any(secret in text for secret in (API_KEY, PROMPT, "/outputs/"))


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    # main() sets it for the program that it usually is; here it must not outlive the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return Shell(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with running_service(Options(api_key=API_KEY), clock=lambda: time.time() - HOUR) as service:
        connection = connection_to(service, records_path=str(tmp_path / "records"))
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection)
        yield Place(service, tmp_path)


def test_an_image_whose_worker_died_is_collected_and_the_costs_are_those_of_the_service_s_books(
    place: Place,
) -> None:
    place.image("covers")
    place.image("posters", dies="after create 000002")
    assert place.stored == {"covers.png"}

    output = ("--output", str(place.path / "images"))
    due = program("reconcile", "--dry-run", *output)
    done = program("reconcile", *output)
    again = program("reconcile", *output)

    assert [image["outcome"] for image in due["open_images"]] == ["due"]
    assert [image["outcome"] for image in done["open_images"]] == ["stored"]
    assert again["open_images"] == []
    assert place.stored == {"covers.png", "posters.png"}
    bill = place.service.bill()
    assert bill.submitted == bill.billed == 2
    assert done["estimated_usd"] == done["real_usd"] == bill.cost_usd == 0.02
    assert [(cost["dag_id"], cost["real_usd"]) for cost in done["costs"]] == [
        ("covers", 0.01),
        ("posters", 0.01),
    ]
    assert done["unattributed"] == {"predictions": 0, "real_usd": 0.0}
    assert done["untracked"] == done["possibly_paid"] == done["findings"] == []


@pytest.mark.parametrize("is_full", [True, False])
def test_a_result_that_cannot_be_printed_is_no_finding(place: Place, is_full: bool) -> None:
    """A full disk, and a program such as ``head`` that has read enough."""
    place.image("covers")
    reader, pipe = os.pipe()
    os.close(reader)
    with open("/dev/full" if is_full else pipe, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_bitdance", "records", "show"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    if is_full:
        os.close(pipe)

    why = "No space left on device" if is_full else "Broken pipe"
    said = f"python -m airflow_provider_bitdance: the command ran, but its result is not printed: {why}"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (NOT_RUN, said)


def test_what_the_encoding_of_the_output_does_not_have_is_escaped(place: Place) -> None:
    place.image("covers", "ein Café im Regen")

    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_bitdance", "records", "show"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=120,
    )

    assert done.returncode == 0
    assert rb"ein Caf\xe9 im Regen" in done.stdout


def test_a_refund_and_what_others_bought_are_told_apart(place: Place, shell: Shell) -> None:
    place.service.add_fault(on="submit", kind="failed", match="unlucky")
    place.image("unlucky", "an unlucky fox", dies="after create 000002")
    place.image("covers", dies="after create 000001")
    # Another program of the same account.
    with Client(ClientSettings(API_KEY, base_url=place.service.url)) as client:
        client.submit(a_request("of another program", size="256*256"))

    done = shell.json("reconcile", "--output", str(place.path))

    outcomes = {image["job"]["dag_id"]: image["outcome"] for image in done["open_images"]}
    assert outcomes["unlucky"] == "failed"
    bill = place.service.bill()
    assert (done["real_usd"], done["unattributed"]["real_usd"]) == (0.0, 0.01)
    assert done["real_usd"] + done["unattributed"]["real_usd"] == bill.cost_usd
    assert [item["status"] for item in done["untracked"]] == ["completed"]


def test_the_commands_show_for_people_what_they_show_for_programs(place: Place, shell: Shell) -> None:
    place.image("covers")
    place.image("posters", dies="after create 000002")

    shown = shell("reconcile", "--dry-run", code=FINDINGS)
    assert "prediction" in shown
    assert f"--output file://{place.path}/images" in shown
    shown = shell("records", "show", "--dag-id", "posters")
    assert "paid for, not stored" in shown
    assert "covers" not in shown.partition("\n")[2]
    (job,) = shell.json("records", "show", "--dag-id", "covers")["jobs"]
    assert job["images"][0]["uri"] == f"file://{place.path}/images/covers.png"
    assert "may be read: add --output" in shell("records", "verify", code=FINDINGS)
    assert "0 findings" in shell("records", "verify", "--output", f"{place.path}/images")


def test_a_file_that_was_changed_is_found_and_the_exit_code_says_so(place: Place, shell: Shell) -> None:
    place.image("covers")
    with (place.path / "images" / "covers.png").open("ab") as file:
        file.write(b"!")

    output = ("--output", f"{place.path}/images")
    (finding,) = shell.json("records", "verify", *output, code=1)["findings"]

    assert finding["uri"].endswith("/images/covers.png")
    assert "bytes; it had" in finding["what"]


def test_what_cannot_be_run_is_told_with_what_to_do(
    place: Place, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(place.path / "records")

    assert "usage" in shell("records", code=NOT_RUN)
    assert "ISO date" in shell("reconcile", "--since", "yesterday", code=NOT_RUN)
    assert "not an absolute path" in shell("records", "show", "--records-path", "x", code=NOT_RUN)
    assert "nowhere" in shell("reconcile", "--conn-id", "nowhere", "--records-path", path, code=NOT_RUN)
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(place.service))
    assert "--records-path" in shell("reconcile", code=NOT_RUN)
    assert "0 jobs" in shell("records", "verify", "--conn-id", "nowhere", "--records-path", path)


@pytest.mark.usefixtures("airflow_db")
def test_a_connection_in_airflow_s_database_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.image("covers")
    connection = os.environ["AIRFLOW_CONN_BITDANCE_DEFAULT"]
    add = ["connections", "add", "stored_one", "--conn-json", connection]
    subprocess.run([sys.executable, "-m", "airflow", *add], check=True, capture_output=True)
    monkeypatch.delenv("AIRFLOW_CONN_BITDANCE_DEFAULT")

    assert program("reconcile", "--conn-id", "stored_one")["jobs"] == 1


@pytest.mark.usefixtures("airflow_db")
def test_the_maintenance_dag_collects_and_returns_the_report(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.image("posters", dies="after create 000002")
    monkeypatch.syspath_prepend(str(DAG_FILES))
    monkeypatch.setenv("BITDANCE_OUTPUT_PATH", str(place.path))
    example = importlib.reload(importlib.import_module("example_bitdance_maintenance"))

    finished = run_of(example.example_bitdance_maintenance())

    (task,) = finished.get_task_instances()
    report = task.xcom_pull(task_ids=task.task_id)
    assert [image["outcome"] for image in report["open_images"]] == ["stored"]
    assert report["real_usd"] == place.service.bill().cost_usd == 0.01
    assert place.stored == {"posters.png"}
