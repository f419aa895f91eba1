"""Where the rows are played: accounts as they ask for them, and one real Airflow that they share."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.account import Account
from benchmarks.measure import Figures, figures, held
from demo import postgres
from demo.http_json import RestError
from demo.real_airflow import RealAirflow

ROOT = Path(__file__).parents[1]
DAGS = Path(__file__).with_name("dags")
PARALLELISM = 16
RUN_TIMEOUT = 1800
SETTINGS = {
    # For all ways alike: what Airflow takes for killed is soon tried again, and not in five minutes.
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "2",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "AIRFLOW__TRIGGERER__CAPACITY": "2000",
    # The triggerer's own probe of its event loop, made to tell of every stall above 0.02 s.
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": "0.12",
    "PYTHONPATH": str(ROOT),
}


class Lab:
    """A context manager that starts what is asked for, and ends it all.

    :param home: For logs and databases.
    :param quick: Small sizes, to see whether the rows work.
    :ivar over: Makes every wait for a Dag run end, so that Ctrl-C is soon obeyed.
    """

    def __init__(self, home: Path, *, quick: bool = False) -> None:
        self.home = home
        self.quick = quick
        self.database = ""
        self.over = threading.Event()
        self._stack = ExitStack()
        self._starting = threading.Lock()
        self._numbers = itertools.count()
        self._airflow: RealAirflow | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def size(self, full: int, quick: int) -> int:
        """Return a row's size."""
        return quick if self.quick else full

    def account(self, latency: str, *options: str, seed: int = 0, pictures: str = "photo") -> Account:
        """Return an account that is not started; use it in a `with` block.

        :param latency: Seconds, as the service's command line has it.
        :param seed: Of the latencies: accounts of one seed draw the same.
        :param pictures: "drawn" costs the service 25 ms each, so only where there are few; "photo" 4 ms.
        """
        home = self.home / f"account-{next(self._numbers)}"
        given = ("--latency", latency, "--seed", str(seed), "--pictures", pictures)
        return Account(home, *given, *options)

    @property
    def airflow(self) -> RealAirflow:
        """The Airflow that all rows share, started when the first of them asks."""
        with self._starting:
            if self._airflow is None:
                uri, self.database = self._start_database()
                settings = SETTINGS | ({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": uri} if uri else {})
                print(f"Starting Airflow on {self.database} …", flush=True)
                self._airflow = self._stack.enter_context(
                    RealAirflow(
                        self.home / "airflow", dags_folder=DAGS, env=settings, parallelism=PARALLELISM
                    )
                )
                self.database_uri = uri or f"sqlite:///{self._airflow.database}"
                # Nobody counts the first run: a fresh Airflow is slow.
                self._airflow.wait_for_run("floor", self._airflow.trigger("floor"))
            return self._airflow

    def run(self, dag_id: str, account: Account, images: int = 0) -> Figures:
        """Run a Dag on an account that is reset first, and count.

        :param images: To be made; where the Dag's id says so, it does not look.
        """
        airflow = self.airflow
        with tempfile.TemporaryDirectory(prefix="bitdance-bench-") as name:
            folder = Path(name)
            items = folder / "items.jsonl"
            prompts = (f"image-{number:04}" for number in range(images))
            items.write_text("\n".join(json.dumps({"key": each, "prompt": each}) for each in prompts))
            airflow.wait_for_dag(dag_id)
            # Each Dag reads the connection of its own name.
            self.connect(dag_id, account, "http" if dag_id.startswith("http_") else "bitdance")
            account.reset()
            run_id = airflow.trigger(dag_id, conf={"file": str(items), "folder": str(folder)})
            state = airflow.wait_for_run(dag_id, run_id, RUN_TIMEOUT, on_poll=self._check_not_over)
            if state != "success":
                raise RuntimeError(f"{dag_id}: {self._why(dag_id, run_id)}")
            slots = held(airflow.event_log(dag_id, run_id))
            return figures(account.books(), folder, wall=self._wall(dag_id, run_id), slot_seconds=slots)

    def floor(self) -> float:
        """Return how long a Dag run takes in which nothing is done."""
        run_id = self.airflow.trigger("floor")
        self.airflow.wait_for_run("floor", run_id)
        return self._wall("floor", run_id)

    def _check_not_over(self) -> None:
        if self.over.is_set():
            raise RuntimeError("stopped")

    def _wall(self, dag_id: str, run_id: str) -> float:
        run = self.airflow.get(f"/dags/{dag_id}/dagRuns/{run_id}")
        began, ended = (datetime.fromisoformat(run[when]) for when in ("queued_at", "end_date"))
        return (ended - began).total_seconds()

    def connect(self, connection_id: str, account: Account, kind: str = "bitdance") -> None:
        """Make a connection to an account, or lead the one of that name there.

        :param kind: "bitdance" or "http".
        """
        secret: dict[str, Any] = {"password": account.api_key}
        if kind == "http":
            # With a password the deferrable HttpOperator would send it as basic authentication.
            secret = {"extra": json.dumps({"Authorization": f"Bearer {account.api_key}"})}
        connection = {
            "connection_id": connection_id,
            "conn_type": kind,
            "host": account.url,
            "password": None,
            "extra": None,
        } | secret
        try:
            self.airflow.post("/connections", connection)
        except RestError as error:
            if error.status != 409:
                raise
            self.airflow.patch(f"/connections/{connection_id}", connection)

    def _why(self, dag_id: str, run_id: str) -> str:
        for task in self.airflow.task_instances(dag_id, run_id):
            if task["state"] not in ("success", None):
                log = self.airflow.task_log(
                    dag_id, run_id, task["task_id"], task["try_number"], task["map_index"]
                )
                return f"{task['task_id']} is {task['state']}\n{log[-3000:]}"
        return "no task says why"

    def _start_database(self) -> tuple[str, str]:
        if why_not := postgres.why_not():
            return "", f"SQLite ({why_not})"
        server = self._stack.enter_context(postgres.running_postgres(self.home / "postgres.log"))
        return server.uri, "Postgres"
