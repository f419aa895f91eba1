"""What happens to many purchases at once is said once: a rate limit, an outage, lost responses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from airflow_provider_bitdance.engine import run_job
from airflow_provider_bitdance.exceptions import TaskKilledError
from airflow_provider_bitdance.records import Status
from tests.unit.support import Crash, Fuse, World, a_job, a_wanted, refusal, run
from tests.wire import httpx


@pytest.fixture
def world() -> World:
    return World(latency=5)


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def many(count: int) -> list[Any]:
    return [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(count)]


def go(world: World, count: int, **options: Any) -> Any:
    return run(run_job(world.context(is_batch=True, **options), many(count)))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says besides its progress, and the size of the pictures, which are all tiny."""
    said = [record.getMessage() for record in caplog.records if record.name == "bitdance.test"]
    usual = ("last try", "stored", "pixels, but 1024*1024 was requested")
    return [line for line in said if not any(words in line for words in usual)]


def test_a_rate_limit_is_two_lines_and_the_second_says_what_was_learnt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_post = [world.api.answer_rightly] * 20 + [refusal(429, "too many")] * 6
    go(world, 60)
    first, last = lines(caplog)
    assert "got status 429: too many. Submitting again in" in first
    assert "accepts submissions again after refusing 6 in" in last
    assert "; now at most " in last
    assert " in flight" in last


def test_a_rate_limit_that_comes_back_within_a_minute_is_the_same_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_post = [refusal(429, "too many"), *[world.api.answer_rightly] * 3] * 5
    go(world, 40, requests_per_minute=40)
    assert len(lines(caplog)) == 2
    assert "after refusing 5 in" in lines(caplog)[-1]


def test_a_rate_limit_that_comes_back_later_is_another_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_post = [refusal(429), *[world.api.answer_rightly] * 30, refusal(429)]
    go(world, 60, requests_per_minute=6, timeout=3000.0)
    assert [("429" in line, "again after refusing 1 in" in line) for line in lines(caplog)] == [
        (True, False),
        (False, True),
    ] * 2


