"""The table of faults: what happens to the images of each row, and what its rules are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_bitdance.maintenance.jobs import read_records
from demo.real_airflow import RealAirflow
from tests.chaos.scene import DAG_ID, Outcome, Run, Scene
from tests.chaos.stage import API_KEY, ServiceProcess

Act = Callable[[Scene], None]
SECOND = "second triggerer"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    :ivar act: Asks for images, lets the fault happen to each, makes sure that it did, and waits for the end.
    :ivar asked: How many images, and how.
    :ivar latency: Seconds that an image takes.
    :ivar echo: Whether the account's history shows what was asked.
    :ivar pays_possibly: A purchase may be lost here: no echo.
    :ivar alone: It kills what the other rows need.
    """

    name: str
    act: Act
    asked: str
    latency: float = 1.0
    echo: bool = False
    pays_possibly: bool = False
    killable: bool = False
    alone: bool = False

    def play(self, airflow: RealAirflow, folder: Path) -> Outcome:
        """Play it, and count what came of it."""
        scene = Scene.of(
            airflow,
            self.name,
            folder,
            latency=self.latency,
            echo=self.echo,
            killable=self.killable,
        )
        started = time.monotonic()
        try:
            self.act(scene)
            return scene.outcome(time.monotonic() - started)
        finally:
            scene.service.stop()

    def broken_rules(self, outcome: Outcome) -> list[str]:
        """Say which rules do not hold."""
        rules = {
            "stored = asked": outcome.stored == outcome.asked,
            "no wrong picture": outcome.wrong == 0,
            "billed <= asked + possibly paid": outcome.billed <= outcome.asked + outcome.possibly_paid,
            "possibly paid = 0": outcome.possibly_paid == 0 or self.pays_possibly,
        }
        return [rule for rule, holds in rules.items() if not holds]


def killed(point: str, *, worker: int = 2, deferred: int = 0, named: bool = False) -> Act:
    """Kill the process of each task, once, at a point."""

    def act(scene: Scene) -> None:
        runs = scene.ask(worker, kill_at=point, named=named)
        runs += scene.ask(deferred, kill_at=point, deferrable=True)
        scene.finish()
        scene.check_killed(runs)

    return act


def clear_while_deferred(scene: Scene) -> None:
    runs = scene.ask(3, deferrable=True)
    scene.until_deferred(runs)
    scene.clear(runs)
    scene.finish()


def clear_after_success(scene: Scene) -> None:
    runs = scene.ask(3)
    scene.finish()
    first = [scene.result(run) for run in runs]
    scene.clear(runs)
    scene.finish()
    for before, after in zip(first, map(scene.result, runs), strict=True):
        assert (before["reused"], after["reused"]) == (False, True)
        assert before["sha256"] == after["sha256"]


def mark_failed(scene: Scene) -> None:
    runs = scene.ask(3, deferrable=True)
    scene.until_deferred(runs)
    scene.mark_failed(runs)
    for run in runs:
        assert scene.airflow.wait_for_run(DAG_ID, run.run_id) == "failed"
    scene.clear(runs)
    scene.finish()


def delete_and_run_again(scene: Scene) -> None:
    runs = scene.ask(3, deferrable=True)
    scene.until_deferred(runs)
    scene.delete(runs)
    for run in runs:
        scene.start(run, deferrable=True)
    scene.finish()


def delete_and_reconcile(scene: Scene) -> None:
    deleted = scene.ask(2, deferrable=True)
    scene.until_deferred(deleted)
    scene.delete(deleted)
    scene.finish(scene.ask(2))
    scene.until(lambda: scene.bill()["in_flight"] == 0, "the predictions to end")
    env = dict(os.environ) | {
        "AIRFLOW_CONN_CHAOS": json.dumps(
            {"conn_type": "bitdance", "host": scene.service.url, "password": API_KEY}
        )
    }
    command = [sys.executable, "-m", "airflow_provider_bitdance", "reconcile", "--all", "--json"]
    command += ["--conn-id", "chaos", "--records-path", scene.records.uri]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    collected = [image["outcome"] for image in json.loads(done.stdout)["open_images"]]
    assert collected == ["stored"] * len(deleted), collected


def triggerer_ends(sig: signal.Signals) -> Act:
    def act(scene: Scene) -> None:
        runs = scene.ask(3, deferrable=True)
        scene.until_deferred(runs)
        scene.airflow.kill("triggerer", sig)
        if sig == signal.SIGTERM:
            scene.airflow.end("triggerer", grace=30)  # it tidies up; wait for that
        scene.airflow.restart("triggerer")
        scene.finish()

    return act


def triggerer_sleeps(scene: Scene) -> None:
    runs = scene.ask(3, deferrable=True)
    scene.until_deferred(runs)
    scene.until(lambda: all(_triggerer(scene, run) for run in runs), "the triggers to have a triggerer")
    first = {_triggerer(scene, run) for run in runs}
    frozen = scene.airflow.processes_of("triggerer")
    scene.airflow.add_triggerer(SECOND)
    try:
        _signal(frozen, signal.SIGSTOP)
        try:
            scene.until(
                lambda: all(_has_left(scene, run, first) for run in runs), "the second triggerer to take over"
            )
        finally:
            _signal(frozen, signal.SIGCONT)
        scene.finish()
    finally:
        scene.airflow.end(SECOND)


