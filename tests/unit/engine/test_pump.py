"""Many images of one job at once: pace, bounds, failures of some, and what stops all."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from airflow_provider_bitdance.api.errors import (
    AuthenticationError,
    ModerationError,
    PredictionFailedError,
    PredictionTimeoutError,
    RequestRefusedError,
)
from airflow_provider_bitdance.engine import Finished, Waiting, Wanted, advance
from airflow_provider_bitdance.engine.pump import MAX_UNANSWERED
from tests.unit.support import World, a_job, a_wanted, refusal, run


@pytest.fixture
def world() -> World:
    return World()


def many(count: int) -> list[Wanted]:
    return [a_wanted(f"prompt {number}", key=f"k{number}", name=f"k{number}") for number in range(count)]


def go(world: World, count: int = 3, **bench: Any) -> Finished:
    outcome = run(advance(world.bench(**bench), many(count)))
    assert isinstance(outcome, Finished)
    return outcome


def test_results_are_in_the_plans_order_whatever_ends_first(world: World) -> None:
    finished = go(world, 20)
    assert list(finished.stored) == [f"k{number}" for number in range(20)]
    assert [plan.key for plan in finished.planned] == list(finished.stored)
    assert all(
        world.api.made[result["prediction_id"]].body["prompt"] == f"prompt {number}"
        for number, result in enumerate(finished.results)
    )


def test_all_are_waited_for_at_once() -> None:
    world = World(latency=100)
    started = world.clock.now
    go(world, 20, max_in_flight=20)
    assert world.clock.now - started < 3 * world.api.latency


def test_no_more_than_the_limit_are_in_flight() -> None:
    world = World(latency=10)
    highest = 0

    def step(name: str) -> None:
        nonlocal highest
        if name == "after POST":
            now = world.clock.now
            in_flight = [made for made in world.api.made.values() if now - made.created < world.api.latency]
            highest = max(highest, len(in_flight))

    go(world, 12, max_in_flight=3, step=step)
    assert highest == 3


def test_no_more_are_sent_in_a_minute_than_the_limit(world: World) -> None:
    go(world, 7, requests_per_minute=3)
    made = sorted(prediction.created for prediction in world.api.made.values())
    assert all(later - first >= 60 for first, later in zip(made, made[3:], strict=False))


def test_few_submissions_are_without_a_recorded_answer_at_any_time(world: World) -> None:
    go(world, 40, max_in_flight=40)
    open_intents: set[str] = set()
    highest = 0
    for event in world.events:
        if event["event"] == "intended":
            open_intents.update(event["keys"])
        elif event["event"] == "submitted":
            open_intents.discard(event["key"])
        highest = max(highest, len(open_intents))
    assert 1 < highest <= MAX_UNANSWERED


def test_many_images_share_the_entries_of_the_journal(world: World) -> None:
    go(world, 60, max_in_flight=60)
    assert world.entry_count < 2 * 60


def test_a_429_slows_all_of_them_down_and_loses_none(world: World) -> None:
    world.api.on_post = [refusal(429, Retry_After="20") for _ in range(6)]
    finished = go(world, 12)
    assert (len(finished.stored), world.api.billed) == (12, 12)


def test_one_failed_image_does_not_stop_the_others(world: World) -> None:
    world.api.on_post = [refusal(400, "bad prompt")]
    finished = go(world, 5)
    assert [type(failure) for failure in finished.failures.values()] == [RequestRefusedError]
    assert len(finished.stored) == 4


def test_a_retry_buys_only_what_failed(world: World) -> None:
    world.api.on_post = [world.api.answer_failing(status="failed", code=5000)]
    first = go(world, 4)
    assert [type(failure) for failure in first.failures.values()] == [PredictionFailedError]
    second = go(world, 4, try_number=2)
    assert (len(second.stored), second.failures, world.api.billed) == (4, {}, 5)


def test_what_is_moderated_is_never_bought_again_and_stays_a_failure(world: World) -> None:
    world.api.on_post = [world.api.answer_failing(status="failed", code=1200)]
    go(world, 4)
    second = go(world, 4, try_number=2)
    (failure,) = second.failures.values()
    assert isinstance(failure, ModerationError)
    assert not failure.retry_helps
    assert (len(second.stored), world.api.billed) == (3, 4)


def test_an_image_that_failed_is_not_bought_again_when_the_same_try_comes_back_from_the_triggerer() -> None:
    world = World(latency=20)
    world.api.on_post = [world.api.answer_failing(status="failed", code=5000)]
    outcome = run(advance(world.bench(defer_after=30.0), many(3)))
    for _ in range(5):
        if isinstance(outcome, Waiting):
            world.clock.now += 100
            outcome = run(advance(world.bench(defer_after=30.0), many(3)))
    assert isinstance(outcome, Finished)
    assert [type(failure) for failure in outcome.failures.values()] == [PredictionFailedError]
    assert world.api.billed == 3
    assert run(advance(world.bench(defer_after=30.0), many(3))).failures.keys() == outcome.failures.keys()
    assert world.api.billed == 3


@pytest.mark.parametrize(
    ("policy", "posts"),
    [({"on_item_failure": "fail_fast"}, 1), ({"max_failures": 0, "on_item_failure": "tolerate"}, 1), ({}, 6)],
)
def test_the_policy_says_whether_a_failure_stops_the_others(
    world: World, policy: dict[str, Any], posts: int
) -> None:
    world.api.on_post = [refusal(400)]
    try:
        go(world, 6, max_in_flight=1, **policy)
    except RequestRefusedError as stopped:
        assert "0 of 6 images are stored" in str(stopped)  # noqa: PT017
    assert len(world.api.posts) == posts


def test_a_bad_key_stops_all_and_what_was_bought_is_stored(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly, *(refusal(401) for _ in range(40))]
    with pytest.raises(AuthenticationError, match="1 of 30 images are stored"):
        go(world, 30)
    assert len(world.api.posts) <= 1 + MAX_UNANSWERED
    assert len(world.images) == 1


def test_an_image_that_is_not_done_in_time_is_one_failure() -> None:
    world = World(latency=3)
    slow = world.api.create
    world.api.next_changes = {}

    def never(request: httpx.Request) -> httpx.Response:
        made = slow(json.loads(request.content))
        made.created += 10_000
        return httpx.Response(
            200, json={"code": 200, "message": "", "data": {"id": made.id, "status": "created"}}
        )

    world.api.on_post = [never]
    finished = go(world, 4, timeout=5000.0)
    assert list(finished.failures) == ["k0"]
    assert isinstance(finished.failures["k0"], PredictionTimeoutError)


def test_while_there_is_something_to_buy_the_deadline_moves_on(world: World) -> None:
    """A batch may take hours; other tasks take a job past its deadline for dead."""
    go(world, 9, requests_per_minute=1, timeout=100.0)
    assert world.clock.now > 1_780_000_000 + 400
    assert world.event_names.count("claimed") > 2


def test_the_log_tells_the_sum_and_not_each_image(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        go(world, 40, requests_per_minute=20)
    lines = [record.getMessage() for record in caplog.records if record.name == "bitdance.test"]
    assert not any("Bought" in line or "Stored" in line for line in lines)
    assert lines[-1] == "40/40 stored, $0.40"
    assert any("a minute, about" in line and "left" in line for line in lines[:-1])
    assert len(lines) < 20


def test_two_batches_that_want_the_same_images_at_once_buy_them_once(world: World) -> None:
    import asyncio

    def named() -> list[Wanted]:
        return [a_wanted(f"prompt {key}", key=key, name=key, named=True) for key in "abcdef"]

    async def both() -> list[Any]:
        benches = [world.bench(job=a_job(task_id=task)) for task in ("one", "two")]
        return await asyncio.gather(*(advance(bench, named()) for bench in benches))

    outcomes = run(both())
    assert all(isinstance(outcome, Finished) and len(outcome.stored) == 6 for outcome in outcomes)
    assert world.api.billed == 6


def test_a_second_run_of_a_large_batch_reads_a_listing_and_buys_nothing(world: World) -> None:
    go(world, 40)
    finished = go(world, 40, job=a_job(run_id="another"))
    assert all(result["reused"] for result in finished.results)
    assert world.api.billed == 40
