"""What ends a job says once why, and what the job has paid."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, run_job, with_charges
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    BudgetError,
    FencedError,
    ItemsFailedError,
    Paid,
    TaskKilledError,
)
from airflow_provider_bitdance.records import Journal
from tests.unit.support import RECORDS, MemoryFolder, World, a_job, a_wanted, a_writer, refusal, run
from tests.wire import httpx


@pytest.fixture
def world() -> World:
    return World(latency=5)


def many(count: int) -> list[Any]:
    return [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(count)]


def finished(world: World, count: int, **options: Any) -> Finished:
    outcome = run(run_job(world.context(is_batch=True, **options), many(count)))
    assert isinstance(outcome, Finished)
    return outcome


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in found if "last try" not in text and "size_differs" not in text]


async def replaced_after(world: World, seconds: float, count: int) -> None:
    """Run a batch whose job another process takes over meanwhile."""
    job = asyncio.create_task(run_job(world.context(is_batch=True), many(count)))
    await world.clock.sleep(seconds)
    journal = Journal(MemoryFolder(world.disk, RECORDS), a_writer(try_number=2))
    journal.load()
    journal.claim(world.clock.now + 600, world.clock.now)
    await job


def test_a_process_that_was_replaced_says_so_once_and_does_not_say_that_it_stores(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FencedError) as error:
        run(replaced_after(world, 1, 40))
    assert warnings(caplog) == ["Another process has taken over this task. Stopping here"]
    assert "Nothing was charged" not in str(error.value)
    assert error.value.paid is Paid.YES


def test_a_cleared_batch_that_waits_for_what_was_bought_before_does_not_say_that_nothing_was_charged() -> (
    None
):
    world = World(latency=10_000)
    run(run_job(world.context(is_batch=True, defer_after=0, break_even=10), many(2)))
    world.clock.now += 30
    cleared = world.context(job=a_job(generation=1), is_batch=True, try_number=2, timeout=60)
    run(run_job(cleared, many(2)))

    error = with_charges(ItemsFailedError("2 of 2 images failed"), cleared.journal.state)

    assert str(error).endswith("This task was charged nothing, but waits for images that are paid for.")
    assert (error.paid, world.api.billed) == (Paid.YES, 2)


def test_a_batch_that_is_stopped_says_once_that_it_buys_nothing_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    killed = asyncio.Event()

    def answer_and_stop(request: httpx.Request) -> httpx.Response:
        killed.set()
        return world.api.answer_rightly(request)

    world.api.on_post = [world.api.answer_rightly] * 9 + [answer_and_stop]
    outcome = run(run_job(world.context(is_batch=True, killed=killed), many(40)))
    assert isinstance(outcome, Finished)
    error = outcome.stopped
    assert isinstance(error, TaskKilledError)
    assert len(warnings(caplog)) == 1
    assert str(error).count("nothing more") == 1


def test_what_stops_a_batch_says_what_was_charged(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly] * 31 + [refusal(401)] * 99
    error = finished(world, 40).stopped
    assert isinstance(error, AuthenticationError)
    assert str(error).endswith("So far, about $0.31 was charged for this task's images.")
    assert error.paid is Paid.YES


def test_what_stops_a_batch_before_a_purchase_says_that_nothing_was_charged(world: World) -> None:
    world.api.on_post = [refusal(401)] * 99
    error = finished(world, 4).stopped
    assert str(error).endswith("Nothing was charged.")
    assert error is not None
    assert error.paid is Paid.NO


def test_what_stops_a_batch_after_a_lost_response_says_what_is_possible(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly, world.api.lose_answer, world.api.answer_rightly]
    error = finished(world, 4, max_cost_usd=0.04, max_in_flight=1).stopped
    assert isinstance(error, BudgetError)
    assert str(error).endswith(
        "So far, about $0.03 was charged for this task's images, and possibly $0.01 more."
    )


def test_a_batch_of_which_all_is_bought_has_no_rest_that_costs(world: World) -> None:
    world.api.on_download = [httpx.Response(200, content=b"no image")] * 9
    outcome = finished(world, 2, on_item_failure="fail_fast")
    assert outcome.stopped is not None
    assert "the rest costs" not in str(outcome.stopped)


@pytest.mark.parametrize("answer", [refusal(401), refusal(400)], ids=["stops", "refuses"])
def test_one_image_that_is_possibly_paid_is_not_said_to_have_cost_nothing(
    world: World, answer: httpx.Response
) -> None:
    world.api.on_post = [world.api.lose_answer, answer]
    with pytest.raises(BitDanceError) as error:
        run(run_job(world.context(), [a_wanted()]))
    assert error.value.paid is Paid.POSSIBLY
    assert "may have been charged" in str(error.value)


def test_what_stops_a_batch_before_a_certain_purchase_says_what_is_possible(world: World) -> None:
    world.api.on_post = [world.api.lose_answer, refusal(401), refusal(401)]
    error = finished(world, 2, max_in_flight=1).stopped
    assert error is not None
    assert str(error).endswith("So far, up to $0.01 may have been charged for this task's images.")
    assert error.paid is Paid.POSSIBLY
