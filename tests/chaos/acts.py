"""The acts: how images are asked for, what then happens to them, and that it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from airflow_provider_bitdance.maintenance.scan import read_records
from airflow_provider_bitdance.operators.previews import DEFAULT_PREVIEWS
from tests.chaos.scene import Run, Scene
from tests.chaos.stage import API_KEY, PATIENCE, ServiceProcess

Act = Callable[[Scene], None]
SECOND = "second triggerer"
BATCH = 40
"""Images of a batch."""


def killed(
    *points: str, worker: int = 2, deferred: int = 0, images: int = 1, named: bool = False, style: str = ""
) -> Act:
    """Kill the process of each task, once at each point.

    :param style: In which prompts are enhanced.
    """

    def act(scene: Scene) -> None:
        runs = scene.ask(worker, images=images, kill_at=points, named=named, style=style)
        runs += scene.ask(deferred, images=images, kill_at=points, deferrable=True, style=style)
        scene.finish()
        scene.check_killed(runs, points)

    return act


def the_same_batch_twice(scene: Scene) -> None:
    """The second waits for what the first makes, and ends with it."""
    first, second = scene.ask_twice(BATCH)
    scene.finish()
    late = scene.ended_at(second) - scene.ended_at(first)
    assert late <= 5, f"the second ended {late:.1f} s after the first"
    records, images = scene.files_read(second)
    assert records <= 2 * BATCH, f"the second read {records} records"
    # Each once to compare it with its receipt, and some to show them in Airflow's UI.
    assert images <= BATCH + DEFAULT_PREVIEWS, f"the second read {images} images"
    reused = scene.result(second)["reused"]
    assert 0 < reused <= BATCH, f"the second reused {reused}"
    assert f"{BATCH}/{BATCH} stored" in scene.log(second)


def the_same_batch_twice_and_the_first_dies(scene: Scene) -> None:
    """The second waits until the first one's lease ends, adopts what it has bought, and stores it."""
    first, second = scene.ask_twice(BATCH, kill_first_at=["all submitted"], timeout=30, in_flight=BATCH)
    state = scene.airflow.wait_for_run(first.dag_id, first.run_id, timeout=PATIENCE)
    assert state == "failed", f"the first ended as {state}"
    scene.finish([second])
    scene.check_killed([first], ["all submitted"])
    assert scene.result(second)["stored"] == BATCH


def clear_while_deferred(runs: int = 3, images: int = 1) -> Act:
    def act(scene: Scene) -> None:
        asked = scene.ask(runs, images=images, deferrable=True)
        scene.until_deferred(asked)
        scene.clear(asked)
        scene.finish()

    return act


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
        assert scene.airflow.wait_for_run(run.dag_id, run.run_id) == "failed"
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
    command += ["--output", str(scene.folder / "images")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    collected = [image["outcome"] for image in json.loads(done.stdout)["open_images"]]
    assert collected == ["stored"] * len(deleted), collected


def triggerer_ends(sig: signal.Signals, runs: int = 3, images: int = 1) -> Act:
    def act(scene: Scene) -> None:
        scene.until_deferred(scene.ask(runs, images=images, deferrable=True))
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
        stored = _files(scene)
    finally:
        _signal(reversed(frozen), signal.SIGCONT)
    scene.until(
        lambda: not {task.pid for task in scene.airflow.task_processes()} & set(frozen), "the sleepers to end"
    )
    now = _files(scene)
    changed = [str(path) for path in sorted(stored.keys() | now.keys()) if stored.get(path) != now.get(path)]
    assert not changed, f"a sleeper that came back changed {changed}"
    assert not list(scene.folder.rglob("*.tmp")), "a sleeper that came back left a temporary file"
    assert all(scene.task(run)["try_number"] == 2 for run in runs)


def _files(scene: Scene) -> dict[Path, bytes]:
    """Return every file but the temporary one that a process may have been stopped beside, in mid-write."""
    files = (path for path in scene.folder.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {path: path.read_bytes() for path in files}


def service_dies(scene: Scene) -> None:
    scene.until_submitted(scene.ask(2) + scene.ask(2, deferrable=True))
    stored = _restart_service(scene)
    assert not stored, "an image was stored before the service was killed"
    scene.finish()


def service_dies_within_a_batch(scene: Scene) -> None:
    scene.ask(1, images=BATCH)
    scene.until_stored(BATCH // 4)
    stored = _restart_service(scene)
    assert stored < BATCH, "all were stored before the service was killed"
    scene.finish()


def _restart_service(scene: Scene) -> int:
    """Kill the service and start it again; return how many images were stored before."""
    assert isinstance(scene.service, ServiceProcess)
    scene.service.kill()
    stored = len(read_records(scene.records).receipts)
    time.sleep(5)  # so long nobody answers: several polls fail
    scene.service.start()
    return stored


def _signal(pids: Iterable[int], sig: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, sig)
