"""Limits by tier, and the gate that keeps them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.local.limits import (
    IN_FLIGHT_MESSAGE,
    RATE_MESSAGE,
    WINDOW,
    Gate,
    Limits,
    Tier,
    of,
    window_end,
)
from airflow_provider_bitdance.local.options import Options


@pytest.mark.parametrize(
    ("tier", "per_minute", "in_flight"),
    [
        (None, None, None),
        ("bronze", 2, 2),
        ("silver", 500, 300),
        ("gold", 3000, 3000),
        ("ultra", 5000, 10_000),
    ],
)
def test_a_tier_has_the_published_limits(
    tier: Tier | None, per_minute: int | None, in_flight: int | None
) -> None:
    assert Options(tier=tier).limits() == Limits(per_minute, in_flight)


def test_numbers_go_before_those_of_the_tier() -> None:
    assert of("bronze", per_minute=7) == Limits(7, 2)
    assert of("bronze", in_flight=1) == Limits(2, 1)
    assert of(None, per_minute=4, in_flight=5) == Limits(4, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tier": "platinum"},
        {"requests_per_minute": 0},
        {"max_in_flight": -1},
    ],
)
def test_limits_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        Options(**wrong)  # type: ignore[arg-type]


def test_above_the_concurrency_a_task_is_refused_until_one_ends() -> None:
    gate = Gate(Limits(in_flight=2))
    for start, end in ((0.0, 10.0), (1.0, 5.0)):
        assert gate.exceeded(start) is None
        gate.take(start, end)
    assert gate.exceeded(4.9) == IN_FLIGHT_MESSAGE
    assert gate.exceeded(5.0) is None


def test_above_the_rate_a_task_is_refused_until_the_next_full_minute() -> None:
    gate = Gate(Limits(per_minute=2))
    for start in (119.0, 119.5, 120.0):
        assert gate.exceeded(start) is None
        gate.take(start, start)
    gate.take(121.0, 121.0)
    assert gate.exceeded(179.9) == RATE_MESSAGE
    assert gate.exceeded(180.0) is None
    assert (window_end(121.0), window_end(180.0)) == (180.0, 240.0)


def test_without_limits_all_start_at_once() -> None:
    gate = Gate(Limits())
    for _ in range(1_000):
        assert gate.exceeded(5.0) is None
        assert gate.first_start(5.0) == 5.0
        gate.take(5.0, math.inf)


def test_behind_a_task_that_never_ends_the_queue_waits_for_ever() -> None:
    gate = Gate(Limits(in_flight=1))
    gate.take(gate.first_start(0.0), math.inf)
    assert gate.first_start(1.0) == math.inf
    gate.take(math.inf, math.inf)
    assert gate.first_start(2.0) == math.inf


# Whole and half seconds make ties, which are the hard cases.
SECONDS = st.integers(0, 120).map(lambda half: half / 2)
ARRIVALS = st.lists(st.tuples(SECONDS, SECONDS | st.just(200.0)), min_size=1, max_size=60)
SOME_LIMITS = st.builds(Limits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 5))


def _queued(limits: Limits, arrivals: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Queue tasks that come so many seconds one after the other and take so long: (came, start, end)."""
    gate, now, queued = Gate(limits), 1_000.0, []
    for after, takes in arrivals:
        now += after
        start = gate.first_start(now)
        gate.take(start, start + takes)
        queued.append((now, start, start + takes))
    return queued


def _admitted(limits: Limits, earlier: list[tuple[float, float, float]], at: float) -> bool:
    """Tell whether both limits admit one more task at a moment, by counting."""
    running = sum(start <= at < end for _, start, end in earlier)
    in_window = sum(start // WINDOW == at // WINDOW for _, start, _ in earlier)
    return (limits.in_flight is None or running < limits.in_flight) and (
        limits.per_minute is None or in_window < limits.per_minute
    )


@given(SOME_LIMITS, ARRIVALS)
def test_the_queue_keeps_both_limits_and_the_order(
    limits: Limits, arrivals: list[tuple[float, float]]
) -> None:
    queued = _queued(limits, arrivals)
    for number, (came, start, _) in enumerate(queued):
        assert start >= came
        assert _admitted(limits, queued[:number], start)
    assert [start for _, start, _ in queued] == sorted(start for _, start, _ in queued)


@given(SOME_LIMITS, ARRIVALS)
def test_no_task_waits_longer_than_the_limits_and_its_turn_ask_for(
    limits: Limits, arrivals: list[tuple[float, float]]
) -> None:
    queued = _queued(limits, arrivals)
    for number, (came, start, _) in enumerate(queued):
        earlier = queued[:number]
        turn = max([came, *(before for _, before, _ in earlier)])
        # Something changes only when a task ends or a window begins.
        moments = {turn, *(end for _, _, end in earlier), *(window_end(begun) for _, begun, _ in queued)}
        assert start == min(at for at in moments if at >= turn and _admitted(limits, earlier, at))


@given(SOME_LIMITS, ARRIVALS)
def test_refusing_keeps_both_limits_and_refuses_nothing_else(
    limits: Limits, arrivals: list[tuple[float, float]]
) -> None:
    gate, now = Gate(limits), 1_000.0
    taken: list[tuple[float, float, float]] = []
    for after, takes in arrivals:
        now += after
        admitted = gate.exceeded(now) is None
        assert admitted == _admitted(limits, taken, now)
        if admitted:
            gate.take(now, now + takes)
            taken.append((now, now, now + takes))
