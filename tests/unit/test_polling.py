"""When the next look at a prediction is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.polling import PollSchedule

ages = st.floats(0, 100_000)
draws = st.floats(0, 1)


@given(ages, draws, st.integers(0, 50), st.floats(0.1, 120))
def test_a_pause_is_never_shorter_than_the_interval_nor_much_longer_than_the_longest(
    age: float, draw: float, failures: int, interval: float
) -> None:
    schedule = PollSchedule(interval=interval)
    pause = schedule.pause(age=age, draw=draw, failures=failures)
    assert interval <= pause <= max(schedule.longest, interval) * 1.1 + 1e-9


@pytest.mark.parametrize(("age", "pause"), [(0, 2), (5, 2), (10, 2), (20, 4), (50, 10), (75, 15), (9999, 15)])
def test_the_pause_grows_with_the_predictions_age(age: float, pause: float) -> None:
    assert PollSchedule().pause(age=age, draw=0.5) == pytest.approx(pause)


@pytest.mark.parametrize(("failures", "pause"), [(0, 2), (1, 4), (2, 8), (3, 15), (9, 15)])
def test_each_failure_doubles_the_pause_up_to_the_longest(failures: int, pause: float) -> None:
    assert PollSchedule().pause(age=0, draw=0.5, failures=failures) == pytest.approx(pause)


@pytest.mark.parametrize(("draw", "pause"), [(0, 9), (0.5, 10), (1, 11)])
def test_jitter_spreads_the_looks_of_many_tasks(draw: float, pause: float) -> None:
    assert PollSchedule().pause(age=50, draw=draw) == pytest.approx(pause)


@pytest.mark.parametrize(("asked", "pause"), [(None, 2), (0.0, 2), (1.0, 2), (7.0, 7), (90.0, 90)])
def test_the_api_may_ask_for_a_longer_pause_but_not_for_a_shorter_one(
    asked: float | None, pause: float
) -> None:
    assert PollSchedule().pause(age=0, draw=0.5, asked=asked) == pytest.approx(pause)


@pytest.mark.parametrize(("age", "pause"), [(-5, 7), (0, 2), (1.5, 0.5), (2, 0), (600, 0)])
def test_the_first_look_comes_an_interval_after_the_submission_or_at_once(age: float, pause: float) -> None:
    assert PollSchedule().first(age=age) == pytest.approx(pause)
