"""One row on the stage: an account, a connection, a folder and Dag runs of its own, and what came of them.

All that is counted is read from outside: the bill from the service, the pictures from the disk, the tries
from Airflow. What is possibly paid is what the tasks' results and the journals say of it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

from airflow_provider_bitdance.local import LocalService, Options
from airflow_provider_bitdance.local.catalogue import STYLE_WORDS
from airflow_provider_bitdance.local.echo import Echo
from airflow_provider_bitdance.local.pictures import draw
from airflow_provider_bitdance.maintenance.scan import Records, read_records
from airflow_provider_bitdance.records.enhanced_prompts import EnhancedPrompts, PromptKey
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.storage import Folder, LocalFolder
from demo.http_json import RestError, send
from demo.real_airflow import RealAirflow
from tests.chaos.stage import API_KEY, PATIENCE, ServiceProcess, until

DAG_ID, BATCH_DAG_ID, ONCE_DAG_ID, TASK_ID = "mortal", "mortal_batch", "mortal_batch_once", "image"
"""Of one image, of a batch, and of a batch that Airflow never retries."""
MAPPED_DAG_ID = "mortal_mapped"
"""Of one task an image."""


@dataclass(frozen=True, slots=True)
class Run:
    """A Dag run that asks for one image, or for a batch of them, or for one image a mapped task."""

    run_id: str
    prompts: tuple[str, ...]
    is_tried_once: bool = False
    is_mapped: bool = False

    @property
    def dag_id(self) -> str:
        if self.is_tried_once:
            return ONCE_DAG_ID
        if self.is_mapped:
            return MAPPED_DAG_ID
        return DAG_ID if len(self.prompts) == 1 else BATCH_DAG_ID


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row. Where prompts are enhanced, each is counted like an image: it is bought, too.

    :ivar asked: Images that were asked for.
    :ivar stored: Of them, those that lie there, each showing its own prompt.
    :ivar billed: Images on the account's bill.
    :ivar wrong: Stored pictures that are not what their receipt or their run says.
    :ivar tries: Of all tasks together.
    :ivar note: What else is to be said of it.
    """

    asked: int
    stored: int
    billed: int
    possibly_paid: int
    wrong: int
    tries: int
    seconds: float
    note: str = ""


