"""The pauses between two polls of one prediction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.polling.policy import PollPolicy

ages = st.floats(0, 100_000)
draws = st.floats(0, 1)


@given(ages, draws, st.integers(0, 50), st.floats(0.1, 120))
def test_a_pause_is_never_shorter_than_the_interval_nor_much_longer_than_the_longest(
    age: float, draw: float, failures: int, interval: float
) -> None:
    policy = PollPolicy(interval=interval)
    pause = policy.pause(age=age, draw=draw, failures=failures)
    assert interval <= pause <= max(policy.longest, interval) * 1.1 + 1e-9


@pytest.mark.parametrize(("age", "pause"), [(0, 1), (5, 1), (10, 1), (20, 2), (50, 5), (150, 15), (9999, 15)])
def test_the_pause_grows_with_the_predictions_age(age: float, pause: float) -> None:
    assert PollPolicy().pause(age=age, draw=0.5) == pytest.approx(pause)


@pytest.mark.parametrize(("failures", "pause"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 15), (9999, 15)])
def test_each_failure_doubles_the_pause_up_to_the_longest(failures: int, pause: float) -> None:
    assert PollPolicy().pause(age=0, draw=0.5, failures=failures) == pytest.approx(pause)


@pytest.mark.parametrize(("draw", "pause"), [(0, 4.5), (0.5, 5), (1, 5.5)])
def test_jitter_spreads_the_polls_of_many_tasks(draw: float, pause: float) -> None:
    assert PollPolicy().pause(age=50, draw=draw) == pytest.approx(pause)


@pytest.mark.parametrize(("requested", "pause"), [(None, 1), (0.0, 1), (0.5, 1), (7.0, 7), (90.0, 90)])
def test_the_api_may_ask_for_a_longer_pause_but_not_for_a_shorter_one(
    requested: float | None, pause: float
) -> None:
    assert PollPolicy().pause(age=0, draw=0.5, requested=requested) == pytest.approx(pause)


@pytest.mark.parametrize(("interval", "first"), [(0.1, 2), (1, 2), (8, 8)])
def test_the_first_poll_comes_after_two_seconds_or_the_interval(interval: float, first: float) -> None:
    assert PollPolicy(interval=interval).first == first
