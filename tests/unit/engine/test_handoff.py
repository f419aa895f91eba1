"""A job that gives its worker back with more to buy: nothing is lost, sent too early, or waited for ever."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Waiting, Wanted, run_job
from airflow_provider_bitdance.engine.handoff import WaitsFor, waits_for
from airflow_provider_bitdance.exceptions import PredictionTimeoutError, RateLimitError, StorageError
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.records import Status
from tests.unit.support import (
    RECORDS,
    START,
    Crash,
    FakePrediction,
    MemoryFolder,
    World,
    a_job,
    a_wanted,
    envelope,
    refusal,
    run,
)
from tests.wire import httpx

DEFERRABLE: dict[str, Any] = {"defer_after": 20.0, "break_even": 14.0, "is_batch": True}


def many(count: int) -> list[Wanted]:
    return [a_wanted(f"prompt {number}", key=f"k{number}", name=f"k{number}") for number in range(count)]


def leg(world: World, count: int, **context: Any) -> Finished | Waiting:
    """Run one process of a deferrable batch."""
    return run(run_job(world.context(**DEFERRABLE, **context), many(count)))


def stuck(world: World) -> Callable[[httpx.Request], httpx.Response]:
    """Return a response whose prediction never ends."""

    def answer(request: httpx.Request) -> httpx.Response:
        made = world.api.create(json.loads(request.content))
        made.created += 1e9
        return envelope({"id": made.id, "status": "created"})

    return answer


def first_purchase(world: World) -> float:
    return min(made.created for made in world.api.made.values()) - START


def test_a_job_whose_only_place_in_flight_is_stuck_ends_at_its_deadline() -> None:
    world = World(latency=5)
    world.api.on_post = [stuck(world)]
    outcome: Finished | Waiting = leg(world, 2, max_in_flight=1, timeout=120.0)
    assert isinstance(outcome, Waiting)
    world.clock.now = outcome.deadline
    outcome = leg(world, 2, max_in_flight=1, timeout=120.0)
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped, PredictionTimeoutError)


def test_in_the_worker_it_ends_at_its_deadline_too() -> None:
    world = World(latency=5)
    world.api.on_post = [stuck(world)]
    outcome = run(run_job(world.context(max_in_flight=1, timeout=120.0, is_batch=True), many(2)))
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped, PredictionTimeoutError)
    assert world.clock.now - START < 130


def test_at_the_deadline_all_that_have_ended_are_stored() -> None:
    world = World(latency=60)
    world.api.on_post = [stuck(world)]
    outcome = leg(world, 6)
    assert isinstance(outcome, Waiting)
    world.clock.now = outcome.deadline + 4
    outcome = leg(world, 6)
    assert isinstance(outcome, Finished)
    assert (len(outcome.stored), list(outcome.failures)) == (5, ["k0"])


@pytest.mark.parametrize("latency", [19.5, 20.5, 21.5, 25.0, 31.0])
def test_no_more_ends_are_waited_for_than_there_may_be(latency: float) -> None:
    world = World(latency=latency)

    def slow_store(step: str) -> None:
        if step.startswith("before create") and world.clock.now - START > 19.0:
            world.clock.now += 2

    outcome = leg(world, 2, max_in_flight=1, step=slow_store)
    if isinstance(outcome, Waiting):
        assert outcome.enough <= len(outcome.pending)


def test_to_wait_for_more_than_there_is_ends_at_once() -> None:
    world = World()

    async def wait() -> None:
        await wait_for(Poller(world.api.client(), clock=world.clock), {}, until=START + 600, enough=1)

    run(wait())
    assert world.clock.now == START


@pytest.mark.parametrize("limit", [{"max_in_flight": 1}, {"requests_per_minute": 1}])
def test_no_intent_is_open_while_a_retry_rests_at_once(limit: dict[str, int]) -> None:
    world = World(latency=200)
    assert isinstance(leg(world, 2, **limit), Waiting)
    world.clock.now += 5
    outcome = leg(world, 2, try_number=2, **limit)
    assert isinstance(outcome, Waiting)
    assert not world.context().journal.state.having(Status.INTENDED)
    assert outcome.to_buy == 1


def test_what_was_never_sent_is_neither_in_doubt_nor_possibly_paid() -> None:
    world = World(latency=200)
    leg(world, 2, max_in_flight=1)
    world.clock.now += 5
    leg(world, 2, try_number=2, max_in_flight=1)
    for _ in range(3):
        world.api.create({"prompt": "by another program", "seed": 1})
    world.clock.now = START + 210
    leg(world, 2, try_number=2, max_in_flight=1, on_lost_response="fail")
    assert len(world.api.posts) == 2
    assert "lost" not in world.event_names


class Failing(MemoryFolder):
    """A store that fails once at an entry with such an event, before or after it is written."""

    event, is_written = "", False

    def create(self, name: str, data: bytes) -> None:
        is_met = self.event and f'"{self.event}"'.encode() in data and name.startswith("jobs/")
        if is_met and not self.is_written:
            self.event = ""
            raise StorageError("503")
        super().create(name, data)
        if is_met:
            self.event = ""
            raise StorageError("time-out")


@pytest.mark.parametrize("is_written", [True, False])
def test_an_intent_that_was_never_sent_is_withdrawn_where_the_store_fails_for_a_moment(
    *, is_written: bool
) -> None:
    world = World()
    context = world.context(**DEFERRABLE, requests_per_minute=3)
    context.coordination.submitted.extend([world.clock.now] * 3)  # by the Prompt Enhancer
    folder = Failing(world.disk, RECORDS)
    folder.event, folder.is_written = "not_created", is_written
    context.journal._folder = folder
    outcome = run(run_job(context, many(3)))
    assert isinstance(outcome, Waiting)
    assert not world.context().journal.state.having(Status.INTENDED)


@pytest.mark.parametrize("is_batch", [True, False])
def test_a_claim_that_was_written_though_its_write_seemed_to_fail_is_no_loss(*, is_batch: bool) -> None:
    world = World()
    context = world.context(is_batch=is_batch, on_lost_response="fail")
    folder = Failing(world.disk, RECORDS)
    folder.event, folder.is_written = "planned", True
    context.journal._folder = folder
    outcome = run(run_job(context, many(1)))
    assert isinstance(outcome, Finished)
    assert (len(outcome.stored), world.api.billed, world.unconfirmed) == (1, 1, 0)


@pytest.mark.parametrize("try_number", [1, 2])
def test_nothing_is_sent_before_the_time_that_the_api_asked_for(try_number: int) -> None:
    world = World(latency=5)
    world.api.on_post = [refusal(429, Retry_After="50")]
    outcome = leg(world, 3)
    assert isinstance(outcome, Waiting)
    world.clock.now = outcome.resume_at - 3  # as the trigger fires: a moment early
    leg(world, 3, try_number=try_number)
    assert first_purchase(world) >= 50


def test_a_retry_during_a_rest_rests_again() -> None:
    world = World(latency=5)
    world.api.on_post = [refusal(429, Retry_After="50")]
    leg(world, 3)
    world.clock.now += 3
    assert isinstance(leg(world, 3, try_number=2), Waiting)
    assert world.api.billed == 0


def test_a_submission_that_nobody_recorded_counts_against_the_minute() -> None:
    world = World(latency=5)
    world.api.echo = "history"

    def killed(step: str) -> None:
        if step == "after POST":
            raise Crash(step)

    with pytest.raises(Crash):
        leg(world, 2, requests_per_minute=1, step=killed)
    world.clock.now += 1
    leg(world, 2, try_number=2, requests_per_minute=1)
    made = sorted(prediction.created for prediction in world.api.made.values())
    assert all(later - sooner >= 60 for sooner, later in pairwise(made))


def test_a_rate_and_a_short_timeout_end_where_the_account_refuses_for_ever() -> None:
    world = World(latency=5)
    world.api.on_post = [refusal(429) for _ in range(500)]
    outcome: Finished | Waiting = leg(world, 3, requests_per_minute=1, timeout=30.0)
    for _ in range(20):
        if isinstance(outcome, Finished):
            break
        world.clock.now = max(world.clock.now + 10, outcome.resume_at - 4)
        outcome = leg(world, 3, requests_per_minute=1, timeout=30.0)
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped, RateLimitError)
    assert world.clock.now - START < 240


def test_the_store_is_not_asked_all_the_time_while_one_submission_tries_it() -> None:
    world = World(latency=5)
    reads = 0
    context = world.context(is_batch=True)
    original = context.records.read

    def reading(name: str) -> bytes | None:
        nonlocal reads
        reads += 1
        return original(name)

    def slow(request: httpx.Request) -> httpx.Response:
        world.clock.now += 10
        return world.api.answer_rightly(request)

    context.records.read = reading  # type: ignore[method-assign]
    world.api.on_post = [refusal(429), slow]
    run(run_job(context, many(8)))
    assert world.api.billed == 8
    assert reads < 120


def test_a_batch_whose_first_images_are_slow_is_not_slow_to_its_end() -> None:
    world = World(latency=5)

    def late(request: httpx.Request) -> httpx.Response:
        made = world.api.create(json.loads(request.content))
        made.created += 55
        return envelope({"id": made.id, "status": "created"})

    world.api.on_post = [late] * 10
    run(run_job(world.context(max_in_flight=10, timeout=3000.0, is_batch=True), many(60)))
    assert world.clock.now - START < 1.5 * (60 + 5 * 5)


@pytest.mark.parametrize(
    ("status", "a_minute", "bad", "count"),
    [(400, 2, 2, 6), (400, 10, 10, 40), (500, 2, 1, 2), (500, 2, 1, 6)],
)
def test_images_that_fail_at_their_purchase_do_not_keep_the_others_from_theirs(
    status: int, a_minute: int, bad: int, count: int
) -> None:
    world = World(latency=5)
    refused = {f"prompt {number}" for number in range(bad)}

    def answer(request: httpx.Request) -> httpx.Response:
        world.api.on_post.append(answer)
        is_bad = json.loads(request.content)["prompt"] in refused
        return refusal(status, "not this one") if is_bad else world.api.answer_rightly(request)

    world.api.on_post = [answer]
    for _ in range(20):
        outcome = leg(world, count, requests_per_minute=a_minute)
        if isinstance(outcome, Finished):
            break
        world.clock.now = max(world.clock.now + 14, outcome.resume_at)
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == count - bad
    assert len(world.api.posts) <= count + 3 * bad


@pytest.mark.parametrize("way_back", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("asked", ["20", "40", "60"])
def test_a_job_that_is_always_refused_ends_within_its_timeout(asked: str, way_back: float) -> None:
    world = World()

    def answer(request: httpx.Request) -> httpx.Response:
        world.api.on_post.append(answer)
        return refusal(429, Retry_After=asked)

    world.api.on_post = [answer]
    for _ in range(100):
        outcome = leg(world, 3, timeout=600.0)
        if isinstance(outcome, Finished):
            break
        world.clock.now = outcome.resume_at + way_back
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.stopped or next(iter(outcome.failures.values())), RateLimitError)
    assert world.clock.now - START < 660


def test_a_rest_without_a_refusal_says_nothing_of_what_the_account_takes_at_once() -> None:
    def minutes(**context: Any) -> float:
        world = World(latency=150)
        while True:
            outcome = run(
                run_job(world.context(**context, requests_per_minute=20, timeout=3600.0), many(100))
            )
            if isinstance(outcome, Finished):
                return (world.clock.now - START) / 60
            world.clock.now = max(outcome.resume_at, world.clock.now + 14)
            if outcome.enough:
                ended = sorted(outcome.pending.values())[outcome.enough - 1] + 150
                world.clock.now = max(world.clock.now, ended)

    assert minutes(**DEFERRABLE) < 1.2 * minutes(is_batch=True)


def taking(world: World, latency: Callable[[int], float]) -> World:
    """Give each purchase its own latency, by its number."""
    create = world.api.create

    def created(body: dict[str, Any]) -> FakePrediction:
        made = create(body)
        made.created += latency(len(world.api.made)) - world.api.latency
        return made

    world.api.create = created  # type: ignore[method-assign]
    return world


def wait_as_the_trigger_does(world: World, waiting: Waiting) -> None:
    """Look at what is watched, then take the 4 seconds back to a worker."""
    is_known = waiting.resume_at > waiting.now
    until = min(waiting.deadline, waiting.resume_at - 4) if is_known else waiting.deadline

    async def wait() -> None:
        poller = Poller(world.api.client(), clock=world.clock)
        await wait_for(poller, waiting.watched, until=until, enough=waiting.enough)

    run(wait())
    world.clock.now = max(world.clock.now, waiting.now + 10) + 4


@pytest.mark.parametrize(("cold", "quick"), [(60, 20), (120, 10), (300, 10), (1500, 20)])
@pytest.mark.parametrize("count", [16, 24])
def test_after_a_cold_start_nobody_sleeps_through_the_quick_ones(
    cold: float, quick: float, count: int
) -> None:
    world = taking(World(), lambda number: cold - 4 + number if number <= 8 else quick)
    for _ in range(30):
        outcome = leg(world, count, max_in_flight=8, timeout=3600.0)
        if isinstance(outcome, Finished):
            break
        wait_as_the_trigger_does(world, outcome)
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == count
    generations = count / 8 - 1
    assert world.clock.now - START < cold * 1.1 + generations * (quick + 30)


def test_one_of_the_last_that_takes_far_longer_than_the_others_is_not_looked_at_each_second() -> None:
    world = taking(World(), lambda number: 10 if number < 20 else 3500)
    outcome = run(run_job(world.context(is_batch=True, timeout=3600.0), many(20)))
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == 20
    assert len(world.api.polls) < 400


@pytest.mark.parametrize(
    ("left", "wait", "blocked", "said"),
    [
        (0, 0.0, 0.0, WaitsFor.OTHERS),
        (0, 30.0, 30.0, WaitsFor.OTHERS),
        (3, 30.0, 30.0, WaitsFor.ACCOUNT),
        (3, math.inf, 30.0, WaitsFor.ACCOUNT),
        (3, math.inf, 0.0, WaitsFor.IN_FLIGHT),
        (3, 30.0, 0.0, WaitsFor.MINUTE),
    ],
)
def test_a_handoff_says_what_is_waited_for(left: int, wait: float, blocked: float, said: WaitsFor) -> None:
    assert waits_for(left=left, wait=wait, blocked=blocked) is said


def test_a_job_that_waits_for_another_task_s_images_is_not_said_to_be_rate_limited() -> None:
    world = World(latency=300)
    wanted = [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}", named=True) for n in range(3)]

    async def both() -> Finished | Waiting:
        first = asyncio.create_task(run_job(world.context(job=a_job(task_id="one"), **DEFERRABLE), wanted))
        await world.clock.sleep(5)
        second = await run_job(world.context(job=a_job(task_id="two"), **DEFERRABLE), wanted)
        await first
        return second

    outcome = run(both())
    assert isinstance(outcome, Waiting)
    assert (outcome.to_buy, outcome.waits_for) == (3, WaitsFor.OTHERS)


def test_a_job_that_waits_for_its_own_limit_is_not_said_to_be_limited_by_the_account() -> None:
    world = World(latency=5)
    outcome = leg(world, 3, requests_per_minute=1)
    assert isinstance(outcome, Waiting)
    assert outcome.waits_for == WaitsFor.MINUTE
