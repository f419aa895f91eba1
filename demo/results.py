"""What the demo's Dags leave behind: each image as a task reported it and as Pillow finds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .airflow_rest import Json
from .http_json import RestError
from .real_airflow import RealAirflow


class DemoFailed(RuntimeError):
    """The demo did not end as it should; the message says why and names the log file."""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task instance of one of the demo's runs."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    operator: str

    @property
    def name(self) -> str:
        """The task's id, with its place where it is mapped."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def path(self) -> tuple[str, str, str, int]:
        """What Airflow knows it by."""
        return self.dag_id, self.run_id, self.task_id, self.map_index


@dataclass(frozen=True, slots=True)
class Stored:
    """One image as its task reported it and as Pillow found it."""

    task: TaskRun
    path: Path
    size: str
    bytes: int
    dollars: float
    deferred: bool


def tasks_of(airflow: RealAirflow, dag_id: str, run_id: str) -> list[TaskRun]:
    """Every task instance of a run, by name."""
    found = [
        TaskRun(
            dag_id,
            run_id,
            task["task_id"],
            task["map_index"],
            task["state"] or "waiting",
            task["operator"] or "",
        )
        for task in airflow.task_instances(dag_id, run_id)
    ]
    return sorted(found, key=lambda task: task.name)


def result_of(airflow: RealAirflow, task: TaskRun) -> Any:
    """What a task returned, None if nothing."""
    try:
        return airflow.xcom(*task.path)
    except RestError as error:
        if error.status == 404:
            return None
        raise


def images_of(airflow: RealAirflow, task: TaskRun) -> list[Stored]:
    """The images of a task; every file is opened."""
    deferred = airflow.was_deferred(*task.path)
    return [_opened(task, made, deferred) for made in _made(result_of(airflow, task))]


def _made(result: Any) -> Iterator[Json]:
    """The images that a result tells of: one operator's is an image, the other's names a manifest."""
    if isinstance(result, dict) and "uri" in result:
        yield result
    if isinstance(result, dict) and "manifest" in result:
        rows = map(json.loads, _path(result["manifest"]).read_text().splitlines())
        yield from (row for row in rows if row["status"] == "stored")


def _opened(task: TaskRun, made: Json, deferred: bool) -> Stored:
    path = _path(made["uri"])
    try:
        with Image.open(path) as image:
            image.load()
            size = f"{image.width}x{image.height}"
    except (OSError, SyntaxError) as error:
        raise DemoFailed(
            f"Task {task.name} reports {path}, which is not a readable image: {error}"
        ) from error
    dollars = 0.0 if made["reused"] else float(made["estimated_cost_usd"] or 0)
    return Stored(task, path, size, path.stat().st_size, dollars, deferred)


def _path(uri: object) -> Path:
    return Path(str(uri).removeprefix("file://"))
