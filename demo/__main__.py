"""`python -m demo`: a real Airflow runs an example Dag, stores its images, and shows what they cost.

Read `_run` for the story. `RealAirflow` and `LocalService` can be used on their own, the system tests do.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from .airflow_rest import Json
from .examples import ASKS_A_PERSON, EXAMPLES, STARTED_BY_AN_ASSET, Example
from .progress import Progress
from .real_airflow import RealAirflow
from .results import DemoFailed, Stored, TaskRun, images_of, result_of, tasks_of
from .service import Bill, LocalService, RealService, connection
from .web import Web, web_server

# Longer than the operator's defer_after of 15 s, so that this one is waited for in the triggerer.
SLOW_PROMPT, SLOW_SECONDS = "lighthouse", 30

IMAGES_TAB = "bitdance-dag-run"
"""How the provider's plugin calls the tab of a run in its URL."""

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
MARKER = "made-by-make-demo"

ABOUT = """\
Runs a real Airflow in .demo/, lets an example Dag buy and store its images, and prints files, URLs and bill.
The images come from a local service and cost nothing. With WAVESPEED_API_KEY set they come from the real
API and cost about $0.01 each. In a terminal Airflow's UI stays up until Ctrl-C."""


def main() -> int:
    """Run the demo and return its exit code: 0 only if all images are stored, open, and are on the bill."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("example", nargs="?", choices=EXAMPLES, default="basic", help="default: basic")
    parser.add_argument(
        "--keep", action="store_true", help="keep Airflow up until Ctrl-C even without a terminal"
    )
    arguments = parser.parse_args()
    keep = arguments.keep or (sys.stdin.isatty() and sys.stdout.isatty())
    example = EXAMPLES[arguments.example]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _fresh_home(HOME), _service(example) as service, web_server(HOME / "images") as web:
            _run(example, service, web, keep=keep)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"\nThe demo failed. {error}\nAll log files are in {HOME}", file=sys.stderr, flush=True)
        return 1
    return 0


def _run(example: Example, service: RealService | LocalService, web: Web, *, keep: bool) -> None:
    folder = HOME / "dags"
    folder.mkdir()
    example.copy_to(folder)
    env = {
        "AIRFLOW_CONN_BITDANCE_DEFAULT": connection(service),
        "AIRFLOW__BITDANCE__RECORDS_PATH": f"file://{HOME / 'records'}",
        "BITDANCE_OUTPUT_PATH": f"file://{HOME / 'images'}/",
        "BITDANCE_WEB_ADDRESS": web.url,
        "BITDANCE_DATABASE": str(HOME / "shop.db"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    print(f"Starting Airflow in {HOME} (20 to 60 seconds) …", flush=True)
    started = time.monotonic()
    with RealAirflow(HOME, dags_folder=folder, env=env) as airflow:
        print(f"Airflow is ready after {time.monotonic() - started:.0f} s: {airflow.url}", flush=True)
        tasks: list[TaskRun] = []
        for dag_id in example.dag_ids:
            tasks += _finished(airflow, dag_id, service, example.timeout)
            if _unfinished(tasks):
                break
        images = [image for task in tasks for image in images_of(airflow, task)]
        _report(airflow, web, tasks, images, service.bill())
        _check(airflow, example, tasks, images, service.bill())
        if keep:
            _keep_up(airflow, tasks, images)
        print("Stopping Airflow …", flush=True)
    print("Done. Nothing is left running.", flush=True)


def _finished(
    airflow: RealAirflow, dag_id: str, service: RealService | LocalService, timeout: float
) -> list[TaskRun]:
    """Run a Dag and return its tasks."""
    run_id = _started(airflow, dag_id)
    print(f"Running Dag {dag_id}, {airflow.url}/dags/{dag_id}/runs/{run_id}", flush=True)
    asked: set[str] = set()
    with Progress() as progress:

        def look() -> None:
            tasks = tasks_of(airflow, dag_id, run_id)
            for task in tasks:
                if _asks(task) and task.name not in asked:
                    asked.add(task.name)
                    path = f"runs/{run_id}/tasks/{task.task_id}/required_actions"
                    progress.say(f"Waiting for your decision: {airflow.url}/dags/{dag_id}/{path}")
            progress.show({task.name: task.state for task in tasks}, service.bill())

        airflow.wait_for_run(dag_id, run_id, timeout, on_poll=look)
        look()
    return tasks_of(airflow, dag_id, run_id)


def _started(airflow: RealAirflow, dag_id: str) -> str:
    """Start a run of today, where the Dag does not start by itself; return the run's id."""
    if dag_id in STARTED_BY_AN_ASSET:
        return airflow.wait_for_new_run(dag_id)
    run_id = airflow.trigger(dag_id, logical_date=f"{datetime.now(UTC):%Y-%m-%d}T00:00:00Z")
    # Afterwards: for a day that has a run, a schedule makes no other.
    airflow.unpause(dag_id)
    return run_id


