"""The trigger against the local service, on a clock that moves when somebody sleeps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger, Reason
from tests.builders import API_KEY, connection_to, trigger_again
from tests.unit.support import FakeClock

PROMPT = "A lighthouse that no log may show"


def bought(local: LocalService, clock: FakeClock, *, images: int = 1, latency: float = 5) -> dict[str, float]:
    """Buy images that take so many seconds, and return what a trigger has to wait for."""
    local.service.faults.clear()
    local.add_fault(on="submit", kind="latency", seconds=latency)
    hook = BitDanceHook()
    pending = {hook.submit(prompt=PROMPT, size="256*256").id: clock.now for _ in range(images)}
    local.service.faults.clear()
    local.service.log.clear()
    return pending


def waiting_for(pending: dict[str, float], clock: FakeClock, **given: Any) -> BitDanceTrigger:
    arguments = {
        "bitdance_conn_id": "bitdance_default",
        "pending": pending,
        "deadline": clock.now + 600,
        **given,
    }
    return BitDanceTrigger(**arguments)


async def events_of(trigger: BitDanceTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


def fired(trigger: BitDanceTrigger) -> dict[str, Any]:
    """Run a trigger to its end, and return its event; there is one."""
    (event,) = asyncio.run(events_of(trigger))
    return event


def test_a_finished_image_fires_one_event(local: LocalService, clock: FakeClock) -> None:
    trigger = waiting_for(bought(local, clock), clock)

    assert fired(trigger) == {"reason": "ready", "ended": 1, "pending": 0}


def test_the_event_comes_when_the_last_image_has_ended(local: LocalService, clock: FakeClock) -> None:
    start = clock.now
    pending = bought(local, clock, latency=5) | bought(local, clock, latency=40)

    assert fired(waiting_for(pending, clock)) == {"reason": "ready", "ended": 2, "pending": 0}
    assert clock.now >= start + 40


def test_a_failed_prediction_has_ended_too(local: LocalService, clock: FakeClock) -> None:
    local.add_fault(on="submit", kind="failed")
    pending = {BitDanceHook().submit(prompt=PROMPT).id: clock.now}

    assert fired(waiting_for(pending, clock))["reason"] == "ready"


def test_the_deadline_fires_with_what_has_ended_by_then(local: LocalService, clock: FakeClock) -> None:
    pending = bought(local, clock, latency=5) | bought(local, clock, latency=1000)
    deadline = clock.now + 100

    assert fired(waiting_for(pending, clock, deadline=deadline)) == {
        "reason": "deadline",
        "ended": 1,
        "pending": 1,
    }


def test_a_deadline_between_two_polls_fires_at_its_time_and_not_at_the_last_poll(
    local: LocalService, clock: FakeClock
) -> None:
    deadline = clock.now + 7

    fired(waiting_for(bought(local, clock, latency=1000), clock, deadline=deadline, poll_interval=2))

    assert local.requests()[-1].time < deadline == clock.now


def test_the_poll_interval_is_the_shortest_pause(local: LocalService, clock: FakeClock) -> None:
    start = clock.now

    fired(waiting_for(bought(local, clock, latency=20), clock, poll_interval=8))

    first, second, *_ = (event.time for event in local.requests())
    assert first - start == 8
    assert second - first == pytest.approx(8, abs=1)


def test_a_deadline_that_is_past_still_allows_one_poll(local: LocalService, clock: FakeClock) -> None:
    pending = bought(local, clock, latency=5)
    clock.now += 3600

    assert fired(waiting_for(pending, clock, deadline=clock.now - 60))["reason"] == "ready"


def test_an_outage_does_not_end_the_wait_before_its_time(local: LocalService, clock: FakeClock) -> None:
    pending = bought(local, clock)
    local.add_fault(on="result", kind="status", status=503)
    start = clock.now

    event = fired(waiting_for(pending, clock, deadline=start + 3600))

    assert event == {"reason": "deadline", "ended": 0, "pending": 1}
    assert clock.now - start == pytest.approx(3600, abs=1)


def test_an_api_that_comes_back_in_time_is_waited_for(local: LocalService, clock: FakeClock) -> None:
    pending = bought(local, clock)
    local.add_fault(on="result", kind="status", status=503, times=20)

    assert fired(waiting_for(pending, clock))["reason"] == "ready"


def test_a_wrong_key_is_unreachable_after_a_minute(
    local: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = bought(local, clock)
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, password="another_key"))

    assert fired(waiting_for(pending, clock))["reason"] == "unreachable"
    assert {event.status for event in local.requests()} == {401}


def test_a_connection_that_cannot_be_used_is_unreachable(
    local: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = bought(local, clock)
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, timeout="soon"))

    assert fired(waiting_for(pending, clock))["reason"] == "unreachable"


def test_a_connection_that_only_workers_see_is_unreachable(
    local: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = bought(local, clock)

    async def not_here(_: object) -> None:
        raise KeyError("no such connection in the triggerer")

    monkeypatch.setattr("airflow_provider_bitdance.hooks.bitdance.BitDanceHook.read_connection", not_here)

    assert fired(waiting_for(pending, clock))["reason"] == "unreachable"


@pytest.mark.parametrize("reason", ["ready", "deadline", "unreachable"])
def test_no_event_is_sent_before_its_time(local: LocalService, clock: FakeClock, reason: str) -> None:
    pending = bought(local, clock, latency=1000 if reason == "deadline" else 0)
    if reason == "unreachable":
        local.add_fault(on="result", kind="status", status=401)
    start = clock.now

    end = start + (900 if reason == "unreachable" else 3)
    event = fired(waiting_for(pending, clock, deadline=end, not_before=start + 100))

    assert (event["reason"], clock.now) == (reason, start + 100)


def test_an_event_whose_time_is_past_is_sent_at_once(local: LocalService, clock: FakeClock) -> None:
    start = clock.now
    pending = bought(local, clock, latency=0)

    fired(waiting_for(pending, clock, not_before=start - 10))

    assert clock.now == start + PollPolicy().first


def test_it_only_polls_its_predictions(local: LocalService, clock: FakeClock) -> None:
    pending = bought(local, clock, images=3, latency=60)

    fired(waiting_for(pending, clock))

    seen = {(event.method, event.path) for event in local.requests()}
    assert seen == {("GET", f"/api/v3/predictions/{prediction}/result") for prediction in pending}


def test_its_arguments_are_plain_json(clock: FakeClock) -> None:
    _, arguments = waiting_for({"abc": clock.now}, clock).serialize()

    assert json.loads(json.dumps(arguments)) == arguments


def test_it_is_made_again_from_what_airflow_keeps_of_it(clock: FakeClock) -> None:
    trigger = waiting_for({"abc": clock.now}, clock, not_before=clock.now + 10, poll_interval=3.5)

    again = trigger_again(trigger)

    assert vars(again) == vars(trigger)


def test_a_restarted_trigger_fires_the_same_event(local: LocalService, clock: FakeClock) -> None:
    trigger = waiting_for(bought(local, clock, latency=60), clock, not_before=clock.now + 90)

    async def killed() -> None:
        run = asyncio.ensure_future(events_of(trigger))
        while len(local.requests()) < 3:  # noqa: ASYNC110  # the service has no event to wait for
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    end = clock.now + 90
    asyncio.run(killed())

    assert fired(trigger_again(trigger)) == {"reason": "ready", "ended": 1, "pending": 0}
    assert clock.now == end


def test_two_copies_at_once_see_the_same_and_change_nothing(local: LocalService, clock: FakeClock) -> None:
    trigger = waiting_for(bought(local, clock, latency=20), clock)

    async def both() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(events_of(trigger), events_of(trigger_again(trigger)))

    first, second = asyncio.run(both())

    assert first == second == [{"reason": "ready", "ended": 1, "pending": 0}]
    assert {event.method for event in local.requests()} == {"GET"}
    assert local.bill().billed == 1


def test_on_kill_cancels_nothing(local: LocalService, clock: FakeClock) -> None:
    trigger = waiting_for(bought(local, clock, latency=20), clock)

    asyncio.run(trigger.on_kill())

    assert local.requests() == []
    assert len(local.predictions()) == 1


def test_neither_arguments_nor_event_hold_key_prompt_or_address(
    local: LocalService, clock: FakeClock
) -> None:
    trigger = waiting_for(bought(local, clock, latency=0), clock)

    kept = json.dumps([trigger.serialize(), fired(trigger)])

    assert not [secret for secret in (API_KEY, PROMPT, "lighthouse", "http", "://") if secret in kept]


def test_the_event_stays_small_however_many_images(local: LocalService, clock: FakeClock) -> None:
    trigger = waiting_for(bought(local, clock, images=60, latency=0), clock)

    assert len(json.dumps(fired(trigger))) < 300


def test_the_event_names_a_reason_that_the_operator_knows(local: LocalService, clock: FakeClock) -> None:
    event = fired(waiting_for(bought(local, clock, latency=0), clock))

    assert Reason(event["reason"]) is Reason.READY
