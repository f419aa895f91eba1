"""`python -m demo`: a real Airflow buys three images, stores them, and shows what they cost.

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
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from PIL import Image

from .airflow_rest import Json
from .progress import Progress
from .real_airflow import RealAirflow
from .service import Bill, LocalService, RealService, connection

DAG_ID = "example_bitdance_basic"
IMAGES = 3
# Longer than the operator's defer_after of 20 s, so that this one is waited for in the triggerer.
SLOW_PROMPT, SLOW_SECONDS = "lighthouse", 30
RUN_TIMEOUT = 600

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
MARKER = "made-by-make-demo"

ABOUT = """\
Runs a real Airflow in .demo/, lets one example Dag buy and store three images, and prints files and bill.
The images come from a local service and cost nothing. With WAVESPEED_API_KEY set they come from the real
API and cost about $0.03. In a terminal Airflow's UI stays up until Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One image as the Dag reported it and as Pillow found it."""

    task_id: str
    path: Path
    size: str
    bytes: int
    dollars: float
    deferred: bool


class DemoFailed(RuntimeError):
    """The demo did not end with three images; the message says why and names the log file."""


def main() -> int:
    """Run the demo and return its exit code: 0 only if three images are stored, open, and are on the bill."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep Airflow up until Ctrl-C even without a terminal"
    )
    keep = parser.parse_args().keep or (sys.stdin.isatty() and sys.stdout.isatty())
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _fresh_home(HOME), _service() as service:
            _run(service, keep=keep)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"\nThe demo failed. {error}\nAll log files are in {HOME}", file=sys.stderr, flush=True)
        return 1
    return 0


def _run(service: RealService | LocalService, *, keep: bool) -> None:
    folder = HOME / "dags"
    folder.mkdir()
    # A copy of this one: the other examples are not to run, or to cost, by themselves.
    shutil.copy(ROOT / "example_dags" / f"{DAG_ID}.py", folder)
    env = {
        "AIRFLOW_CONN_BITDANCE_DEFAULT": connection(service),
        "BITDANCE_OUTPUT_PATH": f"file://{HOME / 'images'}/",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    print(f"Starting Airflow in {HOME} (20 to 60 seconds) …", flush=True)
    started = time.monotonic()
    with RealAirflow(HOME, dags_folder=folder, env=env) as airflow:
        print(f"Airflow is ready after {time.monotonic() - started:.0f} s: {airflow.url}", flush=True)
        run_id = airflow.trigger(DAG_ID)
        print(f"Running Dag {DAG_ID}, {airflow.url}/dags/{DAG_ID}/runs/{run_id}", flush=True)
        state = _watch(airflow, run_id, service)
        images = _collect(airflow, run_id) if state == "success" else []
        _report(images, service.bill())
        _check(airflow, run_id, images, service.bill())
        if keep:
            _keep_up(airflow, run_id)
        print("Stopping Airflow …", flush=True)
    print("Done. Nothing is left running.", flush=True)


def _watch(airflow: RealAirflow, run_id: str, service: RealService | LocalService) -> str:
    with Progress() as progress:

        def look() -> None:
            tasks = airflow.task_instances(DAG_ID, run_id)
            progress.show({task["task_id"]: task["state"] or "waiting" for task in tasks}, service.bill())

        state = airflow.wait_for_run(DAG_ID, run_id, RUN_TIMEOUT, on_poll=look)
        look()
    return state


def _collect(airflow: RealAirflow, run_id: str) -> list[Stored]:
    """Read the result of every task and open every file."""
    images = []
    for task in airflow.task_instances(DAG_ID, run_id):
        task_id = task["task_id"]
        result: Json = airflow.xcom(DAG_ID, run_id, task_id)
        path = Path(str(result["uri"]).removeprefix("file://"))
        try:
            with Image.open(path) as image:
                image.load()
                size = f"{image.width}x{image.height}"
        except (OSError, SyntaxError) as error:
            raise DemoFailed(f"Task {task_id} reports {path}, which does not open: {error}") from error
        dollars = 0.0 if result["reused"] else float(result["estimated_cost_usd"] or 0)
        deferred = airflow.was_deferred(DAG_ID, run_id, task_id)
        images.append(Stored(task_id, path, size, path.stat().st_size, dollars, deferred))
    return sorted(images, key=lambda image: image.task_id)


def _report(images: list[Stored], bill: Bill | None) -> None:
    if images:
        print("\nStored:")
    for image in images:
        waited = "deferred, then stored" if image.deferred else "not deferred"
        print(f"  {image.path}\n      {image.size}, {image.bytes:,} bytes · task {image.task_id}: {waited}")
    estimate = f"{len(images)} images, about ${sum(image.dollars for image in images):.2f} (estimated)"
    print(f"Bill: {bill or estimate}\n", flush=True)


def _check(airflow: RealAirflow, run_id: str, images: list[Stored], bill: Bill | None) -> None:
    """Raise `DemoFailed` unless all images were stored and each was bought once."""
    unfinished = [task for task in airflow.task_instances(DAG_ID, run_id) if task["state"] != "success"]
    if unfinished:
        raise DemoFailed("\n".join(_why(airflow, run_id, task) for task in unfinished))
    if len(images) != IMAGES:
        raise DemoFailed(f"Stored {len(images)} images instead of {IMAGES}.")
    if bill is not None and bill.images != len(images):
        raise DemoFailed(f"{bill} but {len(images)} stored.")


def _why(airflow: RealAirflow, run_id: str, task: Json) -> str:
    """One task's state, its last log file and the last error in it."""
    files = airflow.task_log_files(DAG_ID, run_id, task["task_id"])
    if not files:
        return f"Task {task['task_id']} is {task['state']} and has no log; see {airflow.log_folder}"
    causes: list[Json] = []
    for line in files[-1].read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            causes += json.loads(line).get("error_detail") or []
    cause = f"\n    {causes[-1]['exc_type']}: {causes[-1]['exc_value']}" if causes else ""
    return f"Task {task['task_id']} is {task['state']}.{cause}\n    Log file: {files[-1]}"


def _keep_up(airflow: RealAirflow, run_id: str) -> None:
    print(f"Airflow stays up: {airflow.url}/dags/{DAG_ID}/runs/{run_id}")
    print("No login is needed, everyone on this machine is admin. Ctrl-C stops everything.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            airflow.check()
            time.sleep(1)
    print()


@contextlib.contextmanager
def _service() -> Iterator[RealService | LocalService]:
    if api_key := os.environ.get("WAVESPEED_API_KEY"):
        print(f"WAVESPEED_API_KEY is set: {IMAGES} images from the real API, about $0.03.", flush=True)
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
        raise DemoFailed(f"{home} was not made by the demo. Move it away.")
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
