"""Airflow's REST API (`/api/v2`), as much of it as the demo and the system tests need.

It expects an API server that lets everyone in as admin. Reads are repeated while the
server is away, because tests kill it. Writes go out one at a time, and again where
SQLite was locked; then nothing was written.

Airflow writes its log of who did what on the API server's event loop (`log_action`, read
in 3.3.2). Where another request has SQLite's lock then and needs the loop to end, both
stand still until the time-out, and so does everyone who waits for the lock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from .http_json import AWAY, RestError, send

FINAL_STATES = frozenset({"success", "failed"})
_AWAY_TIMEOUT = 90  # an API server needs 10 to 30 seconds to start
_LOCKED = "database is locked"
# On a loaded machine SQLite was seen locked through five attempts.
_PAUSES_WHILE_LOCKED = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 0.0)

# The only exceptions to "no dict[str, Any]": Airflow's answers, passed on as they are.
Json = dict[str, Any]
T = TypeVar("T")


class AirflowRest:
    """A client for one API server on this machine."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._one_writer = threading.Lock()
        self._token: str | None = None

    def dag_ids(self) -> list[str]:
        """Ids of the Dags that have been parsed."""
        return [dag["dag_id"] for dag in self.get("/dags", limit=100)["dags"]]

    def import_errors(self) -> str:
        """What the Dag processor could not import, as one text; empty if all is well."""
        errors = self.get("/importErrors")["import_errors"]
        return "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)

    def wait_for_dag(self, dag_id: str, timeout: float = 120) -> None:
        """Wait until a Dag has been parsed; fails at once if its folder has import errors."""

        def parsed() -> bool | None:
            if dag_id in self.dag_ids():
                return True
            if errors := self.import_errors():
                raise RuntimeError(
                    f"Dag {dag_id} was not found, and some Dag files cannot be imported:\n{errors}"
                )
            return None

        self._wait(parsed, timeout, f"Dag {dag_id} to be parsed")

    def trigger(
        self,
        dag_id: str,
        conf: Json | None = None,
        run_id: str | None = None,
        logical_date: str | None = None,
    ) -> str:
        """Wait for the Dag to be parsed, start a run of it now, and return its run id.

        :param logical_date: without it the run has none, and its templates no `{{ ds }}`.
        """
        self.wait_for_dag(dag_id)
        body: Json = {"logical_date": logical_date, "conf": conf or {}}
        if run_id is not None:
            body["dag_run_id"] = run_id
        run: Json = self.post(f"/dags/{dag_id}/dagRuns", body)
        return str(run["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Switch a Dag on: its runs, also those that were triggered, begin only then."""
        self.wait_for_dag(dag_id)
        self.patch(f"/dags/{quote(dag_id)}", {"is_paused": False})

    def wait_for_new_run(self, dag_id: str, timeout: float = 120) -> str:
        """Wait until a Dag that nobody triggers has a run, and return the newest run's id."""

        def begun() -> str | None:
            runs = self.get(f"/dags/{quote(dag_id)}/dagRuns", order_by="-id", limit=1)["dag_runs"]
            return str(runs[0]["dag_run_id"]) if runs else None

        return self._wait(begun, timeout, f"a run of Dag {dag_id}")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run: queued, running, success or failed."""
        return str(self.get(_run(dag_id, run_id))["state"])

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 300,
        on_poll: Callable[[], None] | None = None,
    ) -> str:
        """Wait until a run has ended and return its state; `on_poll` is called about once a second."""

        def ended() -> str | None:
            if on_poll is not None:
                on_poll()
            state = self.run_state(dag_id, run_id)
            return state if state in FINAL_STATES else None

        return self._wait(ended, timeout, f"run {run_id} of Dag {dag_id} to end", pause=1.0)

    def clear(
        self,
        dag_id: str,
        run_id: str,
        task_ids: Iterable[str | tuple[str, int]] | None = None,
        *,
        only_failed: bool = False,
    ) -> list[Json]:
        """Clear task instances of a run (all without `task_ids`), so that they run again; returns them."""
        body: Json = {
            "dag_run_id": run_id,
            "dry_run": False,
            "only_failed": only_failed,
            "reset_dag_runs": True,
        }
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        cleared: list[Json] = self.post(f"/dags/{dag_id}/clearTaskInstances", body)["task_instances"]
        return cleared

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Every task instance of a run, mapped ones one by one."""
        return self._all(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        """One task instance: id, state, try_number, max_tries, start_date, rendered_fields, trigger …"""
        instance: Json = self.get(_task(dag_id, run_id, task_id, map_index))
        return instance

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Iterable[str],
        map_index: int = -1,
        timeout: float = 120,
    ) -> Json:
        """Wait until a task instance is in one of `states` and return it."""
        wanted = frozenset(states)

        def there() -> Json | None:
            instance = self.task_instance(dag_id, run_id, task_id, map_index)
            return instance if instance["state"] in wanted else None

        return self._wait(there, timeout, f"task {task_id} to be {' or '.join(sorted(wanted))}", pause=0.2)

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        """The rendered template fields of a task instance."""
        fields: Json = self.task_instance(dag_id, run_id, task_id, map_index)["rendered_fields"]
        return fields

    def tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[Json]:
        """Every try of a task instance, oldest first, with its state and times."""
        path = f"{_task(dag_id, run_id, task_id, map_index)}/tries"
        tries: list[Json] = self.get(path)["task_instances"]
        return sorted(tries, key=lambda each: int(each["try_number"]))

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> str:
        """The log of one try as the UI shows it: the worker's and the triggerer's lines."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}"
        lines = self.get(path, map_index=map_index, full_content="true")["content"]
        return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, key: str = "return_value"
    ) -> Any:
        """Value of an XCom; raises `RestError` with status 404 if there is none."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self.get(path, map_index=map_index, stringify="false")["value"]

    def question(self, dag_id: str, run_id: str, task_id: str, timeout: float = 120) -> Json:
        """Wait until a task asks a person; return what it shows: subject, body, options …"""
        self.wait_for_task(dag_id, run_id, task_id, ["awaiting_input", "deferred"], timeout=timeout)
        question: Json = self.get(_question(dag_id, run_id, task_id))
        return question

    def answer(self, dag_id: str, run_id: str, task_id: str, choice: str) -> None:
        """Answer a task that asks a person, as the UI's button does."""
        self.patch(_question(dag_id, run_id, task_id), {"chosen_options": [choice], "params_input": {}})

    def event_log(self, dag_id: str, run_id: str) -> list[Json]:
        """What happened to a run and its tasks, oldest first: event, task_id, map_index, try_number, extra.

        "state mismatch" is the scheduler taking a finished process for a killed one (apache/airflow#71580).
        Airflow 3.1 logs what users do and nothing else.
        """
        logs = self._all("/eventLogs", "event_logs", dag_id=dag_id, run_id=run_id)
        return sorted(logs, key=lambda entry: str(entry["when"]))

    def health(self) -> dict[str, str]:
        """State of each component, "healthy" or not; empty while the API server does not answer."""
        try:
            answer: Json = send("GET", f"{self.url}/api/v2/monitor/health")
        except (*AWAY, RestError):
            return {}
        return {name: str(component.get("status")) for name, component in answer.items() if component}

    def get(self, path: str, **query: object) -> Any:
        """GET a path below /api/v2, again while the server is away or busy."""
        target = f"/api/v2{path}" + (f"?{urlencode(query)}" if query else "")
        deadline = time.monotonic() + _AWAY_TIMEOUT
        while True:
            self.check()
            try:
                return self._send("GET", target)
            except (*AWAY, RestError) as error:
                busy = not isinstance(error, RestError) or error.status >= 500
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def post(self, path: str, body: Json) -> Any:
        """POST to a path below /api/v2."""
        return self._write("POST", path, body)

    def patch(self, path: str, body: Json) -> Any:
        """PATCH a path below /api/v2."""
        return self._write("PATCH", path, body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with its task instances; one that runs is marked failed first, or Airflow refuses."""
        if self.run_state(dag_id, run_id) not in FINAL_STATES:
            self.patch(_run(dag_id, run_id), {"state": "failed"})
        self._write("DELETE", _run(dag_id, run_id))

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task instance "failed" or "success", as a user does."""
        self.patch(_task(dag_id, run_id, task_id, -1), {"new_state": state})

    def check(self) -> None:
        """Raise if it is known that the server will not answer; called before each read."""

    def _all(self, path: str, key: str, **query: object) -> list[Json]:
        found: list[Json] = []
        while True:
            page = self.get(path, limit=100, offset=len(found), **query)
            found += page[key]
            if len(found) >= page["total_entries"] or not page[key]:
                return found

    def _write(self, method: str, path: str, body: Json | None = None) -> Any:
        for pause in _PAUSES_WHILE_LOCKED:
            try:
                with self._one_writer:
                    return self._send(method, f"/api/v2{path}", body)
            except RestError as error:
                if not pause or _LOCKED not in error.body.lower():
                    raise
            time.sleep(pause)

    def _send(self, method: str, path: str, body: Json | None = None) -> Any:
        if self._token is None:
            self._token = str(send("GET", f"{self.url}/auth/token")["access_token"])
        return send(method, self.url + path, body, {"Authorization": f"Bearer {self._token}"})

    def _wait(self, look: Callable[[], T | None], timeout: float, what: str, pause: float = 0.5) -> T:
        deadline = time.monotonic() + timeout
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {timeout:.0f} s for {what}")
            time.sleep(pause)
        return found


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    mapped = "" if map_index < 0 else f"/{map_index}"
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}{mapped}"


def _question(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_task(dag_id, run_id, task_id, -1)}/-1/hitlDetails"
