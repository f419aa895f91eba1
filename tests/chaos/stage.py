"""What all rows play on: the Airflow, a service that can be killed, and how one waits for them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from demo.http_json import AWAY, RestError, send
from demo.processes import Component, end, free_port
from demo.real_airflow import RealAirflow

API_KEY = "wsk_chaos_8d02f6b7c1"
PATIENCE = 240.0
PERIODS = {
    # How long Airflow waits before it takes a process for dead, shortened from minutes to seconds.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


class Stage(RealAirflow):
    """The Airflow that all rows share; `over` makes every wait end, so that Ctrl-C is soon obeyed."""

    over = threading.Event()

    def check(self) -> None:
        if self.over.is_set():
            raise RuntimeError("stopped")
        super().check()


class ServiceProcess:
    """The local service as a process that can be killed, with its state on disk."""

    def __init__(self, home: Path, latency: float, *, echo: bool) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "airflow_provider_bitdance.local", "--port", str(port)]
        argv += ["--api-key", API_KEY, "--latency", str(latency), "--state", str(home / "service.state")]
        argv += ["--history-echo", "intact"] if echo else []
        self.process = Component(
            "local service",
            argv,
            env=os.environ,
            cwd=Path(__file__).parents[2],
            log=home / "service.log",
            quiet=True,
        )

    def start(self) -> None:
        self.process.start()
        until(lambda: self._answers(), lambda: self.process.check(), "the service to answer")

    def kill(self) -> None:
        self.process.kill(signal.SIGKILL)

    def stop(self) -> None:
        end([self.process], grace=5)

    def _answers(self) -> bool:
        try:
            send("GET", f"{self.url}/admin/bill")
        except (*AWAY, RestError):
            return False
        return True


def until(
    there: Callable[[], object],
    check: Callable[[], None],
    what: str,
    *,
    pause: float = 0.2,
    patience: float = PATIENCE,
) -> None:
    """Wait until something is so.

    :param pause: Seconds between two looks.
    :param patience: Seconds after which it will never be so.
    """
    deadline = time.monotonic() + patience
    while not there():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {patience:.0f} s for {what}")
        time.sleep(pause)
