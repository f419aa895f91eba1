"""How long a process takes to read the journal of a large job that it enters: `python -m benchmarks.reentry`.

The journal is made by the engine's own writers, on a clock of its own that nobody waits for; it is then read
in earnest, from a store on which each operation takes 30 ms. No API and no Airflow takes part.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.records import (
    Intended,
    Job,
    Journal,
    Owner,
    Planned,
    PlannedImage,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.group_commit import GroupCommit
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

OPERATION_SECONDS = 0.03
"""What one operation of a store far away takes."""
NAMES_A_PAGE = 1000
"""Object stores list so many names with one operation."""
START = 1_780_000_000.0
TIMEOUT = 600.0

UNANSWERED = 8
"""The engine has so many submissions without a recorded response at a time."""
STORING = 8
POST_SECONDS = (0.2, 0.6)
LATENCY_SECONDS = (4.0, 9.0)
DOWNLOAD_SECONDS = (0.3, 0.8)
RECORDS_A_STORED_IMAGE = 6
"""Operations between the end of a download and its event: image, receipt, and checks before each."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast the account lets the job go.

    :param a_minute: Submissions; infinite where only the engine's own bound holds.
    """

    name: str
    a_minute: float


RATES = (
    Rate("as fast as the engine goes", math.inf),
    Rate("500 a minute (silver)", 500.0),
    Rate("100 a minute", 100.0),
)


class Store:
    """A store in memory, whose operations take their time once :attr:`is_slow` is set.

    :param connections: So many operations go on at once.
    :ivar operations: How many there were.
    """

    endpoint = ""

    def __init__(self, connections: int) -> None:
        self.uri = "mem://records"
        self.files: dict[str, bytes] = {}
        self.operations = 0
        self.is_slow = False
        self._connections = threading.Semaphore(connections)

    def _operate(self, count: int = 1) -> None:
        self.operations += count
        if self.is_slow:
            with self._connections:
                time.sleep(OPERATION_SECONDS * count)

    def is_exclusive(self) -> bool:
        """Return true: a dictionary decides."""
        return True

    def create(self, name: str, data: bytes) -> None:
        """Write a new file."""
        self._operate()
        if self.files.setdefault(name, data) is not data:
            raise FileExistsError(name)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file."""
        self._operate()
        self.files[name] = data

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none."""
        self._operate()
        return self.files.get(name)

    def size(self, name: str) -> int | None:
        """Return a file's size, or ``None`` where there is none."""
        data = self.read(name)
        return None if data is None else len(data)

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._operate()
        self.files.pop(name, None)

    def remove_folder(self, name: str) -> None:
        """Delete all files below a folder."""
        for each in self.names(name):
            self.remove(each)

    def names(self, below: str) -> list[str]:
        """Return the names of all files below a folder."""
        found = [name for name in self.files if name.startswith(f"{below}/")]
        self._operate(1 + len(found) // NAMES_A_PAGE)
        return found


class _LoopClock(Clock):
    """The time of the event loop."""

    def time(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time leaps to the next timer. What it gives to a thread takes one operation."""

    def __init__(self) -> None:
        super().__init__()
        self._now = START
        self._clock_resolution = 1e-4  # Unix time as a float has no finer one

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()

        def call() -> None:
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(OPERATION_SECONDS, call)
        return future


def a_journal(store: Store, token: str) -> Journal:
    """Return the journal as a new process has it before it reads it."""
    job = Job(dag_id="benchmark", run_id="run", task_id="images", map_index=-1, generation=2)
    return Journal(store, Owner(job=job, try_number=1, host="worker", pid=1, token=token))


def a_plan(images: int) -> Planned:
    """Return the plan of a batch."""
    return Planned(
        output="s3://images/catalogue",
        is_batch=True,
        images=tuple(
            PlannedImage(
                key=f"product-{number:05}",
                request=ImageRequest(prompt=f"Product {number} on white, soft light", seed=number),
                seed_asked=-1,
                fingerprint=f"{number:064x}",
                stem=f"product-{number:05}",
                estimated_cost_usd=0.01,
                columns={"product_id": number},
            )
            for number in range(images)
        ),
    )


async def write_journal(journal: Journal, plan: Planned, done: int, rate: Rate) -> None:
    """Buy and store images as the engine does, as far as the journal is concerned."""
    loop, dice = asyncio.get_running_loop(), random.Random(20)
    group_commit = GroupCommit(journal, _LoopClock())
    unanswered, storing = asyncio.Semaphore(UNANSWERED), asyncio.Semaphore(STORING)

    async def carry(key: str) -> None:
        try:
            await group_commit.write(Intended(keys=(key,)))
            await asyncio.sleep(dice.uniform(*POST_SECONDS))
            await group_commit.write(Submitted(key=key, prediction_id=f"{dice.getrandbits(128):032x}"))
        finally:
            unanswered.release()
        await asyncio.sleep(dice.uniform(*LATENCY_SECONDS))
        async with storing:
            records = RECORDS_A_STORED_IMAGE * OPERATION_SECONDS
            await asyncio.sleep(dice.uniform(*DOWNLOAD_SECONDS) + records)
        receipt = f"{journal.uri}/receipts/catalogue-{key}-{dice.getrandbits(64):016x}.json"
        await group_commit.write(Stored(key=key, receipt=receipt))

    journal.claim(START + TIMEOUT, START, plan)
    async with asyncio.TaskGroup() as group:
        for number, image in enumerate(plan.images[:done]):
            due = START + number * 60 / rate.a_minute
            await asyncio.sleep(max(0.0, due - loop.time()))
            await unanswered.acquire()
            group.create_task(carry(image.key))


def measure(rate: Rate, images: int, done: int, connections: int) -> str:
    """Write a journal, enter it, and return a line of the table."""
    store = Store(connections)
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(write_journal(a_journal(store, "first"), a_plan(images), done, rate))
    size = sum(map(len, store.files.values()))
    store.is_slow, store.operations = True, 0
    start, cpu = time.perf_counter(), time.process_time()
    state = a_journal(store, "second").load()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    assert len(state.having(Status.STORED)) == done
    return (
        f"{rate.name:28} {len(store.files):8} {size / 1e6:8.1f} {store.operations:11} "
        f"{seconds:8.1f} {cpu_seconds:6.1f}"
    )


def main() -> None:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reentry", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="of the job (default: %(default)s)")
    parser.add_argument("--done", type=float, default=0.9, help="share that is stored (default: %(default)s)")
    parser.add_argument(
        "--connections",
        type=int,
        default=1000,
        help="operations that the store's client has under way at most; s3fs has 10 (default: %(default)s)",
    )
    given = parser.parse_args()
    print(f"{given.images} images, {given.done:.0%} stored, {OPERATION_SECONDS * 1000:.0f} ms an operation")
    print(f"{'rate':28} {'entries':>8} {'MB':>8} {'operations':>11} {'seconds':>8} {'CPU s':>6}")
    for rate in RATES:
        print(measure(rate, given.images, round(given.images * given.done), given.connections), flush=True)


if __name__ == "__main__":
    main()
