"""What a job does next: the whole table, and what holds whatever the facts are."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.handoff import HandOver
from airflow_provider_bitdance.engine.next_step import (
    RESERVED_AHEAD,
    JobFacts,
    NextStep,
    Stop,
    Submit,
    WaitUntil,
    next_step,
)

MOST = 8
NOW = 1_780_000_000.0


def facts(**given: Any) -> JobFacts:
    """Return a deferrable job that has something to buy and to wait for; moments count from now."""
    fields: dict[str, Any] = {
        "left": 5,
        "purchases": 0,
        "max_unanswered": MOST,
        "in_flight": 4,
        "wait": math.inf,
        "first_end": None,
        "last_end": None,
        "idle_since": 0.0,
        "deadline": 600.0,
        "defer_after": 20.0,
        "break_even": 14.0,
    } | given
    for moment in ("first_end", "last_end", "idle_since", "deadline"):
        if fields[moment] is not None:
            fields[moment] += NOW
    return JobFacts(now=NOW, **fields)


ONLY_WAITING = {"left": 0, "in_flight": 4}
TABLE: dict[str, tuple[dict[str, Any], NextStep]] = {
    "the limiter admits one": ({"wait": 0.0}, Submit()),
    "the limiter admits one after the deadline": ({"wait": 0.0, "deadline": -1.0}, Submit()),
    "the limiter admits one and others are under way": ({"wait": 0.0, "purchases": 7}, Submit()),
    "all that may be unanswered are, and others reserve": ({"wait": 0.0, "purchases": MOST}, Submit()),
    "too many are under way": ({"wait": 0.0, "purchases": MOST + RESERVED_AHEAD}, WaitUntil(math.inf)),
    "the limiter admits one soon": ({"wait": 13.0}, WaitUntil(NOW + 13)),
    "the limiter admits one in long": ({"wait": 14.0}, HandOver(NOW + 14, 0)),
    "in long, and a purchase is under way": ({"wait": 14.0, "purchases": 1}, WaitUntil(NOW + 14)),
    "in long, and a purchase has failed": ({"wait": 14.0, "has_failed": True}, WaitUntil(NOW + 14)),
    "in long, beyond the deadline": ({"wait": 700.0}, WaitUntil(NOW + 600)),
    "in long, not deferrable": ({"wait": 14.0, "defer_after": None}, WaitUntil(NOW + 14)),
    "in flight is full, nothing known": ({}, WaitUntil(NOW + 20)),
    "full, the first ends soon": ({"first_end": 13.0}, WaitUntil(NOW + 20)),
    "full, the first ends in long": ({"first_end": 14.0}, HandOver(NOW + 14, 1)),
    "full, the first ends after the deadline": ({"first_end": 601.0}, WaitUntil(NOW + 20)),
    "full, nothing has moved for long": ({"idle_since": -20.0}, HandOver(NOW, 1)),
    "full, nothing has moved, defer_after 0": (
        {"idle_since": -13.0, "defer_after": 0.0},
        WaitUntil(NOW + 1),
    ),
    "full, nothing has moved, a purchase has failed": (
        {"idle_since": -20.0, "has_failed": True},
        WaitUntil(NOW + 600),
    ),
    "full, nothing has moved, not deferrable": (
        {"idle_since": -99.0, "defer_after": None},
        WaitUntil(NOW + 600),
    ),
    "full, at the deadline": ({"deadline": 0.0}, Stop()),
    "full, at the deadline, a purchase under way": ({"deadline": 0.0, "purchases": 1}, WaitUntil(math.inf)),
    "only waiting is left": (ONLY_WAITING, WaitUntil(NOW + 20)),
    "only waiting, for defer_after": (ONLY_WAITING | {"idle_since": -20.0}, HandOver(NOW, 4)),
    "only waiting, defer_after 0": (ONLY_WAITING | {"defer_after": 0.0}, HandOver(NOW, 4)),
    "only waiting, the last ends in long": (
        ONLY_WAITING | {"idle_since": -20.0, "last_end": 50.0},
        HandOver(NOW + 50, 4),
    ),
    "only waiting, the last ends soon": (
        ONLY_WAITING | {"idle_since": -20.0, "last_end": 5.0},
        HandOver(NOW, 4),
    ),
    "only waiting, a purchase has failed": (
        ONLY_WAITING | {"idle_since": -20.0, "has_failed": True},
        HandOver(NOW, 4),
    ),
    "only waiting, a purchase under way": (
        ONLY_WAITING | {"idle_since": -20.0, "purchases": 1},
        WaitUntil(math.inf),
    ),
    "only waiting, not deferrable": (ONLY_WAITING | {"defer_after": None}, WaitUntil(NOW + 600)),
    "only waiting, at the deadline": (ONLY_WAITING | {"deadline": 0.0}, Stop()),
    "only a purchase is left": ({"left": 0, "in_flight": 0, "purchases": 1}, WaitUntil(math.inf)),
    "nothing is left": ({"left": 0, "in_flight": 0}, Stop()),
    "stopped with something in flight": ({"is_stopped": True, "wait": 0.0}, WaitUntil(NOW + 600)),
    "stopped, idle for long": ({"is_stopped": True, "idle_since": -99.0}, WaitUntil(NOW + 600)),
    "stopped, at the deadline": ({"is_stopped": True, "deadline": 0.0}, Stop()),
    "stopped with nothing in flight": ({"is_stopped": True, "in_flight": 0}, Stop()),
    "stopped with a purchase under way": (
        {"is_stopped": True, "in_flight": 0, "purchases": 1},
        WaitUntil(math.inf),
    ),
    "taken over, or killed": ({"is_stopped": True, "is_over": True, "wait": 0.0, "purchases": 2}, Stop()),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_table(case: str) -> None:
    given_facts, expected = TABLE[case]
    assert next_step(facts(**given_facts)) == expected


moments = st.none() | st.floats(-1000, 1000)
some_facts = st.builds(
    facts,
    left=st.integers(0, 3),
    purchases=st.integers(0, MOST + RESERVED_AHEAD),
    in_flight=st.integers(0, 3),
    wait=st.just(math.inf) | st.floats(0, 1000),
    first_end=moments,
    last_end=moments,
    idle_since=st.floats(-1000, 0),
    deadline=st.floats(-1000, 1000),
    defer_after=st.none() | st.floats(0, 100),
    break_even=st.floats(0.1, 100),
    is_stopped=st.booleans(),
    is_over=st.booleans(),
    has_failed=st.booleans(),
)


@given(some_facts)
def test_it_buys_only_what_is_left_and_admitted_and_never_too_many_at_once(given_facts: JobFacts) -> None:
    if next_step(given_facts) == Submit():
        assert given_facts.left > 0
        assert given_facts.wait == 0
        assert given_facts.purchases < MOST + RESERVED_AHEAD
        assert not given_facts.is_stopped


def test_a_wait_that_is_too_short_for_a_unix_time_to_show_ends() -> None:
    shortest = math.nextafter(facts().now, math.inf)
    assert next_step(facts(left=1, wait=1e-9, deadline=-1.0)) == WaitUntil(shortest)


@given(some_facts)
def test_a_wait_is_for_the_future_and_ends_at_the_deadline_at_the_latest(given_facts: JobFacts) -> None:
    step = next_step(given_facts)
    if isinstance(step, WaitUntil):
        assert step.moment > given_facts.now
        late = given_facts.now >= given_facts.deadline
        assert late or given_facts.purchases or step.moment <= given_facts.deadline
        # Without an end to the wait something else ends it: a purchase that is under way.
        assert step.moment < math.inf or given_facts.purchases


@given(some_facts)
def test_a_worker_is_given_back_only_where_a_later_process_can_go_on(given_facts: JobFacts) -> None:
    step = next_step(given_facts)
    if isinstance(step, HandOver):
        assert given_facts.defer_after is not None
        assert given_facts.purchases == 0
        assert not given_facts.is_stopped
        assert given_facts.now < given_facts.deadline
        assert not (given_facts.left and given_facts.has_failed)
        assert 0 <= step.enough <= given_facts.in_flight
        assert step.until >= given_facts.now


@given(some_facts)
def test_it_stops_only_at_the_deadline_or_with_nothing_left(given_facts: JobFacts) -> None:
    if next_step(given_facts) == Stop():
        to_do = (0 if given_facts.is_stopped else given_facts.left) or given_facts.in_flight
        late = given_facts.now >= given_facts.deadline and not given_facts.purchases
        assert given_facts.is_over or late or not (to_do or given_facts.purchases)
