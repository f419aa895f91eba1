"""The model's world: tasks as Airflow sees them, the processes that run them, one disk, one account.

Airflow starts a try, loses sight of it, resumes it after a deferral, clears it. A process that Airflow no
longer knows may live on. What each process bought is noted here, and by nobody that the engine could ask.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Waiting, Wanted, run_job
from airflow_provider_bitdance.exceptions import BitDanceError, StorageError
from airflow_provider_bitdance.local import catalogue
from airflow_provider_bitdance.local.faults import parse
from airflow_provider_bitdance.local.inputs import checked
from airflow_provider_bitdance.maintenance.reconcile import Reconciliation
from airflow_provider_bitdance.records import Intended, Journal, Owner, Planned, Submitted
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.model.books import Books
from tests.model.process import MOST_STEPS, START, Crash, Process, WorldClock
from tests.model.service import HISTORIES, InProcess, service_with
from tests.model.tasks import SIZE, STREET, Task
from tests.unit.support import (
    API_KEY,
    API_URL,
    OUTPUT,
    RECORDS,
    FakeClock,
    MemoryFolder,
    a_job,
    a_plan,
    a_request,
    a_writer,
    no_lookup,
)

TRAVEL_SECONDS = (0.01, 0.02, 0.05, 0.5, 4.0)
TO_THE_END = 10**9
LONG_AFTER = 3600.0
"""Seconds after which nothing that was sent arrives any more, and the history shows what it ever will."""
STEPS_AN_IMAGE = 250
"""The same for a large batch: cleared, it reads a long journal at each search for a lost response."""
LOG = logging.getLogger("bitdance.model")
LOG.setLevel(logging.CRITICAL)  # a failing run is told by its rules; the engine's lines are thousands


class TaskProcess(Process):
    """A process of a task; what it bought, and whether it had been replaced by then."""

    def __init__(self, world: World, task: Task, wanted: list[Wanted], *, offset: float, seed: int) -> None:
        self.task = task
        self.offset = offset
        self.writer = Owner(
            job=task.job, try_number=task.try_number, host="worker", pid=1, token=f"{world.dice.random()}"
        )
        self.bought: set[str] = set()
        self.bought_late: set[str] = set()
        most_steps = max(MOST_STEPS, STEPS_AN_IMAGE * len(task.items))
        super().__init__(world.clock, lambda _: world.work(self, wanted), seed=seed, most_steps=most_steps)

    async def travel(self) -> None:
        """Take the time that a request, or its answer, is on its way: a step."""
        await asyncio.sleep(self.dice.choice(TRAVEL_SECONDS))


class _ProcessClock(Clock):
    """The clock of one worker, which is a little off."""

    def __init__(self, process: TaskProcess) -> None:
        self._process = process

    def time(self) -> float:
        return self._process.clock.now + self._process.offset

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Disk(MemoryFolder):
    """The disk as one process sees it: each call is a step, and a change is one before it and one after."""

    def __init__(self, world: World, process: TaskProcess, uri: str) -> None:
        super().__init__(world.disk, uri)
        self._world = world
        self._process = process

    def create(self, name: str, data: bytes) -> None:
        if f"{self.uri}/{name}" in self.disk:  # refused: nothing is written
            self._process.step()
            raise FileExistsError(name)
        self._change(name, super().create, data)

    def replace(self, name: str, data: bytes) -> None:
        self._change(name, super().replace, data)

    def remove(self, name: str) -> None:
        self._change(name, super().remove)

    def read(self, name: str) -> bytes | None:
        self._process.step()
        return super().read(name)

    def names(self, below: str) -> list[str]:
        self._process.step()
        return super().names(below)

    def _change(self, name: str, change: Callable[..., None], *data: bytes) -> None:
        self._process.step()
        self._world.fail_store("before", name)
        self._world.books.watch_change(self._process.writer, f"{self.uri}/{name}")
        change(name, *data)
        self._process.step()
        self._world.fail_store("after", name)


def errors_of(outcome: Finished) -> list[BitDanceError]:
    """Return why a task that has ended does not succeed. As an operator does, what stopped it first."""
    return [outcome.stopped] if outcome.stopped else [*outcome.failures.values()]


@dataclass
class World:
    """Everything that outlives a process.

    :param history: What the account's history is like, one of ``service.HISTORIES``.
    :param policy: Of all tasks.
    :param skew: Seconds by which the API's clock is ahead.
    """

    tasks: list[Task]
    policy: Policy
    history: str = "nothing echoed"
    skew: float = 0.0
    seed: int = 0
    clock: WorldClock = field(default_factory=WorldClock)
    disk: dict[str, bytes] = field(default_factory=dict)
    processes: list[TaskProcess] = field(default_factory=list)
    version: int = 0
    store_failures: list[str] = field(default_factory=list)
    unreachable: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.service, self._app = service_with(self.history)
        self.service.clock = lambda: self.clock.now + self.skew
        self.service.reset()
        self.books = Books(self.disk)
        self.bought_by_others: set[str] = set()
        self.weather: set[object] = set()
        self.similar = 0  # of these, with a prompt that tasks have, too

    @property
    def living(self) -> list[TaskProcess]:
        return [process for process in self.processes if not process.has_ended]

    @property
    def made(self) -> dict[str, Any]:
        """Every prediction of the account, by id: each was charged."""
        return {made.id: made for made in self.service.predictions()}

    async def work(self, process: TaskProcess, wanted: list[Wanted]) -> Finished | Waiting:
        """Do what an operator does in a worker's process."""
        clock = _ProcessClock(process)
        started_at = clock.time()
        records = _Disk(self, process, RECORDS)
        journal = Journal(records, process.writer)
        journal.load()
        transport = InProcess(self._app, travel=process.travel, connect=self._connect)
        rule = OutputRule(API_URL, resolve=no_lookup)
        settings = ClientSettings(API_KEY, base_url=API_URL)
        async with AsyncClient(settings, transport=transport, output_rule=rule) as client:
            context = JobContext(
                client=client,
                journal=journal,
                records=records,
                images=_Disk(self, process, OUTPUT),
                policy=self.policy,
                log=LOG,
                started_at=started_at,
                clock=clock,
                draw_seed=lambda: process.dice.randrange(2**31),
            )
            return await run_job(context, wanted)

    # What Airflow does.

    def start(self, task: Task, *, offset: float = 0.0) -> TaskProcess:
        """Start the next try, or resume a deferred one."""
        wanted = task.wanted(self.version)
        if task.state == "deferred":
            wanted = []  # as the operator does: a resume needs the journal and nothing else
        else:
            task.try_number += 1
        task.state = "running"
        task.process = TaskProcess(self, task, wanted, offset=offset, seed=self.dice.randrange(2**31))
        self.processes.append(task.process)
        return task.process

    def run(self, process: TaskProcess, steps: int = TO_THE_END) -> None:
        """Let a process go on, and note what it bought and how it ended."""
        process.run(steps)
        self._note(process)

    def crash(self, process: TaskProcess) -> None:
        process.kill()
        self._note(process)

    def wait_in_the_triggerer(self, task: Task) -> None:
        """Let time pass until the trigger of a deferred task has something to tell."""
        if isinstance(task.outcome, Waiting) and task.state == "deferred":
            outcome = task.outcome
            ends = [self.made[prediction_id].due_at - self.skew for prediction_id in outcome.pending]
            # Without a prediction of its own it waits by time, for what another task makes.
            due = max(ends, default=outcome.resume_at)
            self.clock.now = max(self.clock.now, min(due, outcome.deadline))

    def lose_sight(self, task: Task) -> None:
        """No heartbeat arrives: Airflow starts a new try, and the process lives on."""
        task.state, task.process = "retry", None

    def clear(self, task: Task) -> None:
        """A user clears the task; while it runs, that is a retry."""
        if task.state == "running":
            self.lose_sight(task)
            return
        task.generation += 1
        task.state, task.process, task.outcome = "none", None, None

    # What else happens.

    def spoil(self, **rule: object) -> None:
        self.weather.add(rule["kind"])
        self.service.faults.add(parse(rule))

    def buy_elsewhere(self, prompt: str) -> None:
        """Another program with the same key buys a picture."""
        model = catalogue.find(a_request().model)
        body = {"prompt": prompt, "size": SIZE, "seed": self.dice.randrange(2**31)}
        self.bought_by_others.add(self.service.submit(model.id, checked(model.inputs, body)).id)
        self.similar += prompt == STREET

    def calm(self) -> None:
        """No more faults from here on."""
        self.service.faults.clear()
        self.store_failures.clear()
        self.unreachable = 0

    def fail_store(self, moment: str, name: str) -> None:
        if self.store_failures and self.store_failures[0] == moment:
            self.store_failures.pop(0)
            raise StorageError(f"Could not write {name}: the store is away")

    def _connect(self) -> None:
        if self.unreachable:
            self.unreachable -= 1
            from tests.wire import httpx

            raise httpx.ConnectError("no route")

    def _note(self, process: TaskProcess) -> None:
        known = self.bought_by_others.union(*(other.bought for other in self.processes))
        new = self.made.keys() - known
        process.bought |= new
        if self.books.is_replaced(process.writer):
            process.bought_late |= new
        if process.has_ended:
            self._note_end(process)

    def _note_end(self, process: TaskProcess) -> None:
        outcome = process.outcome
        if isinstance(outcome, BaseException) and not isinstance(outcome, BitDanceError | Crash):
            raise AssertionError(f"an error that is none of the package's: {outcome!r}") from outcome
        task = process.task
        if task.process is not process:
            return  # Airflow does not know it any more
        task.process, task.outcome = None, outcome
        if isinstance(outcome, Finished):
            errors = errors_of(outcome)
            retry_helps = any(error.retry_helps for error in errors)
            task.state = "success" if not errors else "retry" if retry_helps else "failed"
        elif isinstance(outcome, Waiting):
            task.state = "deferred"
        elif isinstance(outcome, BitDanceError) and not outcome.retry_helps:
            task.state = "failed"
        else:
            task.state = "retry"

    def audit(self) -> None:
        """Compare the records with each other, with the pictures and with the bill.

        :raises AssertionError: Something is not as it was promised.
        """
        self.books.read()
        made = self.made
        self.books.check_receipts(made)
        self.books.check_money(
            made.keys() - self.bought_by_others,
            under_way=set().union(*(process.bought for process in self.living)),
            excused=set().union(*(process.bought_late for process in self.processes if process.has_ended)),
        )
        if self.policy.if_exists == "reuse":
            self.books.check_bought_once()
        kind = HISTORIES[self.history]
        if kind.shows and kind.is_up:
            self.books.check_all_is_found(self._silent())

    def settle(self) -> None:
        """Let another task of the Dag run buy, so late that it is a control, and reconcile; then audit.

        :raises AssertionError: Nothing was made, and it stays possibly paid; or a charge is silent by then.
        """
        self.clock.now += LONG_AFTER
        later = Journal(MemoryFolder(self.disk, RECORDS), a_writer(job=a_job(task_id="later")))
        model = catalogue.find(a_request().model)
        request = a_request("a later one", size=SIZE, seed=1)
        body = request.model_dump(include={"prompt", "size", "seed"})
        # One that the history never shows is no control.
        made = self.service.submit(model.id, checked(model.inputs, body))
        while made.listed_at == math.inf:
            self.bought_by_others.add(made.id)
            made = self.service.submit(model.id, checked(model.inputs, body))
        image = a_plan("later", stem="later").model_copy(update={"request": request})
        plan = Planned(output=OUTPUT, images=(image,))
        later.claim(self.clock.now, self.clock.now, plan, Intended(keys=("later",)))
        later.append(self.clock.now, Submitted(key="later", prediction_id=made.id))
        self.clock.now += LONG_AFTER
        self._reconcile()
        self.audit()
        unconfirmed = self.books.unconfirmed
        made = len(self.made.keys() - self.bought_by_others - self.books.named)
        if HISTORIES[self.history].shows:
            most = made + self.similar
            assert unconfirmed <= most, f"{unconfirmed} stay possibly paid, and {made} were made"

    def _reconcile(self) -> None:
        clock = FakeClock(self.clock.now)
        self.service.clock = lambda: clock.now + self.skew

        async def at_once() -> None:
            await asyncio.sleep(0)

        settings = ClientSettings(API_KEY, base_url=API_URL)
        transport = InProcess(self._app, travel=at_once, connect=lambda: None)
        Reconciliation(
            client=AsyncClient(
                settings, transport=transport, output_rule=OutputRule(API_URL, resolve=no_lookup)
            ),
            records=MemoryFolder(self.disk, RECORDS),
            open_folder=lambda uri: MemoryFolder(self.disk, uri),
            outputs=(OUTPUT,),
            since=datetime.fromtimestamp(START - 3600, UTC),
            include_running=True,
            policy=self.policy,
            clock=clock,
        ).run()
        self.clock.now = clock.now
        self.service.clock = lambda: self.clock.now + self.skew

    def _silent(self) -> set[str]:
        """Return what was charged and is in no journal, nor under way in a living process."""
        under_way = set[str]().union(*(process.bought for process in self.living))
        excused = set[str]().union(*(process.bought_late for process in self.processes))
        charged = self.made.keys() - self.bought_by_others
        return charged - self.books.named - under_way - excused

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.living:
            process.kill()
