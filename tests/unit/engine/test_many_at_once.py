"""What can go wrong where many images of one job move at once: each was seen to, before it was mended."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Wanted, run_job
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.records import Journal, NotCreated, Status
from airflow_provider_bitdance.records.events import Claimed
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from tests.unit.support import (
    RECORDS,
    MemoryFolder,
    World,
    a_job,
    a_wanted,
    a_writer,
    envelope,
    refusal,
    run,
)
from tests.wire import httpx

Respond = Callable[[httpx.Request], httpx.Response]


def many(count: int) -> list[Wanted]:
    return [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}", named=True) for n in range(count)]


class SlowFolder(MemoryFolder):
    """A store with latency, so that threads meet."""

    def read(self, name: str) -> bytes | None:
        time.sleep(0.001)
        return super().read(name)

    def create(self, name: str, data: bytes) -> None:
        time.sleep(0.001)
        super().create(name, data)


def test_a_process_that_is_replaced_during_eight_purchases_writes_each_of_them_down() -> None:
    world = World()
    context = world.context(max_in_flight=8)
    context.journal._folder = SlowFolder(world.disk, RECORDS)
    submit, sent, all_sent = context.client.submit, [], asyncio.Event()

    async def held(request: ImageRequest) -> Any:
        made = await submit(request)
        sent.append(made.id)
        if len(sent) == 8:
            other = Journal(MemoryFolder(world.disk, RECORDS), a_writer(try_number=2))
            other.load()
            other.claim(world.clock.now + 600, world.clock.now)
            for image in other.state.having(Status.INTENDED):
                other.append(world.clock.now, NotCreated(key=image.plan.key, reason="not in the history yet"))
            all_sent.set()
        await all_sent.wait()
        return made

    context.client.submit = held  # type: ignore[method-assign]
    with pytest.raises(BitDanceError):
        run(run_job(context, many(8)))
    assert world.unconfirmed == world.api.billed == 8


def slow(world: World, seconds: float) -> Respond:
    def respond(request: httpx.Request) -> httpx.Response:
        made = world.api.create(json.loads(request.content))
        made.created += seconds
        return envelope(world.api._explained(made))

    return respond


@pytest.mark.parametrize(
    "policy", [{"on_item_failure": "fail_fast"}, {"on_item_failure": "tolerate", "max_failures": 0}]
)
def test_what_a_failure_stopped_stays_stopped_after_a_deferral(policy: dict[str, Any]) -> None:
    world = World(latency=20)
    world.api.on_post = [
        world.api.answer_failing(status="failed", code=1200),
        *(slow(world, 500) for _ in range(99)),
    ]
    for _ in range(12):
        context = world.context(defer_after=5.0, max_in_flight=4, timeout=3000.0, is_batch=True, **policy)
        outcome = run(run_job(context, many(40)))
        if isinstance(outcome, Finished):
            break
        world.clock.now += 100
    assert isinstance(outcome, Finished)
    assert outcome.stopped is not None
    assert world.api.billed <= 5


@pytest.mark.parametrize("answer", ["failed", "refused"])
def test_a_failed_image_of_a_busy_batch_does_not_get_the_batch_taken_for_dead(answer: str) -> None:
    world = World(latency=60)
    world.api.on_post = [
        world.api.answer_failing(status="failed", code=1200) if answer == "failed" else refusal(400, "no")
    ]
    seen = {"failed": "failed", "refused": "not_created"}[answer]

    async def both() -> Any:
        pace: dict[str, Any] = {"requests_per_minute": 1, "timeout": 600.0}
        busy = world.context(job=a_job(task_id="one"), is_batch=True, **pace)
        one = asyncio.create_task(run_job(busy, many(5)))
        while not any(event["event"] == seen for event in world.events):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        two = run_job(world.context(job=a_job(task_id="two")), many(1))
        return await asyncio.gather(one, two, return_exceptions=True)

    one, _ = run(both())
    assert isinstance(one, Finished)


@pytest.mark.parametrize("_", range(3))
def test_a_budget_that_is_exactly_enough_is_enough(_: int) -> None:
    world = World()
    outcome = run(run_job(world.context(max_cost_usd=0.60, is_batch=True), many(60)))
    assert isinstance(outcome, Finished)
    assert (len(outcome.stored), outcome.stopped) == (60, None)


def test_a_try_loses_no_more_answers_of_an_image_when_deferrals_cut_it_in_pieces() -> None:
    world = World(latency=2000)
    answer = world.api._answer

    def losing(kind: str, request: httpx.Request) -> httpx.Response:
        if kind == "POST" and json.loads(request.content)["prompt"] == "prompt 0":
            world.api.posts.append(json.loads(request.content))
            world.api.lose_answer(request)
        return answer(kind, request)

    world.api._answer = losing  # type: ignore[method-assign]
    for _ in range(5):
        run(run_job(world.context(defer_after=1.0, timeout=3000.0), many(2)))
        world.clock.now += 30
    assert sum(post["prompt"] == "prompt 0" for post in world.api.posts) <= 3


@pytest.mark.parametrize("kind", ["reused", "changed"])
def test_what_holds_for_many_images_is_told_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    run(run_job(world.context(), many(100)))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        if kind == "reused":
            run(run_job(world.context(job=a_job(run_id="next")), many(100)))
        else:
            changed = [a_wanted("other", key=f"k{n}", name=f"k{n}", named=True) for n in range(100)]
            run(run_job(world.context(try_number=2), changed))
    assert len(caplog.records) < 10


def test_an_unexpected_error_stops_the_buying_and_keeps_what_is_under_way() -> None:
    world = World()
    context = world.context()
    download, failed = context.client.download, []

    async def full(url: str, into: Any, *, max_bytes: int) -> None:
        if not failed:
            failed.append(url)
            raise OSError("no space for a temporary file")
        await download(url, into, max_bytes=max_bytes)

    context.client.download = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space"):
        run(run_job(context, many(8)))
    state = world.context().journal.state
    assert {image.status for image in state.images.values()} <= {Status.STORED, Status.SUBMITTED}
    assert world.unconfirmed == 0


def test_a_deadline_that_cannot_be_moved_on_stops_the_buying() -> None:
    world = World(latency=1)
    posts: list[int] = []

    def step(name: str) -> None:
        if name.startswith("before create") and len(world.api.posts) == 3:
            posts.append(len(world.api.posts))

    context = world.context(requests_per_minute=1, timeout=100.0, step=step)
    write = context.journal.append

    def refusing(now: float, *events: Any) -> Any:
        from airflow_provider_bitdance.exceptions import StorageError

        if isinstance(events[0], Claimed) and len(world.api.posts) >= 3:
            raise StorageError("down")
        return write(now, *events)

    context.journal.append = refusing  # type: ignore[method-assign]
    with pytest.raises(BitDanceError, match="down"):
        run(run_job(context, many(9)))
    assert len(world.api.posts) <= 4


def test_two_purchases_that_are_answered_with_one_prediction_are_not_both_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A gateway repeats one response to all: the job must neither hang nor show one picture twice."""
    world = World()
    world.api.echo = "history"

    def repeat(request: httpx.Request) -> httpx.Response:
        world.api.create(json.loads(request.content))
        return envelope({"id": "pred-1", "status": "created"})

    world.api.on_post = [repeat, repeat, repeat]
    context = world.context(max_in_flight=3)
    submit, answered, both = context.client.submit, [], asyncio.Event()

    async def together(request: ImageRequest) -> Any:
        """Hold the first response back until there is a second: the journal knows of neither."""
        answered.append(made := await submit(request))
        if len(answered) >= 2:
            both.set()
            await asyncio.sleep(0)  # whose response it is has it first
        await both.wait()
        return made

    context.client.submit = together  # type: ignore[method-assign]
    finished = run(run_job(context, many(3)))
    assert isinstance(finished, Finished)
    shown = {key: result["prediction_id"] for key, result in finished.stored.items()}
    assert len(set(shown.values())) == len(shown) == 3
    for key, name in shown.items():
        assert world.api.made[name].body["prompt"] == f"prompt {key[1:]}"
    assert world.api.billed == 3
