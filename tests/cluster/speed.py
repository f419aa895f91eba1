"""How fast one Celery worker is, and how fast two are, on one account of 50 submissions a second.

A task alone, then two at the same time, each on a worker of its own; of several rounds the medians. Workers,
Airflow, the store and the account share the cores of one machine, so two workers are not twice as fast here,
and the figure to take away is the CPU time of an image. py-spy says where that went, in a run of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.account import Account
from tests.chaos.stage import PATIENCE, until
from tests.cluster.cluster import S3_CONN_ID, WORKERS, Cluster

DAG_FILE = Path(__file__).parent / "dags" / "speed.py"
DAG_ID, TASK_ID, CONN_ID = "speed", "batch", "speed"
IMAGES, LATENCY, ROUNDS = 150, 5, 1
PLACES = {
    "the store's client (s3fs, botocore, aiohttp)": ("s3fs", "botocore", "aiobotocore", "aiohttp", "fsspec"),
    "the API's client (httpx, httpcore)": ("httpx", "httpcore", "h11"),
    "checks of images (this package, Pillow)": ("airflow_provider_bitdance/imaging", "PIL"),
    "journal, receipts, plans (this package, pydantic)": ("airflow_provider_bitdance", "pydantic"),
    "imports": ("<frozen importlib",),
    "event loop, sockets, threads": ("asyncio", "anyio", "concurrent", "threading", "selectors", "queue"),
    "Airflow": ("airflow/",),
}
"""Where time is counted: by the innermost function of a stack whose file begins so."""
WAITS = ("_worker (concurrent/", "Condition.wait (", "EpollSelector.select (", "CommsDecoder._read_frame (")
"""Innermost functions that only wait; on a loaded machine py-spy takes them for running."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What some tasks at the same time came to.

    :ivar rate: Images a second, from the first task's begin to the last one's end.
    :ivar cpu: Seconds of CPU time of the tasks' processes, an image.
    """

    rate: float
    cpu: float


class Course:
    """The runs of one measurement."""

    def __init__(self, cluster: Cluster, account: Account, folder: Path) -> None:
        self.cluster, self.account, self.folder = cluster, account, folder
        folder.mkdir()
        connection = {"connection_id": CONN_ID, "conn_type": "bitdance", "host": account.url}
        cluster.post("/connections", connection | {"password": account.api_key})

    def run(self, tasks: int, name: str, *, profile: bool = False) -> tuple[Speed, Path]:
        """Run so many tasks at once; return their speed, and the stacks of the first one where wanted."""
        self.account.reset()
        reports = [self.folder / f"{name}-{number}.json" for number in range(tasks)]
        stacks = self.folder / f"{name}.stacks"
        for report in reports:
            self._start(report)
        if profile:
            _record(reports[0].with_suffix(".pid"), stacks)
        for report in reports:
            state = self.cluster.wait_for_run(DAG_ID, report.stem, timeout=PATIENCE)
            assert state == "success", f"{report.stem} ended as {state}"
        workers = {self.cluster.worker_of(DAG_ID, report.stem, TASK_ID) for report in reports}
        assert len(workers) == tasks, f"the tasks ran on {workers}"
        assert self.account.books().billed == tasks * IMAGES
        said = [json.loads(report.read_text()) for report in reports]
        seconds = max(each["ended"] for each in said) - min(each["began"] for each in said)
        images = tasks * IMAGES
        return Speed(images / seconds, sum(each["cpu"] for each in said) / images), stacks

    def _start(self, report: Path) -> None:
        output = f"s3://{S3_CONN_ID}@{self.cluster.s3.bucket}/speed/{report.stem}/"
        conf = {
            "prompts": [f"picture {number} of {report.stem}" for number in range(IMAGES)],
            "output_path": output,
            "conn_id": CONN_ID,
            "report": str(report),
        }
        self.cluster.trigger(DAG_ID, conf=conf, run_id=report.stem)


def measure(cluster: Cluster, folder: Path) -> str:
    """Measure, and return what came of it as Markdown.

    :param cluster: Whose workers have one slot each, so that two tasks run on two workers.
    """
    options = ("--tier", "gold", "--latency", str(LATENCY))
    with Account(folder, *options) as account:
        course = Course(cluster, account, folder / "course")
        course.run(len(WORKERS), "warm-up")
        rounds = [(course.run(1, f"one-{n}")[0], course.run(2, f"two-{n}")[0]) for n in range(ROUNDS)]
        _, stacks = course.run(1, "profiled", profile=True)
    ones, twos = zip(*rounds, strict=True)
    one, two = _median(ones), _median(twos)
    lines = [
        f"| tasks of {IMAGES} images | images a second | CPU an image |",
        "| --- | ---: | ---: |",
        f"| one, on one worker | {one.rate:.1f} | {1000 * one.cpu:.0f} ms |",
        f"| two, each on a worker of its own | {two.rate:.1f} | {1000 * two.cpu:.0f} ms |",
        "",
        f"Two workers are {two.rate / one.rate:.2f} times as fast as one. CPU of one task, by py-spy:",
        "",
        "| where | share |",
        "| --- | ---: |",
        *(f"| {place} | {100 * share:.0f} % |" for place, share in _shares(stacks.read_text())),
    ]
    return "\n".join(lines)


def _median(speeds: Iterable[Speed]) -> Speed:
    speeds = list(speeds)
    return Speed(median(each.rate for each in speeds), median(each.cpu for each in speeds))


def _record(pid_file: Path, stacks: Path) -> None:
    """Sample a task's process until it ends: only threads that run, and the native ones with them."""
    until(pid_file.exists, lambda: None, "the task to begin")
    time.sleep(0.5)  # its number is written
    py_spy = str(Path(sys.executable).parent / "py-spy")
    command = [py_spy, "record", "--pid", pid_file.read_text(), "--format", "raw", "--rate", "50"]
    done = subprocess.run(
        [*command, "--output", str(stacks)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert stacks.exists(), done.stderr[-1000:]


def _shares(stacks: str) -> list[tuple[str, float]]:
    """Return the share of each place in some stacks, the largest one first.

    :param stacks: Lines of functions, outermost first, that end in the number of samples.
    """
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        functions = stack.split(";")
        if not functions[-1].startswith(WAITS):
            counted[_place(functions)] += int(samples)
    total = sum(counted.values())
    return [(place, samples / total) for place, samples in counted.most_common()]


def _place(functions: list[str]) -> str:
    for function in reversed(functions):
        file = function.rpartition("(")[2]
        for place, beginnings in PLACES.items():
            if file.startswith(beginnings):
                return place
    return "else"
