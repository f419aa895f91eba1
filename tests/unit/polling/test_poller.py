"""Polling predictions until they end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import pytest

from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
)
from airflow_provider_bitdance.polling import poller as poller_module
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import START, Answer, FakeAPI, FakeClock, envelope, refusal, run
from tests.wire import httpx


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def api(clock: FakeClock) -> FakeAPI:
    return FakeAPI(clock)


def watching(
    api: FakeAPI, pending: dict[str, float] | None = None, *, seconds: float = 600.0, **poll: float
) -> dict[str, Prediction]:
    """Watch from now on for so many seconds; without ``pending``, one prediction that is made now."""
    if pending is None:
        pending = {api.create({}).id: api.clock.now}
    policy = PollPolicy(**poll)  # type: ignore[arg-type]
    until = api.clock.now + seconds

    async def wait() -> dict[str, Prediction]:
        poller = Poller(api.client(), policy=policy, clock=api.clock)
        return await wait_for(poller, pending, until=until)

    return run(wait())


def poll_ages(api: FakeAPI) -> list[float]:
    return [round(moment - START, 2) for _, moment in api.polls]


def test_a_prediction_that_ends_is_returned(api: FakeAPI) -> None:
    found = watching(api)
    assert found["pred-1"].is_completed
    assert found["pred-1"].outputs


def test_the_polls_grow_rarer(api: FakeAPI) -> None:
    api.latency = 100
    watching(api)
    ages = poll_ages(api)
    assert ages[:13] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.1, 13.31, 14.64]
    assert ages[-3:] == [89.54, 98.5, 108.35]


def test_every_end_is_an_end_and_not_only_success(api: FakeAPI) -> None:
    api.next_changes = {"status": "failed"}
    assert watching(api)["pred-1"].status == "failed"


def test_an_unknown_status_is_polled_again(api: FakeAPI) -> None:
    made = api.create({})
    api.on_poll = [envelope({"id": made.id, "status": word}) for word in ("pondering", "", "queued")]
    assert watching(api, {made.id: START})[made.id].is_completed
    assert len(api.polls) == 4


FAILURES: dict[str, Callable[[], Answer]] = {
    "503": lambda: refusal(503),
    "429": lambda: refusal(429),
    "HTML": lambda: httpx.Response(200, text="<html>"),
    "text 404": lambda: httpx.Response(404, text="404 page not found"),
    "time-out": lambda: httpx.ReadTimeout("x"),
    "no connection": lambda: httpx.ConnectError("x"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_outage_of_half_an_hour_is_waited_out(api: FakeAPI, failure: str) -> None:
    """WaveSpeed's are reported to last two to three minutes; the image is paid for, whatever they last."""
    api.on_poll = [FAILURES[failure]() for _ in range(120)]
    assert watching(api, seconds=3600)["pred-1"].is_completed
    assert 1700 < poll_ages(api)[-1] < 2000


@pytest.mark.parametrize("failure", FAILURES)
def test_an_outage_does_not_end_the_wait_before_its_time(api: FakeAPI, failure: str) -> None:
    api.on_poll = [FAILURES[failure]() for _ in range(1000)]
    assert watching(api, seconds=3600) == {}
    assert 3590 <= poll_ages(api)[-1] <= 3600


def test_a_poll_that_succeeds_forgives_the_failures_before_it(api: FakeAPI) -> None:
    made = api.create({})
    alive = envelope({"id": made.id, "status": "processing"})
    api.on_poll = [*(refusal(503) for _ in range(9)), alive, *(refusal(503) for _ in range(9))]
    assert watching(api, {made.id: START})[made.id].is_completed


def test_failures_make_the_polls_rarer(api: FakeAPI) -> None:
    api.on_poll = [refusal(503) for _ in range(4)]
    watching(api)
    assert poll_ages(api) == [2, 4, 8, 16, 31]


def test_retry_after_is_waited_for(api: FakeAPI) -> None:
    api.on_poll = [refusal(429, Retry_After="40")]
    watching(api)
    assert poll_ages(api) == [2, 42]


def test_retry_after_is_waited_for_at_the_end_of_the_time_too(api: FakeAPI) -> None:
    api.on_poll = [refusal(429, Retry_After="40")]
    assert watching(api, seconds=20) == {}
    assert poll_ages(api) == [2]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_for_a_moment_does_not_end_the_wait_for_what_is_paid_for(api: FakeAPI, status: int) -> None:
    """A key that worked was refused for a while, and worked again."""
    api.on_poll = [refusal(status), refusal(status), refusal(status)]
    assert watching(api)["pred-1"].is_completed


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_for_a_minute_is_raised(api: FakeAPI, status: int) -> None:
    api.on_poll = [refusal(status) for _ in range(100)]
    with pytest.raises(BitDanceError) as caught:
        watching(api)
    assert not caught.value.retry_helps
    assert 60 <= poll_ages(api)[-1] - poll_ages(api)[0] < 80
    assert len(api.polls) >= 3