@dataclass
class Scene:
    """What a row plays on."""

    airflow: RealAirflow
    name: str
    folder: Path
    service: LocalService | ServiceProcess
    runs: list[Run] = field(default_factory=list)
    enhanced: set[tuple[str, str]] = field(default_factory=set)
    deleted_tries: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        airflow: RealAirflow,
        name: str,
        folder: Path,
        *,
        latency: float = 1.0,
        echo: bool = False,
        killable: bool = False,
        max_in_flight: int | None = None,
    ) -> Self:
        """Open an account for a row, and tell Airflow of it."""
        folder = folder / re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
        folder.mkdir(parents=True)
        service: LocalService | ServiceProcess
        if killable:
            service = ServiceProcess(folder, latency, echo=echo)
        else:
            shown: Echo = "intact" if echo else "none"
            service = LocalService(
                Options(
                    api_key=API_KEY,
                    latency=latency,
                    balance_usd=1000.0,
                    history_echo=shown,
                    max_in_flight=max_in_flight,
                )
            )
        service.start()
        scene = cls(airflow, name, folder, service)
        connection = {
            "connection_id": scene.conn_id,
            "conn_type": "bitdance",
            "host": service.url,
            "password": API_KEY,
        }
        airflow.post("/connections", connection)
        return scene

    @property
    def conn_id(self) -> str:
        return f"chaos-{self.folder.name}"

    @property
    def output(self) -> str:
        """Where the images of all runs go; ends in a slash."""
        return f"{self.folder}/images/"

    @property
    def records(self) -> Folder:
        return LocalFolder(self.folder / "images" / ".bitdance")

    def read(self, uri: str) -> bytes:
        """Return a stored file."""
        return Path(urlsplit(uri).path).read_bytes()

    def ask(
        self,
        number: int,
        *,
        images: int = 1,
        kill_at: Sequence[str] = (),
        deferrable: bool = False,
        named: bool = False,
        defer_timeout: float = 0.0,
        style: str = "",
        mapped: bool = False,
    ) -> list[Run]:
        """Start so many runs.

        :param images: That each asks for: one, or a batch.
        :param mapped: Each image has a task of its own, in place of a batch.
        :param kill_at: Where the task's process is to be killed, once at each.
        :param named: The user names the file, so its address is reserved between claim and intent.
        :param style: In which the prompts are enhanced.
        """
        started = []
        for _ in range(number):
            name = f"{self.folder.name}-{len(self.runs) + 1}"
            first = sum(len(run.prompts) for run in self.runs) + 1
            prompts = tuple(f"picture {first + n} of: {self.name}" for n in range(images))
            run = Run(name, prompts, is_mapped=mapped)
            self.runs.append(run)
            started.append(run)
            self.start(
                run,
                output_path=f"{self.output}{name if named else ''}",
                deferrable=deferrable,
                kill_at=list(kill_at),
                defer_timeout=defer_timeout,
                style=style,
            )
            self.enhanced |= {(prompt, style) for prompt in run.prompts if style}
        return started

    def ask_twice(self, images: int, *, kill_first_at: Sequence[str] = (), **params: Any) -> tuple[Run, Run]:
        """Start two batches of the same items, each of a Dag of its own; the first has no retry.

        :param kill_first_at: Where the first is to be killed; the second starts when it is dead.
        """
        prompts = tuple(f"image {number} of: {self.name}" for number in range(1, images + 1))
        first = Run(f"{self.folder.name}-first", prompts, is_tried_once=True)
        second = Run(f"{self.folder.name}-second", prompts)
        self.runs += [first, second]
        self.start(first, kill_at=list(kill_first_at), **params)
        if kill_first_at:
            self.until(lambda: self._are_killed([first], kill_first_at), "the first to be killed")
        self.start(second, **params)
        return first, second

    def start(self, run: Run, **params: Any) -> None:
        """Start a run, also one that was deleted."""
        common = {
            "prompts": list(run.prompts),
            "output_path": self.output,
            "conn_id": self.conn_id,
            "markers": str(self.folder / "killed"),
        }
        self.airflow.trigger(run.dag_id, conf=common | params, run_id=run.run_id)

    def until_deferred(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self.airflow.wait_for_task(run.dag_id, run.run_id, TASK_ID, ["deferred"], timeout=PATIENCE)

    def until_submitted(self, runs: Iterable[Run]) -> None:
        """Wait until the journals say so, not only the service."""

        def submitted() -> bool:
            jobs = read_records(self.records).jobs
            return {run.run_id for run in runs} <= {job.job.run_id for job in jobs if job.predictions}

        self.until(submitted, "all images to be submitted")

    def until_stored(self, number: int) -> None:
        self.until(lambda: len(read_records(self.records).receipts) >= number, "images to be stored")

    def finish(self, runs: Iterable[Run] | None = None) -> None:
        """Wait for the success of runs, of all by default."""
        for run in self.runs if runs is None else runs:
            state = self.airflow.wait_for_run(run.dag_id, run.run_id, timeout=PATIENCE)
            assert state == "success", f"{run.run_id} ended as {state}: {self._why(run)}"

    def _are_killed(self, runs: Iterable[Run], points: Sequence[str]) -> bool:
        return all((self.folder / "killed" / run.run_id / point).exists() for run in runs for point in points)

    def check_killed(self, runs: Iterable[Run], points: Iterable[str]) -> None:
        """Make sure that the faults which the row is about have happened."""
        markers = [self.folder / "killed" / run.run_id / point for run in runs for point in points]
        missing = [f"{marker.parent.name} at {marker.name}" for marker in markers if not marker.exists()]
        assert not missing, f"not killed: {', '.join(missing)}"

    def clear(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self.airflow.clear(run.dag_id, run.run_id)

    def mark_failed(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self.airflow.mark(run.dag_id, run.run_id, TASK_ID, "failed")

    def delete(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self.deleted_tries += int(self.task(run)["try_number"])
            self.airflow.delete_run(run.dag_id, run.run_id)

    def until(self, there: Callable[[], object], what: str) -> None:
        until(there, self.airflow.check, what)

    def task(self, run: Run) -> dict[str, Any]:
        return self.airflow.task_instance(run.dag_id, run.run_id, TASK_ID)

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """Return the tasks of a run that buy, by map index; none of a run that was deleted."""
        try:
            found = self.airflow.task_instances(run.dag_id, run.run_id)
        except RestError as error:
            if error.status != 404:
                raise
            return []
        return sorted(
            (task for task in found if task["task_id"] == TASK_ID), key=lambda task: task["map_index"]
        )

    def result(self, run: Run, map_index: int = -1) -> dict[str, Any]:
        result: dict[str, Any] = self.airflow.xcom(run.dag_id, run.run_id, TASK_ID, map_index)
        return result

    def images(self, run: Run, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what the results of a run's tasks say of each image, in the order of the prompts."""
        if run.dag_id in (DAG_ID, MAPPED_DAG_ID):
            return results
        [result] = results
        return [json.loads(line) for line in self.read(result["manifest"]).splitlines()]

    def ended_at(self, run: Run) -> float:
        """Return the Unix time at which a run's task ended."""
        return datetime.fromisoformat(self.task(run)["end_date"]).timestamp()

    def files_read(self, run: Run) -> tuple[int, int]:
        """Return how many records, and how many images, a run's task has read in its last process."""
        records, images = (self.folder / "killed" / run.run_id / "files read").read_text().split()
        return int(records), int(images)

    def log(self, run: Run) -> str:
        """Return what a run's task has logged, in all its tries."""
        files = self.airflow.task_log_files(run.dag_id, run.run_id, TASK_ID)
        return "".join(file.read_text(errors="replace") for file in files)

    def bill(self) -> dict[str, Any]:
        bill: dict[str, Any] = send("GET", f"{self.service.url}/admin/bill")
        return bill

    def task_and_supervisor(self, run: Run) -> tuple[int, int]:
        """Process ids of a running task and of the process above it, which sends Airflow its heartbeats."""
        pid = self.airflow.task_pid(run.dag_id, run.run_id, TASK_ID)
        assert pid is not None, f"{run.run_id} has no process"
        return pid, psutil.Process(pid).ppid()

    def outcome(self, seconds: float) -> Outcome:
        """Count what there is."""
        records = read_records(self.records)
        assert not records.findings, records.findings
        receipts = list(records.receipts.values())
        right = [receipt for receipt in receipts if self._shows_its_request(receipt)]
        shown = {prompt_of(receipt) for receipt in right}
        tasks = {run: tasks for run in self.runs if (tasks := self.tasks(run))}
        results = {
            run: [self.result(run, task["map_index"]) for task in of_run]
            for run, of_run in tasks.items()
            if all(task["state"] == "success" for task in of_run)
        }
        wrong = len(receipts) - len(right)
        wrong += sum(
            not _is_of(prompt, image, receipts)
            for run, of_run in results.items()
            for prompt, image in zip(run.prompts, self.images(run, of_run), strict=True)
        )
        lost = ("possibly_paid", "prompts_possibly_paid")
        reported = sum(int(result[name]) for of_run in results.values() for result in of_run for name in lost)
        in_journals = _possibly_paid(records)
        assert reported == in_journals, f"results say {reported} possibly paid, journals {in_journals}"
        prompts = {prompt for run in self.runs for prompt in run.prompts}
        return Outcome(
            asked=len(prompts) + len(self.enhanced),
            stored=len(prompts & shown) + sum(self._is_enhanced(*text) for text in self.enhanced),
            billed=int(self.bill()["billed"]),
            possibly_paid=in_journals,
            wrong=wrong,
            tries=self.deleted_tries
            + sum(int(task["try_number"]) for of_run in tasks.values() for task in of_run),
            seconds=seconds,
            note="; ".join(self.notes),
        )

    def _shows_its_request(self, receipt: Receipt) -> bool:
        """Say whether the stored file is byte for byte the picture that the service draws for the request."""
        width, height = map(int, receipt.request.size.split("*"))
        return self.read(receipt.uri) == draw(
            model=receipt.request.model,
            prompt=receipt.request.prompt,
            width=width,
            height=height,
            seed=receipt.request.seed,
            media_type=receipt.media_type,
        )

    def _is_enhanced(self, prompt: str, style: str) -> bool:
        """Say whether a text is on record, and is what the service makes of it."""
        key = PromptKey(prompt, style, urlsplit(self.service.url).netloc)
        found = EnhancedPrompts(self.records).find(key)
        return found is not None and found.enhanced == f"{prompt}, {STYLE_WORDS[style]}"

    def _why(self, run: Run) -> str:
        """Return the last error in the task's log."""
        causes: list[dict[str, Any]] = []
        for file in self.airflow.task_log_files(run.dag_id, run.run_id, TASK_ID):
            for line in file.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    causes += json.loads(line).get("error_detail") or []
        return f"{causes[-1]['exc_type']}: {causes[-1]['exc_value']}" if causes else "its logs name no error"


def prompt_of(receipt: Receipt) -> str:
    """Return the prompt that was asked for."""
    return receipt.prompt_asked or receipt.request.prompt


def _is_of(prompt: str, image: dict[str, Any], receipts: list[Receipt]) -> bool:
    """Say whether an image of a run's result is the one that the run asked for."""
    return any(receipt.uri == image["uri"] and prompt_of(receipt) == prompt for receipt in receipts)


def _possibly_paid(records: Records) -> int:
    """Return what the journals say, of each task its last generation: that counts those before it, too."""
    last = [record for record in records.jobs if not records.later_than(record)]
    images = [image for record in last for image in record.state.images.values()]
    enhanced = [image.plan.enhancement for image in images if image.plan.enhancement is not None]
    return sum(image.possibly_paid for image in images) + sum(made.possibly_paid for made in enhanced)
