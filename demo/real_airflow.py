"""A real Airflow on this machine: api-server, scheduler, dag-processor and triggerer, on SQLite.

For the demo and the system tests, never for production: everyone on this machine is admin. It uses
LocalExecutor, binds to 127.0.0.1 only, takes no Airflow setting from the caller's shell, and leaves no
process behind.

    with RealAirflow(home, dags_folder=folder) as airflow:
        run_id = airflow.trigger("my_dag")
        assert airflow.wait_for_run("my_dag", run_id) == "success"
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from .airflow_rest import AirflowRest
from .processes import Component, ProcessDied, end, family, free_port, title, uninterrupted

# The name in `kill` and of the log file → the name in Airflow's health report.
COMPONENTS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
# A task's process renames itself so (task_runner.py, 3.1 to 3.4). The LocalExecutor worker above it, which is
# the task's supervisor, is called "airflow worker -- LocalExecutor: <id>" and does not match.
_TASK_TITLE = re.compile(r"airflow worker -- ([0-9a-f-]{36})")
_DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# Seconds for SQLite's one lock, of 5 by default. The API server keeps to 5: while it waits for itself (see
# `airflow_rest`), nobody else can write, and a scheduler whose patience ends dies.
_PATIENT = "?timeout=30"


@dataclass(frozen=True, slots=True)
class TaskProcess:
    """The process that executes a task's code; `task_instance` is the API's `id`, another in each try."""

    pid: int
    task_instance: str


class RealAirflow(AirflowRest):
    """Airflow in four processes; a context manager that starts, waits until all are healthy, and stops.

    :param home: AIRFLOW_HOME; created if missing. A home may be started again: it keeps database and secrets.
    :param dags_folder: where the Dag files are.
    :param env: added to the environment of all processes, so of the tasks; may override Airflow settings.
    :param python: the interpreter of the environment in which Airflow is installed.
    :param path: below which path of the host Airflow is, such as "/airflow".
    :param parallelism: how many tasks run at once.
    :param ready_timeout: seconds until every component must be healthy.
    """

    task_parents: ClassVar[tuple[str, ...]] = ("scheduler",)
    """The components from which the tasks' processes come."""

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path,
        env: Mapping[str, str] | None = None,
        python: Path | str = sys.executable,
        path: str = "",
        parallelism: int = 6,
        ready_timeout: float = 240,
    ) -> None:
        self._port = free_port()
        super().__init__(f"http://127.0.0.1:{self._port}{path}")
        self.home = home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self.log_folder = self.home / "logs-processes"
        self.ready_timeout = ready_timeout
        settings = _settings(self.home, dags_folder.resolve(), self.url, parallelism)
        self._env = _clean_environment() | settings | dict(env or {})
        # -P: the working folder must not be importable.
        self._airflow = [str(python), "-P", "-m", "airflow"]
        self._components = self._make_components()

    @property
    def database(self) -> Path:
        """The SQLite file. Write-ahead logging is on: a look at the raw bytes needs `<name>-wal`, too."""
        return self.home / "airflow.db"

    @property
    def task_logs(self) -> Path:
        """Folder of the task logs, below it dag_id=…/run_id=…/task_id=…"""
        return self.home / "logs"

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Create or upgrade the database, then start the four processes; does not wait for them."""
        self._component("db migrate").run(self.ready_timeout)
        for component in self._components.values():
            component.start()

    def wait_ready(self) -> None:
        """Wait until the API answers and reports every component healthy."""
        deadline = time.monotonic() + self.ready_timeout
        while missing := self._unhealthy():
            self.check()
            if time.monotonic() > deadline:
                reports = "\n".join(self._components[name].report() for name in missing)
                raise ProcessDied(
                    f"Not healthy after {self.ready_timeout:.0f} s: {', '.join(missing)}.\n{reports}"
                )
            time.sleep(0.25)

    def check(self) -> None:
        """Raise `ProcessDied` if a component ended that nobody killed; called during every wait."""
        for component in self._components.values():
            component.check()

    def stop(self, grace: float = 10) -> None:
        """End all processes and what came from them, tasks included; running tasks are not waited for.

        Ctrl-C during it is ignored: half a stop would leave processes behind.
        """
        with uninterrupted():
            end(list(self._components.values()), grace=grace)

    def pid_of(self, component: str) -> int:
        """Process id of "api-server", "scheduler", "dag-processor" or "triggerer"."""
        return self._components[component].pid

    def kill(self, component: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one component's process alone; from then on its death is no error."""
        self._components[component].kill(sig)

    def kill_tree(self, component: str) -> None:
        """Kill a component and all that came from it at once, as a machine dies that loses its power."""
        pids = self.processes_of(component)
        for sig in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: nobody sees another one die
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
        self.kill(component)

    def restart(self, component: str, grace: float = 10, env: Mapping[str, str] | None = None) -> None:
        """Start a component again; one that still runs is ended first, with all that came from it.

        What a killed scheduler left behind (workers, tasks) lives on, as it would on any machine. Its old
        heartbeat counts as healthy for half a minute, so `wait_ready` may return before the new one works.
        """
        if self._components[component].running:
            end([self._components[component]], grace=grace)
        self._components[component].start(env)

    def add_triggerer(self, name: str) -> None:
        """Start one more triggerer beside the first; the other methods know it by `name`."""
        self._components[name] = self._component(name, "triggerer")
        self._components[name].start()

    def end(self, component: str, grace: float = 10) -> None:
        """End a component and all that came from it, also one that is stopped."""
        end([self._components[component]], grace=grace)

    def processes_of(self, component: str) -> list[int]:
        """Process ids of a component and of all that came from it."""
        return [process.pid for process in family([self._components[component]])]

    def task_processes(self) -> list[TaskProcess]:
        """The processes that execute tasks now; Linux only (Airflow does not rename processes on macOS)."""
        processes = family([self._components[name] for name in self.task_parents])
        matches = ((process.pid, _TASK_TITLE.fullmatch(title(process))) for process in processes)
        return [TaskProcess(pid, match[1]) for pid, match in matches if match]

    def task_pid(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int | None:
        """Process id of a running task, None while no process executes it (queued, deferred, ended)."""
        wanted = self.task_instance(dag_id, run_id, task_id, map_index)["id"]
        return next((task.pid for task in self.task_processes() if task.task_instance == wanted), None)

    def task_log_files(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[Path]:
        """Log files of a task instance: attempt=N.log, and attempt=N.log.trigger.M.log of the triggerer."""
        folder = self.task_logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return sorted(folder.glob("attempt=*"))

    def was_deferred(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> bool:
        """Whether a trigger ran for the task, in any try.

        Told by the triggerer's log file, which every Airflow from 3.1 on writes when it starts a trigger.
        The event log has "deferred" entries, too, but not on 3.1.
        """
        files = self.task_log_files(dag_id, run_id, task_id, map_index)
        return any(".log.trigger." in file.name for file in files)

    def _make_components(self) -> dict[str, Component]:
        """Make the processes of this Airflow, by the names that the methods know them by."""
        return {name: self._component(name) for name in COMPONENTS}

    def _component(self, name: str, command: str = "", env: Mapping[str, str] | None = None) -> Component:
        command = command or name
        argv = [*self._airflow, *command.split()]
        if command == "api-server":
            argv += ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        if command.startswith(("scheduler", "triggerer", "celery worker")):
            # They would serve logs on fixed ports and all interfaces; here the API server reads the files.
            argv.append("--skip-serve-logs")
        env = self._env | dict(env or {})
        if command == "api-server":
            env[_DATABASE] = env[_DATABASE].replace(_PATIENT, "")
        return Component(
            name, argv, env=env, cwd=self.home, log=self.log_folder / f"{name.replace(' ', '-')}.log"
        )

    def _unhealthy(self) -> list[str]:
        health = self.health()
        return [name for name, reported in COMPONENTS.items() if health.get(reported) != "healthy"]


def _settings(home: Path, dags_folder: Path, url: str, parallelism: int) -> dict[str, str]:
    """Airflow's settings as environment variables; valid for 3.1 to 3.4."""
    settings = {
        "CORE__DAGS_FOLDER": str(dags_folder),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(parallelism),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # The default asks DNS for the full name, which may take seconds.
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "API__BASE_URL": url,
        "API__EXPOSE_STACKTRACE": "True",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}{_PATIENT}",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        # A first report of health comes with the first heartbeat.
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        **_secrets(home / "secrets.json"),
    }
    return {"AIRFLOW_HOME": str(home)} | {f"AIRFLOW__{name}": value for name, value in settings.items()}


def _secrets(path: Path) -> dict[str, str]:
    """Secrets of this home, made on first use; a second start needs the same ones to read the database."""
    if not path.exists():
        made = {
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "API__SECRET_KEY": secrets.token_urlsafe(48),
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(made))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def _clean_environment() -> dict[str, str]:
    """The caller's environment without Airflow's settings, connections, variables; loopback unproxied."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    return kept | {
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
    }
