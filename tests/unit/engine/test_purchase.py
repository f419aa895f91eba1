"""Buying one image: what is written down around the POST, and when the POST may be sent again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_bitdance.engine import JobContext
from airflow_provider_bitdance.engine.context import JUST_NOW
from airflow_provider_bitdance.engine.decisions import CONNECTION_TRIES
from airflow_provider_bitdance.engine.destination_lock import DestinationLock
from airflow_provider_bitdance.engine.lost_response_decisions import SEARCH_PAUSES, SHORT_SEARCHES
from airflow_provider_bitdance.engine.purchase import PURCHASES_A_TRY, PostponedError, buy
from airflow_provider_bitdance.engine.rate_limiter import SHORT_WAIT, RateLimiter
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    FencedError,
    GarbledResponseError,
    InsufficientCreditError,
    LostResponseError,
    NotFoundError,
    NotSentError,
    Paid,
    RateLimitError,
    RequestRefusedError,
    ServerError,
    StorageError,
    TaskKilledError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records import ImageState, Intended, Lost, Planned, Status
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import API_KEY, OUTPUT, Answer, Step, World, a_plan, envelope, refusal, run
from tests.wire import httpx

PLAN = Planned(output=OUTPUT, images=(a_plan(),))
INTENT = Intended(keys=("image",))


@pytest.fixture
def world() -> World:
    return World()


def buyer(world: World, *, intended: bool = True, step: Step = lambda _: None, **policy: Any) -> JobContext:
    """Return a process that has claimed the job: entry 1."""
    context = world.context(step=step, **policy)
    events = [PLAN, INTENT] if intended else [PLAN]
    context.journal.claim(world.clock.now + 600, world.clock.now, *events)
    return context


def buying(context: JobContext) -> None:
    run(buy(context, "image", limiter=RateLimiter(), lock=DestinationLock(context)))


def recorded(world: World) -> ImageState:
    """Return what another process reads."""
    return world.context().journal.state.images["image"]


def fails_at(wanted: str, error: Exception) -> Step:
    def step(name: str) -> None:
        if name == wanted:
            raise error

    return step


def test_a_bought_image_is_written_down_with_its_id(world: World) -> None:
    buying(buyer(world))
    image = recorded(world)
    assert (image.status, image.prediction_id, image.possibly_paid) == (Status.SUBMITTED, "pred-1", 0)


def test_what_is_sent_is_what_was_planned(world: World) -> None:
    buying(buyer(world))
    assert world.api.posts == [{"prompt": "a lighthouse at dawn", "size": "1024*1024", "seed": 7}]


def test_the_intent_is_written_before_the_post_and_the_id_after_it(world: World) -> None:
    steps: list[str] = []
    buying(buyer(world, intended=False, step=steps.append))
    assert steps[2:] == [
        "before create 000002",
        "after create 000002",
        "before POST",
        "after POST",
        "before create 000003",
        "after create 000003",
    ]
    assert world.event_names == ["claimed", "planned", "intended", "submitted"]


def test_an_intent_of_this_process_is_not_written_twice(world: World) -> None:
    buying(buyer(world, intended=True))
    assert world.event_names == ["claimed", "planned", "intended", "submitted"]


def test_the_log_tells_the_purchase_with_a_short_prompt_and_no_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    context = world.context()
    long = a_plan().model_copy(update={"request": a_plan().request.model_copy(update={"prompt": "x" * 500})})
    context.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(long,)))
    with caplog.at_level(logging.INFO):
        buying(context)
    assert "Bought prediction pred-1, about $0.01: 1024*1024, seed 7" in caplog.text
    assert "x" * 81 not in caplog.text
    assert API_KEY not in caplog.text


def test_429_waits_as_long_as_asked_and_sends_again(world: World) -> None:
    world.api.on_post = [refusal(429, Retry_After="30"), refusal(429, Retry_After="45")]
    buying(buyer(world))
    assert len(world.api.posts) == 3
    assert world.clock.slept == [30, 45]
    assert world.api.billed == 1


def test_429_without_a_time_waits_longer_each_time(world: World) -> None:
    world.api.on_post = [refusal(429) for _ in range(8)]
    buying(buyer(world))
    expected = [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(world.clock.slept) == len(expected)
    assert all(
        0.8 * base <= slept <= 1.2 * base for slept, base in zip(world.clock.slept, expected, strict=True)
    )


def full_account(world: World, *, ends_after: float) -> RateLimiter:
    """Return the limiter of a job with three in flight; a 429 comes, and one of the three ends later."""
    limiter = RateLimiter(in_flight_before=3)
    limiter.in_flight, limiter.started = 3, 1
    world.api.on_post = [refusal(429)]
    sleep, ends_at = world.clock.sleep, world.clock.now + ends_after

    async def sleeping(seconds: float) -> None:
        await sleep(seconds)
        limiter.in_flight = 2 if world.clock.now >= ends_at else 3

    world.clock.sleep = sleeping  # type: ignore[method-assign]
    return limiter


def test_what_a_full_account_refuses_is_sent_again_when_one_in_flight_has_ended(world: World) -> None:
    context, limiter = buyer(world, break_even=14.0), full_account(world, ends_after=6)
    began = world.clock.now
    run(buy(context, "image", limiter=limiter, lock=DestinationLock(context)))
    assert (len(world.api.posts), world.api.billed) == (2, 1)
    assert 6 <= world.clock.now - began <= 6.1
    assert not limiter.queued


def test_a_purchase_that_waits_for_a_minute_asks_ever_more_seldom(world: World) -> None:
    context, limiter = buyer(world, break_even=600.0), full_account(world, ends_after=60)
    began = world.clock.now
    run(buy(context, "image", limiter=limiter, lock=DestinationLock(context)))
    assert 60 <= world.clock.now - began <= 61
    assert len(world.clock.slept) < 60 / SHORT_WAIT / 3


def test_what_a_full_account_refuses_is_planned_again_when_none_ends_for_as_long_as_a_deferral_takes(
    world: World,
) -> None:
    context, limiter = buyer(world, break_even=14.0), full_account(world, ends_after=60)
    with pytest.raises(PostponedError, match="for 14 s"):
        run(buy(context, "image", limiter=limiter, lock=DestinationLock(context)))
    assert (len(world.api.posts), world.event_names[-1], limiter.queued) == (1, "not_created", set())


def test_what_a_full_account_refuses_is_not_waited_for_past_the_deadline(world: World) -> None:
    context, limiter = buyer(world), full_account(world, ends_after=9999)
    began = world.clock.now
    with pytest.raises(PostponedError):
        run(buy(context, "image", limiter=limiter, lock=DestinationLock(context)))
    assert world.clock.now - began <= 601


def test_429_is_given_up_when_the_next_post_would_come_after_the_deadline(world: World) -> None:
    world.api.on_post = [refusal(429, Retry_After="601")]
    with pytest.raises(RateLimitError):
        buying(buyer(world))
    assert world.clock.slept == []
    assert world.event_names[-1] == "not_created"


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_a_connection_that_was_not_made_is_tried_again(world: World, error: type[Exception]) -> None:
    world.api.on_post = [error("refused") for _ in range(CONNECTION_TRIES - 1)]
    buying(buyer(world))
    assert len(world.api.posts) == CONNECTION_TRIES
    assert recorded(world).possibly_paid == 0


def test_a_connection_that_is_never_made_ends_the_try_and_nothing_was_paid(world: World) -> None:
    world.api.on_post = [httpx.ConnectError("refused") for _ in range(99)]
    with pytest.raises(NotSentError):
        buying(buyer(world))
    assert len(world.api.posts) == CONNECTION_TRIES
    assert (recorded(world).status, recorded(world).possibly_paid) == (Status.PLANNED, 0)


REFUSALS: dict[str, tuple[Answer, type[BitDanceError]]] = {
    "400": (refusal(400, "size is wrong"), RequestRefusedError),
    "400 no money": (refusal(400, "Insufficient credits"), InsufficientCreditError),
    "401": (refusal(401), AuthenticationError),
    "402 no money": (refusal(402, "insufficient balance"), InsufficientCreditError),
    "403": (refusal(403), AuthenticationError),
    "404": (refusal(404), NotFoundError),
    "413": (refusal(413), RequestRefusedError),
    "422": (refusal(422), RequestRefusedError),
    "200 with code 400": (envelope({}, code=400), RequestRefusedError),
    "200 with code 401": (envelope({}, code=401), AuthenticationError),
}

LOSSES: dict[str, tuple[Answer, type[BitDanceError]]] = {
    "302": (httpx.Response(302, headers={"Location": "http://127.0.0.1:9/api/v3/other"}), ServerError),
    "307": (httpx.Response(307, headers={"Location": "http://127.0.0.1:9/api/v3/other"}), ServerError),
    "408": (refusal(408), ServerError),
    "500": (refusal(500), ServerError),
    "502 HTML": (httpx.Response(502, text="<html>bad gateway</html>"), ServerError),
    "503 with Retry-After": (refusal(503, Retry_After="1"), ServerError),
    "504 empty": (httpx.Response(504), ServerError),
    "200 with code 500": (envelope({}, code=500), ServerError),
    "200 HTML": (httpx.Response(200, text="<html>"), GarbledResponseError),
    "200 empty": (httpx.Response(200), GarbledResponseError),
    "200 cut": (httpx.Response(200, content=b'{"code": 200, "data": {"id": "pr'), GarbledResponseError),
    "200 without an id": (envelope({"status": "created"}), GarbledResponseError),
    "200 with an unsafe id": (envelope({"id": "../../etc"}), GarbledResponseError),
    "read time-out": (httpx.ReadTimeout("x"), LostResponseError),
    "write time-out": (httpx.WriteTimeout("x"), LostResponseError),
    "read error": (httpx.ReadError("x"), LostResponseError),
    "write error": (httpx.WriteError("x"), LostResponseError),
    "closed": (httpx.RemoteProtocolError("x"), LostResponseError),
    "not decodable": (httpx.DecodingError("x"), LostResponseError),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_not_sent_again_and_nothing_was_created(world: World, name: str) -> None:
    answer, error = REFUSALS[name]
    world.api.on_post = [answer]
    with pytest.raises(error) as caught:
        buying(buyer(world))
    assert type(caught.value) is error
    assert caught.value.paid is Paid.NO
    assert not caught.value.retry_helps
    assert len(world.api.posts) == 1
    assert world.event_names[-1] == "not_created"
    assert (recorded(world).status, recorded(world).possibly_paid) == (Status.PLANNED, 0)


def lost_while_made(world: World, answer: Answer) -> Callable[[httpx.Request], httpx.Response]:
    """Return a response that is lost after the task was made: paid, and nobody here knows its id."""

    def respond(request: httpx.Request) -> httpx.Response:
        world.api.create(json.loads(request.content))
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    return respond


MAY_ARRIVE = {"408", "502 HTML", "503 with Retry-After", "504 empty"} | {
    name for name, (_, error) in LOSSES.items() if error is LostResponseError
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_lost_response_is_looked_up_and_bought_anew_when_the_history_has_nothing(
    world: World, name: str
) -> None:
    answer, _ = LOSSES[name]
    world.api.on_post = [answer]
    buying(buyer(world))
    assert world.event_names[2:] == ["intended", "lost", "intended", "submitted"]
    assert (len(world.api.posts), world.api.billed, recorded(world).possibly_paid) == (2, 1, 1)
    pauses = SEARCH_PAUSES if name in MAY_ARRIVE else SEARCH_PAUSES[:SHORT_SEARCHES]
    assert world.clock.slept == [*pauses], "the request may arrive, and the history is behind"


@pytest.mark.parametrize("name", LOSSES)
def test_a_lost_response_is_adopted_where_the_history_proves_it(world: World, name: str) -> None:
    world.api.echo = "history"
    world.api.on_post = [lost_while_made(world, LOSSES[name][0])]
    buying(buyer(world))
    assert world.event_names[2:] == ["intended", "submitted"]
    assert world.events[-1] == {
        "event": "submitted",
        "key": "image",
        "prediction_id": "pred-1",
        "found": True,
    }
    assert (len(world.api.posts), world.api.billed, recorded(world).possibly_paid) == (1, 1, 0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_lost_response_without_proof_is_possibly_paid_and_bought_again(world: World, name: str) -> None:
    world.api.on_post = [lost_while_made(world, LOSSES[name][0])]
    buying(buyer(world))
    assert world.event_names[2:] == ["intended", "lost", "intended", "submitted"]
    assert (recorded(world).prediction_id, recorded(world).possibly_paid) == ("pred-2", 1)
    assert world.clock.slept == []


@pytest.mark.parametrize("name", LOSSES)
def test_one_try_buys_three_times_at_most(world: World, name: str) -> None:
    answer, error = LOSSES[name]
    world.api.on_post = [lost_while_made(world, answer) for _ in range(9)]
    with pytest.raises(error) as caught:
        buying(buyer(world))
    assert type(caught.value) is error
    assert (caught.value.paid, caught.value.retry_helps) == (Paid.POSSIBLY, True)
    assert (world.api.billed, recorded(world).possibly_paid) == (PURCHASES_A_TRY, PURCHASES_A_TRY)


def test_an_api_that_answers_nothing_but_errors_is_possibly_paid_until_that_is_settled(world: World) -> None:
    world.api.on_post = [refusal(500) for _ in range(9)]
    with pytest.raises(ServerError) as caught:
        buying(buyer(world))
    assert (caught.value.paid, len(world.api.posts)) == (Paid.POSSIBLY, PURCHASES_A_TRY)
    assert world.event_names[-1] == "lost"
    assert (world.unconfirmed, world.settle()) == (PURCHASES_A_TRY, 0)


@pytest.mark.parametrize("is_made", [False, True])
def test_after_a_lost_response_a_purchase_is_not_put_off_to_lose_as_many_in_the_next_process(
    world: World, is_made: bool
) -> None:
    lost = lost_while_made(world, refusal(500)) if is_made else refusal(500)
    world.api.on_post = [lost, refusal(429, Retry_After="50")]
    with pytest.raises(ServerError) as caught:
        buying(buyer(world, break_even=14.0))
    assert caught.value.paid is Paid.POSSIBLY
    assert (recorded(world).status, recorded(world).possibly_paid) == (Status.PLANNED, 1)
    assert world.settle() == is_made


def lost_before(context: JobContext, times: int) -> JobContext:
    """Write down what earlier processes of the job have lost."""
    for _ in range(times):
        context.journal.append(context.clock.time(), INTENT, Lost(key="image", reason="time-out"))
    return context


@pytest.mark.parametrize(
    ("try_number", "losses", "buys"),
    [
        (1, PURCHASES_A_TRY - 1, True),
        (1, PURCHASES_A_TRY, False),
        (2, PURCHASES_A_TRY, True),
        (2, 2 * PURCHASES_A_TRY, False),
    ],
)
def test_the_processes_of_a_try_together_lose_no_more_responses_than_one_may(
    world: World, try_number: int, losses: int, buys: bool
) -> None:
    context = lost_before(buyer(world, intended=False, try_number=try_number), losses)
    if buys:
        buying(context)
    else:
        with pytest.raises(LostResponseError, match=f"The responses to {losses} purchases .* were lost"):
            buying(context)
    assert world.api.billed == buys


def both(
    world: World, *, seeds: tuple[int, int] = (7, 8), before: float = 0.0, after: float = 0.0
) -> JobContext:
    """Buy two images at once: the first one's answer is lost, the second one's takes its time.

    :param before: Seconds until the second submission arrives at the API.
    :param after: Seconds from then on until its answer is here.
    """
    context = world.context()
    images = tuple(a_plan(key, stem=key, seed=seed) for key, seed in zip("ab", seeds, strict=True))
    context.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=images))
    submit, lost, is_first_sent = context.client.submit, list[str](), asyncio.Event()

    async def send(request: ImageRequest) -> Prediction:
        if not lost:
            lost.append("a")
            is_first_sent.set()
            await world.clock.sleep(0.5)
            raise LostResponseError("time-out")
        if len(lost) == 1:
            lost.append("b")
            await world.clock.sleep(before)
            made = await submit(request)
            await world.clock.sleep(after)
            return made
        return await submit(request)

    context.client.submit = send  # type: ignore[method-assign]

    async def buy_both() -> None:
        limiter = RateLimiter()

        async def buy_second() -> None:
            await is_first_sent.wait()
            await buy(context, "b", limiter=limiter, lock=DestinationLock(context))

        await asyncio.gather(
            buy(context, "a", limiter=limiter, lock=DestinationLock(context)),
            buy_second(),
        )

    run(buy_both())
    return context


def test_while_a_lost_response_is_looked_up_other_purchases_of_the_job_stay_under_way(world: World) -> None:
    images = both(world, before=30.0).journal.state.images
    assert {image.status for image in images.values()} == {Status.SUBMITTED}
    assert [event["key"] for event in world.events if event["event"] == "lost"] == ["a"]
    assert (world.api.billed, world.unconfirmed, world.settle()) == (2, 1, 0)


def test_a_prediction_whose_answer_is_on_its_way_leaves_no_doubt_about_another_purchase(world: World) -> None:
    images = both(world, after=5.0).journal.state.images
    assert [(image.prediction_id, image.possibly_paid) for image in images.values()] == [
        ("pred-2", 1),
        ("pred-1", 0),
    ]
    assert world.settle() == 0


def test_a_prediction_whose_answer_is_on_its_way_is_not_adopted_for_another_image_of_that_request(
    world: World,
) -> None:
    world.api.echo = "history"
    images = both(world, seeds=(7, 7), after=5.0).journal.state.images
    assert [image.prediction_id for image in images.values()] == ["pred-2", "pred-1"]
    assert world.api.billed == 2


def test_two_lost_responses_to_one_request_are_not_both_taken_for_one_prediction(world: World) -> None:
    world.api.echo = "history"
    context = world.context()
    images = tuple(a_plan(key, stem=key) for key in "ab")
    context.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=images))
    world.api.on_post = [world.api.lose_answer] * 2

    async def buy_both() -> None:
        limiter = RateLimiter()
        await asyncio.gather(
            buy(context, "a", limiter=limiter, lock=DestinationLock(context)),
            buy(context, "b", limiter=limiter, lock=DestinationLock(context)),
        )

    run(buy_both())

    found = context.journal.state.images.values()
    assert sorted(image.prediction_id for image in found) == ["pred-1", "pred-2"]
    assert world.api.billed == 2


def test_a_user_who_wants_to_decide_is_asked(world: World) -> None:
    world.api.on_post = [world.api.lose_answer]
    context = buyer(world, on_lost_response="fail")
    with pytest.raises(UnconfirmedPurchaseError, match="may already have been bought") as caught:
        buying(context)
    assert (caught.value.paid, caught.value.retry_helps) == (Paid.POSSIBLY, False)
    assert (world.event_names[-1], len(world.api.posts)) == ("lost", 1)


def test_the_reason_is_recorded_without_the_key_or_the_prompt(world: World) -> None:
    prompt = "a lighthouse at dawn"
    world.api.on_post = [refusal(400, f"bad prompt {prompt * 20} for key {API_KEY}")]
    with pytest.raises(RequestRefusedError):
        buying(buyer(world))
    reason = world.events[-1]["reason"]
    assert "400" in reason
    assert API_KEY not in reason
    assert len(reason) < 400


def test_a_process_that_slept_since_its_intent_sends_nothing_if_another_has_gone_on(world: World) -> None:
    context = buyer(world)
    world.clock.now += JUST_NOW
    world.context().journal.claim(world.clock.now + 600, world.clock.now)
    with pytest.raises(FencedError):
        buying(context)
    assert world.api.posts == []


def test_the_journal_is_read_before_a_purchase_only_where_it_was_not_written_just_now(world: World) -> None:
    reads = list[float]()
    context = buyer(world)
    context.journal.check_unchanged = lambda: reads.append(world.clock.now)  # type: ignore[method-assign]
    for seconds in (0.0, JUST_NOW / 2, JUST_NOW, -60.0):
        world.clock.now += seconds
        run(context.check_unchanged())
    late, set_back = context.journal.written_at + 1.5 * JUST_NOW, world.clock.now
    assert reads == [late, set_back]


def test_nothing_is_sent_again_when_another_process_took_over_during_the_pause(world: World) -> None:
    def take_over(request: httpx.Request) -> httpx.Response:
        world.context().journal.claim(world.clock.now + 600, world.clock.now)
        return refusal(429)

    world.api.on_post = [take_over]
    with pytest.raises(FencedError):
        buying(buyer(world))
    assert len(world.api.posts) == 1


def test_nothing_is_sent_once_airflow_stops_the_task(world: World) -> None:
    context = buyer(world)
    context.coordination.killed.set()
    with pytest.raises(TaskKilledError, match="stopped the task, so nothing more is bought") as caught:
        buying(context)
    assert (world.api.posts, caught.value.paid) == ([], Paid.NO)
    assert recorded(world).status is Status.PLANNED


def test_an_intent_that_was_written_though_its_write_seemed_to_fail_is_no_loss(world: World) -> None:
    failures = [StorageError("time-out")]

    def written_all_the_same(name: str) -> None:
        if name == "after create 000002" and failures:
            raise failures.pop()

    buying(buyer(world, intended=False, step=written_all_the_same))
    assert (len(world.api.posts), world.api.billed, recorded(world).unconfirmed) == (1, 1, 0)


def test_a_store_that_fails_before_the_post_costs_nothing(world: World) -> None:
    step = fails_at("before create 000002", StorageError("full"))
    with pytest.raises(StorageError) as caught:
        buying(buyer(world, intended=False, step=step))
    assert world.api.posts == []
    assert caught.value.paid is Paid.NO


def test_a_store_that_fails_for_14_seconds_after_the_post_loses_nothing_and_warns_of_each_attempt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    up_at = world.clock.now + 14

    def down(step: str) -> None:
        if step == "before create 000002" and world.clock.now < up_at:
            raise StorageError("no connection")

    buying(buyer(world, step=down))
    assert (recorded(world).prediction_id, world.api.billed) == ("pred-1", 1)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.rpartition(". ")[2] for line in warned] == [f"Retrying in {n} s" for n in (1, 3, 10)]


def test_a_store_that_fails_after_the_post_names_the_prediction_and_says_that_it_is_paid(
    world: World,
) -> None:
    step = fails_at("before create 000002", StorageError("full"))
    with pytest.raises(StorageError, match="pred-1 is bought but could not be recorded") as caught:
        buying(buyer(world, step=step))
    assert caught.value.paid is Paid.YES
    assert caught.value.retry_helps


def test_a_take_over_during_the_post_leaves_a_note_and_says_that_the_prediction_is_paid(
    world: World,
) -> None:
    def take_over(name: str) -> None:
        if name == "after POST":
            world.context().journal.claim(world.clock.now + 600, world.clock.now)

    with pytest.raises(FencedError, match="pred-1 is bought") as caught:
        buying(buyer(world, step=take_over))
    assert caught.value.paid is Paid.YES
    (note,) = world.notes
    assert (note.key, note.prediction_id, note.intent) == ("image", "pred-1", 1)
    assert world.event_names[-1] == "claimed"
    assert recorded(world).possibly_paid == 1


def test_a_store_that_fails_for_14_seconds_after_a_take_over_keeps_the_note_all_the_same(
    world: World,
) -> None:
    """Without it the process that has taken over buys the image again."""
    up_at = world.clock.now + 14

    def take_over(name: str) -> None:
        if name == "after POST":
            world.context().journal.claim(world.clock.now + 600, world.clock.now)
        if name == "before create pred-1" and world.clock.now < up_at:
            raise StorageError("no connection")

    with pytest.raises(FencedError, match="pred-1 is bought"):
        buying(buyer(world, step=take_over))
    assert [note.prediction_id for note in world.notes] == ["pred-1"]


def test_a_store_that_fails_for_14_seconds_leaves_no_doubt_about_a_postponed_image(world: World) -> None:
    limiter, up_at = full_account(world, ends_after=9999), world.clock.now + 14 + 14

    def down(name: str) -> None:
        if name == "before create 000002" and world.clock.now < up_at:
            raise StorageError("no connection")

    context = buyer(world, step=down, break_even=14.0)
    with pytest.raises(PostponedError):
        run(buy(context, "image", limiter=limiter, lock=DestinationLock(context)))
    assert recorded(world).status is Status.PLANNED


def test_an_error_of_the_api_is_raised_even_when_the_store_cannot_take_it(world: World) -> None:
    """The intent stays in the journal, for the next try to settle."""
    world.api.on_post = [refusal(401)]
    with pytest.raises(AuthenticationError):
        buying(buyer(world, step=fails_at("before create 000002", StorageError("full"))))
    assert recorded(world).status is Status.INTENDED


def repeats(world: World, id_: str) -> Callable[[httpx.Request], httpx.Response]:
    """Return a response of a gateway that hands the request on, and answers what it answered another."""

    def respond(request: httpx.Request) -> httpx.Response:
        world.api.create(json.loads(request.content))
        return envelope({"id": id_, "status": "created"})

    return respond


def test_a_response_that_names_what_was_bought_before_is_no_purchase_of_that(world: World) -> None:
    """A cache before the API repeats a response: the picture would be that of another image."""
    two = Planned(output=OUTPUT, images=(a_plan("image"), a_plan("other", seed=9)))
    context = world.context()
    context.journal.claim(world.clock.now + 600, world.clock.now, two)
    world.api.echo = "history"
    world.api.on_post = [world.api.answer_rightly, repeats(world, "pred-1")]

    async def both() -> None:
        lock = DestinationLock(context)
        for key in ("image", "other"):
            await buy(context, key, limiter=RateLimiter(), lock=lock)

    run(both())
    bought = {key: image.prediction_id for key, image in world.context().journal.state.images.items()}
    assert bought == {"image": "pred-1", "other": "pred-2"}
    assert len(world.api.posts) == 2, "the history shows what was really bought"


def test_a_response_that_names_a_prediction_of_a_note_is_no_purchase_either(world: World) -> None:
    context = buyer(world)
    world.context().journal.note(world.clock.now, key="image", prediction_id="pred-7", intent=1)
    context.journal.state = replace(context.journal.state, may_have_notes=True)
    context.journal.read_notes()
    world.api.on_post = [repeats(world, "pred-7")]
    buying(context)
    assert recorded(world).prediction_id != "pred-7"
