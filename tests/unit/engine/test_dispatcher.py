"""Many images of one job at once: pace, bounds, failures of some, and what stops all."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Waiting, Wanted, run_job
from airflow_provider_bitdance.engine.lost_responses import READING_PAUSES
from airflow_provider_bitdance.engine.policy import MAX_UNANSWERED
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    LostResponseError,
    ModerationError,
    PredictionFailedError,
    PredictionTimeoutError,
    RateLimitError,
    RequestRefusedError,
    TaskKilledError,
)
from airflow_provider_bitdance.polling.latency import TELLING
from airflow_provider_bitdance.records import Status
from tests.unit.support import Crash, Fuse, World, a_job, a_wanted, envelope, refusal, run
from tests.wire import httpx


@pytest.fixture
def world() -> World:
    return World()


def many(count: int) -> list[Wanted]:
    return [a_wanted(f"prompt {number}", key=f"k{number}", name=f"k{number}") for number in range(count)]


def go(world: World, count: int = 3, **context: Any) -> Finished:
    outcome = run(run_job(world.context(**context), many(count)))
    assert isinstance(outcome, Finished)
    return outcome


def test_results_are_in_the_plans_order_whatever_ends_first(world: World) -> None:
    finished = go(world, 20)
    assert list(finished.stored) == [f"k{number}" for number in range(20)]
    assert [image.plan.key for image in finished.images] == list(finished.stored)
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


def test_what_ends_together_is_bought_anew_before_it_is_stored() -> None:
    """To check and write twenty images at once would keep the account idle meanwhile."""
    world = World(latency=10)
    go(world, 40, max_in_flight=20)
    moves = [event["event"] for event in world.events if event["event"] in ("submitted", "stored")]
    assert moves[:40].count("stored") <= 2


def test_what_is_completed_is_stored_though_others_wait_for_the_account_to_take_them(world: World) -> None:
    """At three a minute a purchase is always under way."""
    go(world, 7, requests_per_minute=3)
    moves = [event["event"] for event in world.events if event["event"] in ("submitted", "stored")]
    assert moves[:7].count("stored") >= 3


def test_no_more_are_sent_in_a_minute_than_the_limit(world: World) -> None:
    go(world, 7, requests_per_minute=3)
    made = sorted(prediction.created for prediction in world.api.made.values())
    assert all(later - first >= 60 for first, later in zip(made, made[3:], strict=False))


@pytest.mark.parametrize("most", [1, MAX_UNANSWERED, 20])
def test_few_submissions_are_without_a_recorded_answer_at_any_time(world: World, most: int) -> None:
    go(world, 40, max_in_flight=40, max_unanswered=most)
    open_intents: set[str] = set()
    highest = 0
    for event in world.events:
        if event["event"] == "intended":
            open_intents.update(event["keys"])
        elif event["event"] == "submitted":
            open_intents.discard(event["key"])
        highest = max(highest, len(open_intents))
    assert min(most, 2) <= highest <= most


def test_many_images_share_the_entries_of_the_journal(world: World) -> None:
    go(world, 60, max_in_flight=60)
    assert world.entry_count < 2 * 60


def test_a_429_slows_all_of_them_down_and_loses_none(world: World) -> None:
    world.api.on_post = [refusal(429, Retry_After="20") for _ in range(6)]
    finished = go(world, 12)
    assert (len(finished.stored), world.api.billed) == (12, 12)


def test_one_failed_image_does_not_stop_the_others(world: World) -> None:
    world.api.on_post = [refusal(400, "bad prompt")]
    finished = go(world, 5, is_batch=True)
    assert [type(failure) for failure in finished.failures.values()] == [RequestRefusedError]
    assert len(finished.stored) == 4


def test_a_retry_buys_only_what_failed(world: World) -> None:
    world.api.on_post = [world.api.answer_failing(status="failed", code=5000)]
    first = go(world, 4, is_batch=True)
    assert [type(failure) for failure in first.failures.values()] == [PredictionFailedError]
    second = go(world, 4, is_batch=True, try_number=2)
    assert (len(second.stored), second.failures, world.api.billed) == (4, {}, 5)


def test_what_is_moderated_is_never_bought_again_and_stays_a_failure(world: World) -> None:
    world.api.on_post = [world.api.answer_failing(status="failed", code=1200)]
    go(world, 4, is_batch=True)
    second = go(world, 4, is_batch=True, try_number=2)
    (failure,) = second.failures.values()
    assert isinstance(failure, ModerationError)
    assert not failure.retry_helps
    assert (len(second.stored), world.api.billed) == (3, 4)


def test_an_image_that_failed_is_not_bought_again_when_the_same_try_comes_back_from_the_triggerer() -> None:
    world = World(latency=20)
    world.api.on_post = [world.api.answer_failing(status="failed", code=5000)]
    policy: dict[str, Any] = {"is_batch": True, "defer_after": 30.0}
    outcome = run(run_job(world.context(**policy), many(3)))
    for _ in range(5):
        if isinstance(outcome, Waiting):
            world.clock.now += 100
            outcome = run(run_job(world.context(**policy), many(3)))
    assert isinstance(outcome, Finished)
    assert [type(failure) for failure in outcome.failures.values()] == [PredictionFailedError]
    assert world.api.billed == 3
    assert run(run_job(world.context(**policy), many(3))).failures.keys() == outcome.failures.keys()
    assert world.api.billed == 3


def test_a_batch_that_resumes_in_the_same_try_buys_no_image_anew_that_failed_in_it() -> None:
    world = World(latency=5)
    fails_at_once = world.api.answer_failing(status="failed", code=5000)
    world.api.on_post = [sooner(world, -5000), *[fails_at_once] * 9]
    for _ in range(5):
        outcome = run(run_job(world.context(defer_after=30.0, timeout=9000.0, is_batch=True), many(2)))
        assert isinstance(outcome, Waiting)
        world.clock.now += 100
    assert world.api.billed == 2


def test_a_retry_of_a_fail_fast_batch_stays_stopped_by_what_failed_for_good(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly, world.api.answer_failing(status="failed", code=1200)]
    policy: dict[str, Any] = {"is_batch": True, "on_item_failure": "fail_fast", "max_in_flight": 1}
    go(world, 6, **policy)
    bought = world.api.billed
    assert bought < 6

    again = go(world, 6, try_number=2, **policy)

    assert isinstance(again.stopped, ModerationError)
    assert (len(again.stored), world.api.billed) == (bought - 1, bought)


@pytest.mark.parametrize(
    ("policy", "posts"),
    [
        ({"on_item_failure": "fail_fast"}, 1),
        ({"max_failures": 0, "on_item_failure": "tolerate"}, 1),
        ({"is_batch": True}, 6),
    ],
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
    finished = go(world, 4, is_batch=True, timeout=5000.0)
    assert list(finished.failures) == ["k0"]
    assert isinstance(finished.failures["k0"], PredictionTimeoutError)


def test_while_there_is_something_to_buy_the_deadline_moves_on(world: World) -> None:
    """A batch may take hours; other tasks take a job past its deadline for dead."""
    go(world, 9, requests_per_minute=1, timeout=100.0)
    assert world.clock.now > 1_780_000_000 + 400
    assert world.event_names.count("claimed") > 2


def test_the_log_tells_the_sum_and_not_each_image(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        go(world, 100, requests_per_minute=20)
    lines = [record.getMessage() for record in caplog.records if record.name == "bitdance.test"]
    assert not any("Bought" in line or "Stored" in line for line in lines)
    assert lines[-1] == "100/100 stored, $1.00"
    assert any("/min, about" in line and "left" in line for line in lines[:-1])
    assert len(lines) < 40


def test_the_log_of_a_batch_of_hours_is_tens_of_lines(world: World, caplog: pytest.LogCaptureFixture) -> None:
    started = world.clock.now
    with caplog.at_level(logging.INFO):
        go(world, 600, requests_per_minute=5)
    assert world.clock.now - started > 6000
    assert 20 < len([record for record in caplog.records if record.name == "bitdance.test"]) < 80


def test_two_batches_that_want_the_same_images_at_once_buy_them_once(world: World) -> None:
    import asyncio

    def named() -> list[Wanted]:
        return [a_wanted(f"prompt {key}", key=key, name=key, named=True) for key in "abcdef"]

    async def both() -> list[Any]:
        benches = [world.context(job=a_job(task_id=task)) for task in ("one", "two")]
        return await asyncio.gather(*(run_job(context, named()) for context in benches))

    outcomes = run(both())
    assert all(isinstance(outcome, Finished) and len(outcome.stored) == 6 for outcome in outcomes)
    assert world.api.billed == 6


def test_a_second_run_of_a_large_batch_reads_a_listing_and_buys_nothing(world: World) -> None:
    go(world, 40)
    finished = go(world, 40, job=a_job(run_id="another"))
    assert all(result["reused"] for result in finished.results)
    assert world.api.billed == 40


def legs(world: World, count: int, **policy: Any) -> tuple[list[Waiting], Finished]:
    """Run a deferrable batch to its end: each leg a process, and between them what the trigger does."""
    rests: list[Waiting] = []
    for _ in range(60):
        outcome = run(
            run_job(world.context(defer_after=20.0, break_even=14.0, is_batch=True, **policy), many(count))
        )
        if isinstance(outcome, Finished):
            return rests, outcome
        rests.append(outcome)
        back = 0.0 if outcome.enough else outcome.resume_at - 4
        if outcome.enough:
            ends = sorted(
                made.created + world.api.latency
                for made in world.api.made.values()
                if made.id in outcome.watched
            )
            back = ends[min(outcome.enough, len(ends)) - 1] + 1
            if outcome.resume_at > outcome.now:
                back = min(back, outcome.resume_at - 4)
            back += 4
        world.clock.now = max(world.clock.now + 10, back)
    raise AssertionError("it does not come to an end")


def test_while_the_rate_admits_nothing_for_long_the_worker_is_given_back() -> None:
    world = World(latency=5)
    started = world.clock.now
    rests, finished = legs(world, 7, requests_per_minute=3)
    assert (len(finished.stored), world.api.billed) == (7, 7)
    assert [(rest.enough, rest.to_buy) for rest in rests] == [(0, 4), (0, 1)]
    assert [round(rest.resume_at - started) for rest in rests] == [60, 120]
    assert world.clock.now - started < 120 + 10
    made = sorted(prediction.created for prediction in world.api.made.values())
    assert all(later - first >= 60 for first, later in zip(made, made[3:], strict=False))


def test_seven_images_at_three_a_minute_take_two_minutes_in_the_worker(world: World) -> None:
    started = world.clock.now
    go(world, 7, requests_per_minute=3)
    assert world.clock.now - started < 120 + 10


def test_a_pause_that_is_shorter_than_a_rest_is_waited_for_in_the_worker() -> None:
    world = World(latency=5)
    world.api.on_post = [world.api.answer_rightly, refusal(429, Retry_After="10")]
    rests, finished = legs(world, 3)
    assert (rests, len(finished.stored), world.api.billed) == ([], 3, 3)


def test_an_account_that_refuses_for_long_is_left_alone_until_then() -> None:
    world = World(latency=5)
    world.api.on_post = [world.api.answer_rightly, refusal(429, Retry_After="50")]
    started = world.clock.now
    rests, finished = legs(world, 12)
    assert (len(finished.stored), world.api.billed) == (12, 12)
    assert not any(image.possibly_paid for image in finished.images)
    assert [rest.enough for rest in rests] == [0]
    assert 50 <= rests[0].resume_at - started <= 60
    assert world.api.histories == []
    rested = [event for event in world.events if event["event"] == "rested"]
    # The image in flight, and another one if its submission is about to be sent.
    assert [event["window"] for event in rested] in ([1], [2])


def test_what_an_account_takes_at_once_is_remembered_over_a_rest() -> None:
    world = World(latency=5)
    world.api.on_post = [world.api.answer_rightly, refusal(429, Retry_After="50")]
    first = run(run_job(world.context(defer_after=20.0, break_even=14.0), many(12)))
    assert isinstance(first, Waiting)
    world.clock.now = first.resume_at + 1
    before = set(world.api.made)
    run(run_job(world.context(defer_after=20.0, break_even=14.0), many(12)))
    moments = Counter(made.created for name, made in world.api.made.items() if name not in before)
    assert moments[min(moments)] <= 4


def test_an_account_that_refuses_for_ever_fails_the_try_and_not_the_money() -> None:
    world = World(latency=5)
    world.api.on_post = [refusal(429) for _ in range(2000)]
    _, finished = legs(world, 3, timeout=600.0)
    assert isinstance(finished.stopped, RateLimitError)
    assert world.clock.now < 1_780_000_000 + 700
    assert world.api.billed == 0


def test_where_all_that_may_be_in_flight_takes_long_the_worker_is_given_back() -> None:
    world = World(latency=100)
    started = world.clock.now
    rests, finished = legs(world, 6, max_in_flight=2, timeout=1000.0)
    assert (len(finished.stored), world.api.billed) == (6, 6)
    assert rests[0].enough == 1
    assert rests[0].to_buy == 4
    assert rests[0].now - started <= 25
    assert world.clock.now - started < 3 * 100 * 1.15


def test_for_the_last_images_the_worker_is_back_when_they_are_about_to_end() -> None:
    world = World(latency=60)
    world.api.on_post = [sooner(world, 8)]
    hand_overs, finished = legs(world, 4, max_in_flight=2, timeout=1000.0)
    last = max(made.created for made in world.api.made.values()) + 60
    assert (len(finished.stored), world.api.billed) == (4, 4)
    assert (hand_overs[-1].to_buy, len(hand_overs[-1].watched)) == (0, 1)
    assert last - 10 <= hand_overs[-1].resume_at <= last
    assert world.clock.now - last <= 60 * 0.1


def sooner(world: World, seconds: float) -> Callable[[httpx.Request], httpx.Response]:
    """Return a response whose prediction ends so much sooner than others."""

    def answer(request: httpx.Request) -> httpx.Response:
        made = world.api.create(json.loads(request.content))
        made.created -= seconds
        return envelope({"id": made.id, "status": "created"})

    return answer


def test_a_rest_leaves_nothing_that_a_crash_could_lose() -> None:
    world = World(latency=5)
    world.api.on_post = [world.api.answer_rightly, refusal(429, Retry_After="50")]
    assert isinstance(run(run_job(world.context(defer_after=20.0, break_even=14.0), many(12))), Waiting)
    assert not world.context().journal.state.having(Status.INTENDED)


def killing(world: World, when: Callable[[], bool]) -> dict[str, Any]:
    """Return what makes a process that Airflow tells to stop, as soon as something is so."""
    killed = asyncio.Event()
    return {"killed": killed, "step": lambda _: killed.set() if when() else None}


def test_a_task_that_airflow_stops_buys_nothing_more_and_stores_what_has_ended(world: World) -> None:
    """``on_kill`` comes in the midst of the process, which goes on for some seconds."""
    kill = killing(world, lambda: world.api.billed >= 8)
    finished = go(world, 40, is_batch=True, max_in_flight=4, **kill)
    assert isinstance(finished.stopped, TaskKilledError)
    assert finished.stopped.retry_helps
    assert 8 <= world.api.billed <= 8 + 4
    assert len(finished.stored) >= world.api.billed - 4
    assert Status.INTENDED not in [image.status for image in world.context().journal.state.images.values()]

    again = go(world, 40, is_batch=True, try_number=2)
    assert (len(again.stored), world.api.billed) == (40, 40)


def test_a_task_that_is_stopped_in_a_pause_that_the_api_asked_for_does_not_sleep_it_out(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly, refusal(429, Retry_After="300")]
    began = world.clock.now
    killed = asyncio.Event()

    async def job() -> Finished | Waiting:
        async def kill() -> None:
            await world.clock.sleep(20)
            killed.set()

        killer = asyncio.ensure_future(kill())
        outcome = await run_job(world.context(is_batch=True, killed=killed), many(6))
        await killer
        return outcome

    finished = run(job())

    assert isinstance(finished, Finished)
    assert isinstance(finished.stopped, TaskKilledError)
    assert world.clock.now - began < 30
    assert world.api.billed == 1


def test_a_task_that_is_stopped_before_its_first_purchase_leaves_no_doubt_about_it(world: World) -> None:
    with pytest.raises(TaskKilledError):
        go(world, 1, **killing(world, lambda: True))
    world.api.create({"prompt": "a stranger's"})
    assert go(world, 1, try_number=2).results[0]["possibly_paid"] == 0


def test_a_task_that_airflow_stops_after_its_last_purchase_stores_what_it_can(world: World) -> None:
    finished = go(world, 1, **killing(world, lambda: world.api.billed == 1))
    assert (finished.stopped, len(finished.stored)) == (None, 1)


@pytest.mark.parametrize("policy", [{"on_item_failure": "fail_fast"}, {"max_failures": 0}], ids=str)
def test_a_flagged_picture_that_is_left_out_stops_nobody(world: World, policy: dict[str, Any]) -> None:
    world.api.next_changes = {"nsfw": True}
    finished = go(world, 8, is_batch=True, max_in_flight=1, nsfw="skip", **policy)
    assert finished.stopped is None
    assert (world.api.billed, len(finished.failures)) == (8, 8)


def test_an_outage_is_told_once_and_is_in_the_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.latency = 9999
    world.api.on_poll = [httpx.ConnectError("Connection refused") for _ in range(9)]
    with caplog.at_level(logging.INFO), pytest.raises(PredictionTimeoutError) as late:
        run(run_job(world.context(timeout=20.0), [a_wanted()]))
    assert "; the last poll failed: No connection to the API for GET" in str(late.value)
    assert caplog.text.count("Polling keeps failing") == 1


def test_looks_of_which_some_fail_are_no_outage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.latency = 60
    fails, works = httpx.ConnectError("reset"), envelope({"id": "pred-1", "status": "processing"})
    world.api.on_poll = [fails, fails, works, fails, fails, works, fails, works]
    with caplog.at_level(logging.INFO):
        go(world, 1)
    assert "Polling keeps failing" not in caplog.text
    assert "answers again" not in caplog.text


def test_what_failed_last_is_what_the_error_names(world: World) -> None:
    world.api.latency = 9999
    world.api.on_poll = [httpx.ConnectError("reset"), *[refusal(429)] * 9]
    with pytest.raises(PredictionTimeoutError, match=r"the last poll failed: .* got status 429"):
        run(run_job(world.context(timeout=20.0), [a_wanted()]))


def test_the_end_of_an_outage_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.on_poll = [refusal(503) for _ in range(TELLING)]
    with caplog.at_level(logging.INFO):
        go(world, 1)
    assert caplog.text.count("Polling keeps failing") == 1
    assert caplog.text.count("The API responds again") == 1


def test_the_image_that_stopped_a_batch_is_a_failure_though_it_is_only_planned(world: World) -> None:
    world.api.on_post = [refusal(400)]
    finished = go(world, is_batch=True, on_item_failure="fail_fast", max_in_flight=1)
    assert list(finished.failures) == ["k0"]
    assert isinstance(finished.failures["k0"], RequestRefusedError)


def test_what_failed_is_part_of_what_the_rest_costs(world: World) -> None:
    world.api.next_changes = {"status": "failed", "code": 5000}
    finished = go(world, is_batch=True, on_item_failure="fail_fast", max_in_flight=1)
    assert "0 of 3 images are stored; the rest costs about $0.03" in str(finished.stopped)


def test_an_image_of_an_earlier_try_that_a_stopped_one_does_not_reach_keeps_its_reason(world: World) -> None:
    world.api.next_changes = {"status": "failed", "code": 5000, "error": "no GPU"}
    go(world, 2, is_batch=True)
    world.api.on_post = [refusal(401)]
    finished = go(world, 2, is_batch=True, try_number=2, max_in_flight=1)
    assert isinstance(finished.stopped, AuthenticationError)
    assert isinstance(finished.failures["k1"], PredictionFailedError)


def test_what_stopped_a_batch_says_what_is_bought_and_what_is_missing(world: World) -> None:
    world.api.latency = 9999
    finished = go(world, 10, is_batch=True, max_in_flight=4, timeout=30.0)
    assert str(finished.stopped) == (
        "None of the 4 predictions in flight finished within 30 s. 0 of 10 images are stored, 4 more are "
        "bought but not stored; the rest costs about $0.06. Their outputs stay collectable for 7 days. "
        "A retry polls the same predictions again and buys the rest. So far, about $0.04 was charged for "
        "this task's images."
    )
    assert finished.failures == {}


def test_an_image_whose_lost_response_cannot_be_looked_up_yet_is_missing_and_has_not_failed(
    world: World,
) -> None:
    with pytest.raises(Crash):
        go(world, 2, is_batch=True, max_in_flight=1, step=Fuse(4))  # after the first POST
    world.api.on_history = [refusal(503)] * (len(READING_PAUSES) + 1)
    finished = go(world, 2, is_batch=True, try_number=2)
    assert isinstance(finished.stopped, LostResponseError)
    assert [image.unconfirmed for image in finished.images] == [1, 0]
    assert finished.failures == {}