def test_a_404_that_is_not_the_apis_says_nothing_of_a_prediction(api: FakeAPI) -> None:
    made = api.create({})
    api.on_poll = [httpx.Response(404, text="404 page not found") for _ in range(8)]
    assert watching(api, {made.id: START - 3600})[made.id].is_completed


def test_a_prediction_just_made_may_be_unknown_for_a_moment(api: FakeAPI) -> None:
    api.on_poll = [refusal(404), refusal(404), refusal(404)]
    assert watching(api)["pred-1"].is_completed


def test_a_prediction_unknown_after_the_grace_has_ended_as_deleted(api: FakeAPI) -> None:
    ended = watching(api, {"pred-404": START})["pred-404"]
    assert (ended.status, ended.is_terminal, ended.is_completed) == ("deleted", True, False)
    assert 60 < poll_ages(api)[-1] < 90


def test_an_old_prediction_that_is_unknown_twice_is_gone(api: FakeAPI) -> None:
    assert watching(api, {"pred-404": START - 61})["pred-404"].status == "deleted"
    assert len(api.polls) == 2


@pytest.mark.parametrize("first", [refusal(502), httpx.ReadTimeout("slow")], ids=["502", "no answer"])
def test_one_404_after_another_fault_does_not_write_off_what_is_paid_for(
    api: FakeAPI, first: httpx.Response | Exception
) -> None:
    api.latency = 70
    made = api.create({})
    api.clock.now += 61
    api.on_poll = [first, refusal(404)]
    assert watching(api, {made.id: START})[made.id].is_completed
    assert len(api.polls) > 2


def test_a_404_that_nobody_waited_for_does_not_count_for_the_next_who_waits(
    api: FakeAPI, clock: FakeClock
) -> None:
    async def scene() -> dict[str, Prediction]:
        poller = Poller(api.client(), clock=clock)
        first = poller.subscribe(is_single=True)

        def too_late(_: httpx.Request) -> httpx.Response:
            poller.close(first)
            return refusal(404)

        api.on_poll = [too_late, refusal(404)]
        made = api.create({})
        poller.add(first, made.id, clock.now - 61)
        await clock.sleep(5)
        return await wait_for(poller, {made.id: clock.now - 66}, until=clock.now + 60)

    (ended,) = run(scene()).values()
    assert ended.is_completed


def test_a_retry_after_of_a_day_holds_up_others_for_a_minute_at_most(api: FakeAPI, clock: FakeClock) -> None:
    async def scene() -> dict[str, Prediction]:
        poller = Poller(api.client(), clock=clock)
        api.on_poll = [refusal(429, Retry_After="86400")]
        first = poller.subscribe()
        poller.add(first, api.create({}).id, clock.now)
        await clock.sleep(65)
        try:
            return await wait_for(poller, {api.create({}).id: clock.now}, until=clock.now + 120)
        finally:
            poller.close(first)

    assert len(run(scene())) == 1
    assert clock.now < START + 180


def test_the_last_poll_is_at_the_end_of_the_time(api: FakeAPI) -> None:
    api.latency = 9999
    assert watching(api, seconds=50) == {}
    assert poll_ages(api)[-2:] == [45.95, 50.0]


@pytest.mark.parametrize(("seconds", "last"), [(20, 19.49), (22, 21.44)])
def test_no_poll_comes_right_after_another_at_the_hand_over(
    api: FakeAPI, seconds: float, last: float
) -> None:
    api.latency = 9999
    assert watching(api, seconds=seconds) == {}
    assert poll_ages(api)[-1] == last


def test_nothing_is_polled_when_the_hand_over_comes_before_the_first_poll(api: FakeAPI) -> None:
    assert watching(api, seconds=0) == {}
    assert api.polls == []


def test_an_overdue_prediction_is_polled_at_once(api: FakeAPI) -> None:
    made = api.create({})
    api.clock.now += 30
    assert watching(api, {made.id: START})[made.id].is_completed
    assert poll_ages(api) == [30]


def test_a_prediction_is_polled_once_even_after_the_deadline(api: FakeAPI) -> None:
    made = api.create({})
    api.clock.now += 30
    assert watching(api, {made.id: START}, seconds=-10)[made.id].is_completed
    assert len(api.polls) == 1


def test_two_predictions_are_waited_for_side_by_side(api: FakeAPI) -> None:
    api.latency = 100
    slow = api.create({})
    api.clock.now += 60
    fast = api.create({})
    found = watching(api, {slow.id: START, fast.id: START + 60})
    assert set(found) == {slow.id, fast.id}
    assert api.clock.now - START < 185
    assert min(moment for name, moment in api.polls if name == fast.id) - START == 62