def _asks(task: TaskRun) -> bool:
    return task.operator in ASKS_A_PERSON and task.state in ("awaiting_input", "deferred")


def _report(
    airflow: RealAirflow, web: Web, tasks: list[TaskRun], images: list[Stored], bill: Bill | None
) -> None:
    if images:
        print("\nStored (URLs work while the demo runs):")
    for image in images:
        waited = "deferred, then stored" if image.deferred else "not deferred"
        print(f"  {image.path}\n      {web.url_of(image.path)}")
        print(f"      {image.size}, {image.bytes:,} bytes · task {image.task.name}: {waited}")
    for task in tasks:
        if isinstance(result := result_of(airflow, task), str):
            print(f"Result of task {task.name}: {result}")
    estimate = f"{len(images)} images, about ${sum(image.dollars for image in images):.2f} (estimated)"
    print(f"Bill: {bill or estimate}\n", flush=True)


def _check(
    airflow: RealAirflow, example: Example, tasks: list[TaskRun], images: list[Stored], bill: Bill | None
) -> None:
    """Raise `DemoFailed` unless all images were stored and each was bought once."""
    if unfinished := _unfinished(tasks):
        raise DemoFailed("\n".join(_why(airflow, task) for task in unfinished))
    refused = any(task.state == "skipped" for task in tasks)
    if len(images) != example.images and not refused:
        raise DemoFailed(f"Stored {len(images)} images instead of {example.images}.")
    if bill is not None and bill.images != len(images):
        raise DemoFailed(f"{bill} but {len(images)} stored.")


def _unfinished(tasks: list[TaskRun]) -> list[TaskRun]:
    return [task for task in tasks if task.state not in ("success", "skipped")]


def _why(airflow: RealAirflow, task: TaskRun) -> str:
    """One task's state, its last log file and the last error in it."""
    files = airflow.task_log_files(*task.path)
    if not files:
        return f"Task {task.name} is {task.state} and has no log; see {airflow.log_folder}"
    causes: list[Json] = []
    for line in files[-1].read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            causes += json.loads(line).get("error_detail") or []
    cause = f"\n    {causes[-1]['exc_type']}: {causes[-1]['exc_value']}" if causes else ""
    return f"Task {task.name} is {task.state}.{cause}\n    Log file: {files[-1]}"


def _keep_up(airflow: RealAirflow, tasks: list[TaskRun], images: list[Stored]) -> None:
    print(f"Airflow stays up: {_run_page(airflow, tasks[0])}")
    for page in dict.fromkeys(_run_page(airflow, image.task) for image in images):
        print(f"The Images tab: {page}/plugin/{IMAGES_TAB}")
    print("No login is needed, everyone on this machine is admin. Ctrl-C stops everything.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            airflow.check()
            time.sleep(1)
    print()


def _run_page(airflow: RealAirflow, task: TaskRun) -> str:
    return f"{airflow.url}/dags/{task.dag_id}/runs/{quote(task.run_id)}"


@contextlib.contextmanager
def _service(example: Example) -> Iterator[RealService | LocalService]:
    if api_key := os.environ.get("WAVESPEED_API_KEY"):
        count = example.images
        print(
            f"WAVESPEED_API_KEY is set: {count} images from the real API, about ${count / 100:.2f}.",
            flush=True,
        )
        yield RealService(api_key)
        return
    service = LocalService(HOME)
    try:
        service.start()
        service.slow_down(SLOW_PROMPT, SLOW_SECONDS)
        print(f"Local service on {service.url}: play money, no key needed.", flush=True)
        yield service
    finally:
        service.stop()


@contextlib.contextmanager
def _fresh_home(home: Path) -> Iterator[None]:
    """Empty the demo's folder and hold it; refuses a folder that is not ours, or in use by another demo."""
    marker = home / MARKER
    if home.is_symlink() or (home.exists() and not marker.exists() and any(home.iterdir())):
        raise DemoFailed(f"{home} was not created by the demo. Move it away.")
    home.mkdir(exist_ok=True)
    with marker.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoFailed(f"Another demo is running in {home}.") from None
        for entry in home.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != marker:
                entry.unlink()
        yield


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