def test_an_api_that_cannot_be_reached_is_two_lines(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.on_post = [httpx.ConnectError("refused") for _ in range(12)]
    go(world, 20)
    assert len(lines(caplog)) == 2
    assert "Submitting again in" in lines(caplog)[0]
    assert lines(caplog)[1] == "Submissions reach the API again"


def test_four_lost_responses_are_two_lines_with_each_candidate_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_post = [world.api.lose_answer] * 4
    go(world, 6)
    first, last = lines(caplog)
    assert first.endswith("was lost: ReadTimeout. Searching the account's history for the prediction")
    assert last == (
        "Lost responses: 4 possibly paid, about $0.04. The account's history shows 4 predictions from that "
        "time that may be a lost one, without proof: pred-1, pred-2, pred-3, pred-4"
    )


def test_lost_responses_that_are_found_are_two_lines(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.echo = "history"
    world.api.on_post = [world.api.lose_answer] * 3
    go(world, 6)
    assert lines(caplog)[1:] == [
        "Lost responses: history or a note proves that 3 created a prediction: pred-1, pred-2, pred-3"
    ]


def test_what_a_killed_process_left_open_is_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Crash):
        go(world, 8, step=Fuse(20))
    caplog.clear()
    go(world, 8, try_number=2)
    assert sum("Lost responses" in line for line in lines(caplog)) == 1


def test_downloads_that_fail_together_are_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.on_download = [httpx.Response(503)] * 8
    go(world, 8)
    assert sum("Retrying in" in line for line in lines(caplog)) == 1


def test_a_task_that_is_stopped_during_the_search_ends_at_once_and_leaves_the_intent_open(
    world: World,
) -> None:
    killed, is_lost, began = asyncio.Event(), asyncio.Event(), world.clock.now

    def lose(request: httpx.Request) -> httpx.Response:
        is_lost.set()
        return world.api.lose_answer(request)

    async def job() -> None:
        running = asyncio.create_task(run_job(world.context(killed=killed), [a_wanted()]))
        await is_lost.wait()
        await world.clock.sleep(12)
        killed.set()
        await running

    world.api.on_post, world.api.hidden = [lose], {"pred-1"}
    with pytest.raises(TaskKilledError, match="The next try searches again before it buys") as error:
        run(job())
    assert world.clock.now - began < 13
    assert "may have been charged" in str(error.value)
    (image,) = world.context().journal.state.images.values()
    assert (image.status, len(world.api.posts)) == (Status.INTENDED, 1)


def test_the_try_after_it_adopts_what_the_lost_response_had_created(world: World) -> None:
    world.api.on_post, world.api.hidden = [world.api.lose_answer], {"pred-1"}
    killed = asyncio.Event()
    killing = world.context(
        killed=killed, step=lambda name: killed.set() if name == "after history" else None
    )
    with pytest.raises(TaskKilledError):
        run(run_job(killing, [a_wanted()]))
    world.api.echo, world.api.hidden = "history", set()
    outcome = run(run_job(world.context(try_number=2), [a_wanted()]))
    assert (outcome.results[0]["prediction_id"], world.api.billed) == ("pred-1", 1)


def test_a_task_that_is_stopped_while_the_history_cannot_be_read_does_not_wait_for_it(world: World) -> None:
    world.api.on_post, world.api.on_history = [world.api.lose_answer], [refusal(503)] * 9
    killed, began = asyncio.Event(), world.clock.now
    killing = world.context(
        killed=killed, step=lambda name: killed.set() if name == "after history" else None
    )
    with pytest.raises(TaskKilledError):
        run(run_job(killing, [a_wanted()]))
    assert (world.clock.now - began, len(world.api.histories)) == (0, 1)


def test_the_time_of_a_rate_limit_is_that_until_a_submission_was_accepted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_post = [refusal(429, Retry_After="5"), *[world.api.answer_rightly] * 9]
    go(world, 4, requests_per_minute=2)
    assert any("after refusing 1 in 5 s" in line for line in lines(caplog))


def test_what_was_bought_for_a_row_that_is_gone_after_a_clear_is_named_while_it_can_be_collected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(latency=60)
    fox, hen = (a_wanted(f"a {name}", key=name, name=name) for name in ("fox", "hen"))
    run(run_job(world.context(is_batch=True, defer_after=0), [fox, hen]))
    said = []
    for generation, seconds in ((1, 60), (2, 60), (3, 8 * 24 * 3600)):
        world.clock.now += seconds
        caplog.clear()
        job = a_job(generation=generation)
        run(run_job(world.context(job=job, try_number=2, is_batch=True), [hen]))
        said.append([line for line in lines(caplog) if "Not using predictions" in line])
    assert [len(each) for each in said] == [1, 1, 0]
    assert said[0][0].endswith("stay collectable for 7 days: pred-1")


def test_what_was_bought_for_another_request_is_named_also_where_a_still_earlier_one_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(latency=600)
    for generation, prompt in enumerate(("a fox", "a hen", "a fox")):
        caplog.clear()
        context = world.context(job=a_job(generation=generation), try_number=generation + 1, defer_after=0)
        run(run_job(context, [a_wanted(prompt)]))
        world.clock.now += 10
    (line,) = (line for line in lines(caplog) if "Not using predictions" in line)
    assert line.endswith(": pred-2")


def test_what_was_bought_before_a_clear_is_one_line_for_all_images(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    killed = asyncio.Event()
    stopping = {"killed": killed, "step": lambda _: killed.set() if world.api.billed >= 8 else None}
    go(world, 12, **stopping)
    cleared, caplog_before = a_job(generation=1), len(caplog.records)
    go(world, 12, job=cleared, try_number=2)
    said = [record.getMessage() for record in caplog.records[caplog_before:]]
    assert sum("bought before the task was cleared" in line for line in said) == 1