def test_the_one_that_ended_is_returned_without_the_one_that_did_not(api: FakeAPI) -> None:
    api.latency = 100
    slow, fast = api.create({}), api.create({})
    fast.created -= 100
    found = watching(api, {slow.id: START, fast.id: START}, seconds=20)
    assert list(found) == [fast.id]
    assert sum(name == fast.id for name, _ in api.polls) == 1


def test_of_two_the_error_of_one_is_raised_as_itself(api: FakeAPI) -> None:
    made = api.create({})
    api.on_poll = [refusal(401) for _ in range(100)]
    with pytest.raises(BitDanceError) as caught:
        watching(api, {made.id: START, "pred-404": START - 100})
    assert type(caught.value) is AuthenticationError


def test_a_prediction_that_is_added_twice_ends_for_both_who_wait(api: FakeAPI, clock: FakeClock) -> None:
    async def scene() -> bool:
        poller = Poller(api.client(), clock=clock)
        subscription = poller.subscribe()
        made = api.create({})
        first = poller.add(subscription, made.id, clock.now)
        second = poller.add(subscription, made.id, clock.now)
        await clock.sleep(60)
        poller.close(subscription)
        return first.done() and second.done()

    assert run(scene())


def test_with_nothing_to_wait_for_nothing_is_asked(api: FakeAPI) -> None:
    assert watching(api, {}) == {}
    assert api.polls == []


def test_no_more_than_thirty_two_polls_are_under_way_even_at_the_deadline(
    api: FakeAPI, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.latency = 9999
    client = api.client()
    answer, under_way, most = client.get_prediction, 0, 0

    async def counted(prediction_id: str) -> Prediction:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await clock.sleep(0.01)
        try:
            return await answer(prediction_id)
        finally:
            under_way -= 1

    monkeypatch.setattr(client, "get_prediction", counted)
    pending = {api.create({}).id: clock.now for _ in range(60)}
    clock.now += 100

    assert run(wait_for(Poller(client, clock=clock), pending, until=clock.now + 3)) == {}
    assert most == 32


def test_at_the_deadline_everything_is_polled_whatever_the_others_show(
    api: FakeAPI, clock: FakeClock
) -> None:
    pending = {api.create({}).id: clock.now for _ in range(40)}
    for made in api.made.values():
        made.created += 3
    assert len(watching(api, pending, seconds=6.5)) == 40


def test_one_prediction_is_polled_once_for_all_that_wait_for_it(api: FakeAPI, clock: FakeClock) -> None:
    made = api.create({})

    async def both() -> list[dict[str, Prediction]]:
        poller = Poller(api.client(), clock=clock)
        waits = (wait_for(poller, {made.id: START}, until=START + 60) for _ in range(2))
        return await asyncio.gather(*waits)

    first, second = run(both())
    assert first[made.id] is second[made.id]
    assert poll_ages(api) == [2, 3]


def test_outages_one_after_another_are_told_once_a_minute(
    api: FakeAPI, caplog: pytest.LogCaptureFixture
) -> None:
    api.latency = 20
    pending = {api.create({}).id: START for _ in range(20)}
    alive = envelope({"id": "pred-1", "status": "processing"})
    api.on_poll = [*(refusal(503) for _ in range(4)), alive] * 5
    with caplog.at_level(logging.INFO):
        assert len(watching(api, pending)) == 20
    assert api.on_poll == []
    assert api.clock.now < START + 60
    told = [record.getMessage() for record in caplog.records]
    assert sum("keeps failing and is retried" in line for line in told) == 1
    assert sum("responds again" in line for line in told) == 1


def test_an_unexpected_error_reaches_whoever_waits(
    api: FakeAPI, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api.client()

    async def broken(_: str) -> Prediction:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(client, "get_prediction", broken)
    with pytest.raises(RuntimeError, match="nobody thought"):
        run(wait_for(Poller(client, clock=clock), {"pred-1": START}, until=START + 60))


def test_responses_that_drip_do_not_keep_the_others_from_being_polled(
    api: FakeAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty of them, which is more than there are places of both kinds."""
    monkeypatch.setattr(poller_module, "SLOW_AFTER", 0.05)
    client, dripping, under_way, most = api.client(), 40, 0, 0

    async def slow_but_one(prediction_id: str) -> Prediction:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            if prediction_id != "good":
                await asyncio.Event().wait()
            return Prediction(id=prediction_id, status="completed")
        finally:
            under_way -= 1

    monkeypatch.setattr(client, "get_prediction", slow_but_one)

    async def wait() -> dict[str, Prediction]:
        poller = Poller(client)
        old = time.time() - 100
        slow = poller.subscribe()
        for number in range(dripping):
            poller.add(slow, f"slow-{number}", old)
        await asyncio.sleep(0.02)
        try:
            return await asyncio.wait_for(wait_for(poller, {"good": old}, until=old + 1000), 5)
        finally:
            poller.close(slow)
            for poll in poller._under_way.values():
                poll.cancel()

    assert list(run(wait())) == ["good"]
    assert most <= 32
