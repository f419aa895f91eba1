"""Places of purchases whose response is not recorded: handed on with the record, and never one too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, JobContext, Waiting, Wanted, run_job
from airflow_provider_bitdance.engine.unanswered import Unanswered
from airflow_provider_bitdance.exceptions import LostResponseError, StorageError
from airflow_provider_bitdance.records import Intended, Status
from airflow_provider_bitdance.records.events import Entry
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import (
    RECORDS,
    Crash,
    Fuse,
    MemoryFolder,
    SteppingFolder,
    World,
    a_job,
    a_wanted,
    refusal,
    run,
)
from tests.wire import httpx

IMAGES, MOST = 6, 2
BATCH: dict[str, Any] = {"is_batch": True, "max_in_flight": 9}


def many(count: int = IMAGES) -> list[Wanted]:
    return [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(count)]


def far_away(context: JobContext, answered: Callable[[], None] = lambda: None) -> JobContext:
    """Let the response to a submission take a moment, in which others come to wait for a place."""
    submit = context.client.submit

    async def slowly(request: ImageRequest) -> Prediction:
        made = await submit(request)
        await context.clock.sleep(0.3)
        answered()
        return made

    context.client.submit = slowly  # type: ignore[method-assign]
    return context


def entries(world: World) -> list[Entry]:
    paths = sorted(path for path in world.disk if "/jobs/" in path)
    return [Entry.model_validate_json(world.disk[path]) for path in paths]


def told(entry: Entry) -> list[str]:
    named = [event for event in entry.events if event.event in ("intended", "submitted")]
    return [f"{event.event} {event.keys[0] if isinstance(event, Intended) else event.key}" for event in named]


def most_open(world: World) -> int:
    """Return how many intents were open at most after any entry: what a kill there would have lost."""
    still_open: set[str] = set()
    highest = 0
    for entry in entries(world):
        for event in entry.events:
            if isinstance(event, Intended):
                still_open.update(event.keys)
            elif event.event in ("submitted", "not_created", "lost"):
                still_open.discard(event.key)
        highest = max(highest, len(still_open))
    return highest


def test_a_response_is_recorded_in_one_entry_with_the_intent_of_the_next_purchase() -> None:
    world = World()
    run(run_job(far_away(world.context(max_unanswered=1, **BATCH)), many(3)))
    assert [line for line in map(told, entries(world)) if line] == [
        ["intended k0"],
        ["submitted k0", "intended k1"],
        ["submitted k1", "intended k2"],
        ["submitted k2"],
    ]


def test_no_process_that_dies_anywhere_leaves_more_open_intents_than_there_are_places() -> None:
    alive = Fuse()
    run(run_job(far_away(World().context(step=alive, max_unanswered=MOST, **BATCH)), many()))
    for at in range(1, len(alive.steps) + 1):
        world = World()
        with pytest.raises(Crash):
            run(run_job(far_away(world.context(step=Fuse(at), max_unanswered=MOST, **BATCH)), many()))
        lost = world.context().journal.state.having(Status.INTENDED)
        assert len(lost) <= most_open(world) <= MOST
        world.clock.now += 3600
        outcome = run(run_job(world.context(try_number=2, max_unanswered=MOST, **BATCH), many()))
        assert isinstance(outcome, Finished)
        assert len(outcome.stored) == IMAGES
        assert world.api.billed <= IMAGES + len(lost)
        assert most_open(world) <= MOST


class FailingOnce(MemoryFolder):
    """A store that fails once, at one entry of a journal: before it is written, or after."""

    def __init__(self, world: World, at: int, *, writes: bool) -> None:
        super().__init__(world.disk, RECORDS)
        self.at, self.writes = at, writes

    def create(self, name: str, data: bytes) -> None:
        is_it = name.startswith("jobs/") and name.endswith(f"/{self.at:06}.json")
        if is_it:
            self.at = 0
        if self.writes or not is_it:
            super().create(name, data)
        if is_it:
            raise StorageError("The store took too long")


@pytest.mark.parametrize("writes", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("at", range(2, 9))
def test_a_store_that_fails_once_loses_no_response_and_buys_nothing_twice(at: int, *, writes: bool) -> None:
    world = World()
    world.api.echo = "history"
    for try_number in (1, 2, 3):
        context = far_away(world.context(try_number=try_number, max_unanswered=MOST, **BATCH))
        if try_number == 1:
            folder = SteppingFolder(FailingOnce(world, at, writes=writes), lambda _: None)
            context.journal._folder = folder
        with contextlib.suppress(StorageError):
            outcome = run(run_job(context, many()))
            assert isinstance(outcome, Finished)
            if len(outcome.stored) == IMAGES:
                break
        world.clock.now += 3600
    assert len(world.images) == world.api.billed == IMAGES
    assert most_open(world) <= MOST
    assert world.settle() == 0


def test_where_the_record_is_written_again_the_next_purchase_begins_with_it() -> None:
    """A store that fails for a second ends no batch, wherever in it that second is."""
    world = World()
    context = far_away(world.context(max_unanswered=1, **BATCH))
    context.journal._folder = SteppingFolder(FailingOnce(world, 3, writes=True), lambda _: None)
    outcome = run(run_job(context, many(3)))
    assert isinstance(outcome, Finished)
    assert (len(outcome.stored), outcome.stopped, world.api.billed) == (3, None, 3)


def test_a_purchase_begins_no_other_one_where_nothing_more_is_bought() -> None:
    world = World()
    killed = asyncio.Event()
    context = far_away(world.context(max_unanswered=1, killed=killed, **BATCH), killed.set)
    run(run_job(context, many(3)))
    assert [line for line in map(told, entries(world)) if line] == [["intended k0"], ["submitted k0"]]


def test_the_intent_of_the_claim_goes_first_so_that_no_other_is_open_beside_it() -> None:
    """The first image may be one that was stored and is gone: the claim has the intent of the second."""
    world = World()
    run(run_job(world.context(job=a_job(task_id="before"), **BATCH), many(1)))
    world.disk.pop(next(path for path in world.disk if path.endswith("k0.png")))
    world.clock.now += 8 * 24 * 3600
    context = world.context(max_unanswered=1, requests_per_minute=1, is_batch=True)
    run(run_job(far_away(context), many(3)))
    assert most_open(world) == 1


def test_an_intent_of_the_claim_that_is_not_sent_before_a_deferral_is_no_lost_purchase() -> None:
    world = World()
    limits: dict[str, Any] = {"requests_per_minute": 1, "defer_after": 0.0, "break_even": 5.0}
    context = world.context(is_batch=True, **limits)
    context.coordination.submitted.append(world.clock.now)  # by the Prompt Enhancer
    assert isinstance(run(run_job(context, many(1))), Waiting)
    assert world.api.posts == []
    assert world.unconfirmed == 0
    world.clock.now += 60
    assert isinstance(run(run_job(world.context(is_batch=True, max_in_flight=9), many(1))), Finished)
    assert (world.api.billed, world.api.histories) == (1, [])


def test_nothing_more_is_bought_while_an_intent_stays_open_because_the_history_cannot_be_read() -> None:
    """Each further purchase could be lost like that one, and none of them could be looked for."""
    world = World()
    world.api.on_post = [world.api.lose_answer] * IMAGES
    world.api.on_history = [httpx.Response(503)] * 100
    outcome = run(run_job(world.context(max_unanswered=1, **BATCH), many()))
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped, LostResponseError)
    assert (world.api.billed, most_open(world)) == (1, 1)


class RefusingFolder(MemoryFolder):
    """A store that takes no entry with a certain event, so many times."""

    refused, times = b"not_created", 1

    def create(self, name: str, data: bytes) -> None:
        if name.startswith("jobs/") and self.refused in data and self.times:
            self.times -= 1
            raise StorageError("The store is full")
        super().create(name, data)


@pytest.mark.parametrize(("times", "posts", "left"), [(1, 3, 0), (99, 1, 1)])
def test_that_a_purchase_was_refused_is_written_again_and_unwritten_it_ends_the_buying(
    times: int, posts: int, left: int
) -> None:
    world = World()
    world.api.on_post = [refusal(400, "no such size")] * 3
    folder = RefusingFolder(world.disk, RECORDS)
    folder.times = times
    context = world.context(max_unanswered=1, **BATCH)
    context.journal._folder = SteppingFolder(folder, lambda _: None)
    outcome = run(run_job(context, many(3)))
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped, StorageError) is (left > 0)
    assert len(world.api.posts) == posts
    assert len(world.context().journal.state.having(Status.INTENDED)) == left
    assert most_open(world) == 1


def intent(key: str) -> Intended:
    return Intended(keys=(key,))


async def queue(places: Unanswered, *keys: str) -> list[asyncio.Task[bool]]:
    waiting = [asyncio.create_task(places.enter(intent(key))) for key in keys]
    await asyncio.sleep(0)
    return waiting


async def recorded(*_: Intended) -> None:
    await asyncio.sleep(0)


def test_a_place_goes_to_the_purchase_that_has_waited_longest() -> None:
    async def scenario() -> None:
        places = Unanswered(1)
        assert not await places.enter(None)
        first, second = await queue(places, "a", "b")
        await places.hand_on(recorded)
        places.leave()
        assert await first
        assert not second.done()
        places.leave()
        assert not await second

    run(scenario())


def test_a_record_that_fails_ends_the_purchase_that_it_would_have_begun_and_no_place_is_lost() -> None:
    async def scenario() -> None:
        places = Unanswered(1)
        await places.enter(None)
        first, second = await queue(places, "a", "b")

        async def failing(*_: Intended) -> None:
            raise StorageError("no space left")

        with pytest.raises(StorageError):
            await places.hand_on(failing)
        with pytest.raises(StorageError):
            await first
        assert not second.done()
        places.leave()
        assert not await second
        places.leave()
        assert not await places.enter(intent("c"))

    run(scenario())


def test_a_purchase_that_is_cancelled_while_it_waits_takes_no_place_with_it() -> None:
    async def scenario() -> None:
        places = Unanswered(1)
        await places.enter(None)
        early, late, last = await queue(places, "a", "b", "c")
        early.cancel()
        await asyncio.sleep(0)
        await places.hand_on(recorded)
        places.leave()
        late.cancel()  # its place is there, and it has not been woken up
        with pytest.raises(asyncio.CancelledError):
            await late
        assert not await last

    run(scenario())


def test_a_purchase_whose_intent_is_written_already_writes_none_with_the_place_that_it_gets() -> None:
    async def scenario() -> list[Intended]:
        places, along = Unanswered(1), []
        await places.enter(None)
        waiting = asyncio.create_task(places.enter(None))
        await asyncio.sleep(0)

        async def record(*events: Intended) -> None:
            along.extend(events)

        await places.hand_on(record)
        assert await waiting
        return along

    assert run(scenario()) == []
