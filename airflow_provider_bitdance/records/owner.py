"""Whose a record is: the job that it belongs to, and the process that wrote it."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from airflow_provider_bitdance.records.codec import Strict, without
from airflow_provider_bitdance.records.fields import Count, Integer, Name
from airflow_provider_bitdance.storage.naming import safe_name

OUTSIDE = "(outside of Airflow)"
"""In the place of Dag and task, where no task stores the image. No id of Airflow has a space."""


class Job(Strict):
    """What one journal belongs to.

    :param generation: Changes when a user clears the task and not when Airflow retries it.
    :param call: Of an image that a plain task stores through the hook, the name of its destination's records:
        such a task may have several images, each a job of its own. ``None``: of an operator.
    :param iteration: Of a task in a loop (Airflow 3.4): the iteration's number and the id of its region in
        Airflow. A clear can have iterations begin anew, in another region and with ``max_tries`` as at first.
    """

    dag_id: Name
    run_id: Name
    task_id: Name
    map_index: Integer
    generation: Integer
    call: Name | None = None
    iteration: Name | None = None

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(without(whole(self), "call"), "iteration")

    @property
    def is_task(self) -> bool:
        """Whether a task makes it, which Airflow may run again."""
        return self.dag_id != OUTSIDE

    @property
    def folder(self) -> str:
        """The journal's folder below the records path."""
        return f"{self.task_folder}/generation={self.generation}"

    @property
    def task_folder(self) -> str:
        """The folder of the journals of all generations, below the records path."""
        parts = [safe_name(part) for part in (self.dag_id, self.run_id, self.task_id)]
        call = [] if self.call is None else [f"call={safe_name(self.call)}"]
        iteration = [] if self.iteration is None else [f"iteration={safe_name(self.iteration)}"]
        return "/".join(["jobs", *parts, *call, *iteration, f"map={self.map_index}"])

    @property
    def instance(self) -> tuple[str, ...]:
        """What tells the task's instances of a run apart: iteration and map index, as far as it has them."""
        iteration = () if self.iteration is None else (f"iteration {self.iteration.partition('.')[0]}",)
        return (*iteration, *((str(self.map_index),) if self.map_index >= 0 else ()))

    def same_task(self, other: Job) -> bool:
        """Say whether the other is this task instance, in this generation or another."""
        return self.model_copy(update={"generation": other.generation}) == other

    def replaces(self, other: Job) -> bool:
        """Say whether this task instance is the other's iteration of a loop, begun again by a clear.

        Then the other one never runs again. The ids of regions are UUIDs of version 7, which sort by time
        (``models/dynamic_region.py``, 3.4.0b2).
        """
        fields = ("dag_id", "run_id", "task_id", "call", "instance")
        is_same_iteration = all(getattr(self, name) == getattr(other, name) for name in fields)
        return is_same_iteration and (self.iteration or "") > (other.iteration or "")


PRUNER = Job(dag_id=OUTSIDE, run_id="records prune", task_id=OUTSIDE, map_index=-1, generation=0)
"""The job of a process that removes journals: its claim closes a journal, for no task has it."""


class Owner(Strict):
    """The process that wrote an entry.

    :param token: Random, so that a process knows its own entries.
    """

    job: Job
    try_number: Integer
    host: Name
    pid: Count
    token: Name

    @property
    def has_tries_left(self) -> bool:
        """Whether Airflow would run the task again: the generation is its ``max_tries``."""
        return self.try_number <= self.job.generation

    def is_of_same_try(self, other: Owner) -> bool:
        """Say whether another process runs the same try of the same task: a resume after a deferral does."""
        return (self.job, self.try_number) == (other.job, other.try_number)
