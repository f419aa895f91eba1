"""A process that another one has replaced, or that Airflow has stopped, sends and intends nothing more."""

from __future__ import annotations

import asyncio
import random

import pytest

from airflow_provider_bitdance.engine import Finished, run_job
from airflow_provider_bitdance.exceptions import FencedError, StorageError, TaskKilledError
from airflow_provider_bitdance.records import Journal, Planned
from airflow_provider_bitdance.records.events import Intended
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    START,
    Busy,
    MemoryFolder,
    World,
    a_plan,
    a_wanted,
    a_writer,
    run,
)
from tests.wire import httpx


class LostResponses(MemoryFolder):
    """A store whose next write works, and says that it failed."""

    is_next = False

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        if self.is_next:
            self.is_next = False
            raise StorageError("the response was lost")


def test_an_entry_that_an_earlier_call_has_written_is_not_of_this_moment() -> None:
    disk: dict[str, bytes] = {}
    folder = LostResponses(disk, RECORDS)
    first = Journal(folder, a_writer())
    first.claim(START + 600, START, Planned(output=OUTPUT, images=(a_plan(),)))
    folder.is_next = True
    with pytest.raises(StorageError):
        first.append(START + 1, Intended(keys=("image",)))
    second = Journal(MemoryFolder(disk, RECORDS), a_writer(try_number=2))
    second.load()
    second.claim(START + 600, START + 5)

    first.append(START + 11, Intended(keys=("image",)))

    assert first.written_at <= START + 1


def test_a_replaced_process_whose_write_had_worked_sends_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    world = World()
    posts_at_claim: list[int] = []

    class Partitioned(MemoryFolder):
        """The record of pred-2 is written, and the response lost; before it is written again, another process
        takes the job over."""

        tries = 0

        def create(self, name: str, data: bytes) -> None:
            if b'"pred-2"' in data and b'"submitted"' in data:
                self.tries += 1
                if self.tries == 1:
                    super().create(name, data)
                    raise StorageError("the response was lost")
                if self.tries == 2:
                    second = Journal(MemoryFolder(world.disk, RECORDS), a_writer(try_number=2))
                    second.load()
                    second.claim(world.clock.now + 600, world.clock.now)
                    posts_at_claim.append(len(world.api.posts))
            super().create(name, data)

    world.api.on_post = [world.api.answer_rightly, world.api.answer_rightly, httpx.ConnectError("no route")]
    context = world.context(is_batch=True)
    context.journal._folder = Partitioned(world.disk, RECORDS)

    with pytest.raises(FencedError):
        run(run_job(context, [a_wanted(f"p{key}", key=key, name=key) for key in "abc"]))

    assert posts_at_claim == [len(world.api.posts)]


def test_what_waits_for_its_place_intends_nothing_once_the_task_is_stopped() -> None:
    async def scene() -> tuple[int, int]:
        asyncio.get_running_loop().set_default_executor(Busy())
        world, killed, before = World(), asyncio.Event(), list[int]()

        def step(name: str) -> None:
            if name == "before POST" and not killed.is_set():
                killed.set()
                before.append(world.event_names.count("intended"))

        context = world.context(is_batch=True, max_unanswered=1, killed=killed, step=step)
        wanted = [a_wanted(f"p{number}", key=f"k{number}", name=f"k{number}") for number in range(6)]
        outcome = await run_job(context, wanted)
        assert isinstance(outcome, Finished)
        assert isinstance(outcome.stopped, TaskKilledError)
        return before[0], world.event_names.count("intended")

    before, after = asyncio.run(scene())

    assert after == before