def _triggerer(scene: Scene, run: Run) -> int | None:
    job = scene.task(run)["triggerer_job"]
    return job["id"] if job else None


def _has_left(scene: Scene, run: Run, first: set[int | None]) -> bool:
    return _triggerer(scene, run) not in {*first, None}


def scheduler_dies(scene: Scene) -> None:
    runs = scene.ask(2) + scene.ask(2, deferrable=True)
    scene.until_submitted(runs)
    scene.airflow.kill("scheduler")
    scene.airflow.restart("scheduler")
    scene.finish()


def api_server_restarts(scene: Scene) -> None:
    runs = scene.ask(2) + scene.ask(2, deferrable=True)
    scene.until_submitted(runs)
    scene.airflow.restart("api-server")
    scene.finish()


def deferral_times_out(scene: Scene) -> None:
    # Not sooner: a deferral of a few seconds meets a race of Airflow's own (apache/airflow#71580).
    runs = scene.ask(2, deferrable=True, defer_timeout=12)
    scene.finish()
    assert all(scene.task(run)["try_number"] == 2 for run in runs)


def task_sleeps(scene: Scene) -> None:
    runs = scene.ask(2)
    scene.until_submitted(runs)
    frozen = [pid for run in runs for pid in scene.task_and_supervisor(run)]
    _signal(frozen, signal.SIGSTOP)
    try:
        scene.finish()
        stored = {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    finally:
        _signal(reversed(frozen), signal.SIGCONT)
    scene.until(
        lambda: not {task.pid for task in scene.airflow.task_processes()} & set(frozen), "the sleepers to end"
    )
    assert stored == {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    assert all(scene.task(run)["try_number"] == 2 for run in runs)


def service_dies(scene: Scene) -> None:
    assert isinstance(scene.service, ServiceProcess)
    runs = scene.ask(2) + scene.ask(2, deferrable=True)
    scene.until_submitted(runs)
    scene.service.kill()
    assert not read_records(scene.records).receipts, "an image was stored before the service was killed"
    time.sleep(5)  # so long nobody answers: several looks fail
    scene.service.start()
    scene.finish()


def _signal(pids: Iterable[int], sig: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, sig)


NAMED = "2 in the worker, each under a name of the user's: there the claim is an entry of its own"
WORKER = "2 in the worker"
BOTH = "2 in the worker, 2 deferred"
SHOWN = "the account's history shows inputs"
SENT = "request sent, answer not read"

ROWS = [
    Row("claim written", killed("claim written", named=True), NAMED),
    Row("intent written · echo", killed("intent written"), f"{WORKER}; {SHOWN}", echo=True),
    Row(
        "intent written · no echo",
        killed("intent written", worker=1),
        "1 in the worker: nobody else buys with this account meanwhile",
    ),
    Row(f"{SENT} · echo", killed(SENT), f"{WORKER}; {SHOWN}", echo=True),
    Row(f"{SENT} · no echo", killed(SENT), f"{WORKER}; the history shows no inputs", pays_possibly=True),
    Row(
        "answer read, not recorded",
        killed("answer read, not recorded"),
        f"{WORKER}; {SHOWN}",
        echo=True,
    ),
    Row("submitted", killed("submitted", deferred=2), BOTH),
    Row("deferred", killed("deferred", worker=0, deferred=3), "3 deferred", latency=8.0),
    Row("event received", killed("event received", worker=0, deferred=3), "3 deferred"),
    Row("half a download", killed("half a download", deferred=2), BOTH),
    Row("file written, receipt not", killed("file written, receipt not", deferred=2), BOTH),
    Row("receipt written, not settled", killed("receipt written, not settled", deferred=2), BOTH),
    Row("settled, XCom not pushed", killed("settled, XCom not pushed", deferred=2), BOTH),
    Row("clear while deferred", clear_while_deferred, "3 deferred, each cleared once", latency=20.0),
    Row("clear after success", clear_after_success, "3, each cleared once: reused, nothing is bought"),
    Row("mark failed while deferred, then clear", mark_failed, "3 deferred", latency=20.0),
    Row("Dag run deleted, made again with its id", delete_and_run_again, "3 deferred", latency=20.0),
    Row(
        "Dag run deleted, another run, reconcile",
        delete_and_reconcile,
        "2 deferred and deleted, which `reconcile` collects, and 2 of other runs",
        latency=15.0,
    ),
    Row("deferral time-out", deferral_times_out, "2 deferred, for 12 s at most", latency=40.0),
    Row("task SIGSTOP past its heartbeat, SIGCONT", task_sleeps, "2 in the worker", latency=15.0),
    Row("service SIGKILL, restarted", service_dies, BOTH, latency=20.0, killable=True),
    Row("triggerer SIGTERM", triggerer_ends(signal.SIGTERM), "3 deferred", latency=20.0, alone=True),
    Row("triggerer SIGKILL", triggerer_ends(signal.SIGKILL), "3 deferred", latency=20.0, alone=True),
    Row("triggerer SIGSTOP, take-over, SIGCONT", triggerer_sleeps, "3 deferred", latency=60.0, alone=True),
    Row("scheduler SIGKILL, restarted", scheduler_dies, BOTH, latency=20.0, alone=True),
    Row("api-server restarted", api_server_restarts, BOTH, latency=20.0, alone=True),
]
