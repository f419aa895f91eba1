"""A whole Airflow under Celery: two schedulers, triggerers, workers, each with its own folder and host name.

All run on this machine and on 127.0.0.1 only. What they share is what machines share: the database, the
broker, the object store and the settings.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from demo.postgres import PostgresServer
from demo.processes import Component
from tests.chaos.stage import Stage
from tests.cluster import host
from tests.cluster.services import RedisServer
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server

ROOT = Path(__file__).parents[2]
PARTS = {
    "api-server": "api-server",
    "dag-processor": "dag-processor",
    "scheduler-1": "scheduler",
    "scheduler-2": "scheduler",
    "triggerer-1": "triggerer",
    "triggerer-2": "triggerer",
    "worker-1": "celery worker",
    "worker-2": "celery worker",
}
"""The name of each component, and what it runs."""
WORKERS = ("worker-1", "worker-2")
SLOTS = 8
"""Tasks that a worker runs at once."""
S3_CONN_ID = "my_s3"


class Cluster(Stage):
    """The Airflow that all rows share.

    :param settings: Added to the environment of all components.
    """

    task_parents: ClassVar[tuple[str, ...]] = WORKERS

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path,
        database: PostgresServer,
        broker: RedisServer,
        s3: S3Server,
        settings: Mapping[str, str],
    ) -> None:
        self.database_server, self.broker, self.s3 = database, broker, s3
        self._dags = dags_folder
        self._is_supervised = False
        self.revived: list[str] = []
        env = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]),
            "AIRFLOW_CONN_MY_S3": _connection(s3),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{host.__name__}.{host.name.__name__}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.uri,
            "AIRFLOW__CELERY__BROKER_URL": broker.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database.uri}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
            # The files stay as they are.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            **settings,
        }
        # For migrations, which are nobody's: a component's own folder comes before it.
        env[host.VARIABLE] = "admin"
        super().__init__(home, dags_folder=dags_folder, env=env, parallelism=2 * SLOTS)

    def check(self) -> None:
        """Raise if a component has ended that nobody killed; while it is supervised, start it again."""
        if not self._is_supervised:
            super().check()
            return
        for name, component in self._components.items():
            if not component.running:
                self.revived.append(name)
                self.restart(name)

    @contextmanager
    def supervised(self) -> Iterator[list[str]]:
        """Start components again that end, as an init system does; the list names them."""
        self._is_supervised, self.revived = True, []
        try:
            yield self.revived
        finally:
            self._is_supervised = False

    def start_worker(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Start a worker again, and wait until it takes tasks.

        :param env: Added to its environment, until its next start.
        """
        seen = len(self.log_of(name))
        self.restart(name, env=env)
        self._wait_for_worker(name, seen)

    def log_of(self, name: str) -> str:
        """Return what a component has printed since its first start."""
        return self._components[name].log.read_text(errors="replace")

    def wait_ready(self) -> None:
        super().wait_ready()
        for name in WORKERS:
            self._wait_for_worker(name)

    def _wait_for_worker(self, name: str, seen: int = 0) -> None:
        deadline = time.monotonic() + self.ready_timeout
        while f"celery@{name} ready" not in self.log_of(name)[seen:]:
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready. {self._components[name].report()}")
            time.sleep(0.2)

    def task_log_files(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[Path]:
        """Log files of a task instance, of all machines."""
        below = f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}"
        below += f"/map_index={map_index}" if map_index >= 0 else ""
        return sorted(self.home.glob(f"*/logs/{below}/attempt=*"), key=lambda file: file.name)

    def worker_of(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """Return the host name of the worker that a task was last started on."""
        return str(self.task_instance(dag_id, run_id, task_id, map_index)["hostname"] or "")

    def _make_components(self) -> dict[str, Component]:
        return {name: self._make(name) for name in PARTS}

    def _make(self, name: str) -> Component:
        """Make a component with a folder of its own, and its own copy of the Dag files in it."""
        home = self.home / name
        if not home.exists():
            shutil.copytree(self._dags, home / "dags")
        command = PARTS[name]
        own = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            host.VARIABLE: name,
        }
        if command == "celery worker":
            command += f" --celery-hostname {name}"
        return self._component(name, command, own)

    def _unhealthy(self) -> list[str]:
        health = self.health()
        wanted = {"api-server": "metadatabase", "dag-processor": "dag_processor"}
        wanted |= {"scheduler-1": "scheduler", "triggerer-1": "triggerer"}
        return [name for name, reported in wanted.items() if health.get(reported) != "healthy"]


def _connection(s3: S3Server) -> str:
    """Return the connection as a user has it: boto's own repetitions and time-outs stay as they are."""
    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra})
