"""How fast to submit: given limits to the letter, found ones by growth and halving."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.pacing import FIRST_WINDOW, LARGEST_WINDOW, Pace

NOW = 1_780_000_000.0


def test_a_given_limit_in_flight_holds_from_the_first_submission_on() -> None:
    pace = Pace(max_in_flight=3)
    assert [pace.wait(now=NOW, in_flight=count) for count in (0, 2, 3, 9)] == [0, 0, math.inf, math.inf]


def test_a_given_limit_neither_grows_nor_shrinks() -> None:
    pace = Pace(max_in_flight=3)
    for _ in range(100):
        pace.accepted()
    pace.refused(now=NOW, pause=1)
    assert pace.window == 3


def test_a_rate_is_used_up_and_then_waited_for() -> None:
    pace = Pace(requests_per_minute=2)
    assert [pace.turn(now=NOW), pace.turn(now=NOW + 10), pace.turn(now=NOW + 10)] == [0, 0, 50]
    assert pace.wait(now=NOW + 10, in_flight=0) == 50
    assert pace.turn(now=NOW + 60) == 0


def test_purchases_that_begin_count_before_they_are_sent() -> None:
    pace = Pace(requests_per_minute=2)
    pace.start()
    assert pace.wait(now=NOW, in_flight=1) == 0
    pace.start()
    assert pace.wait(now=NOW, in_flight=2) > 0
    pace.end()
    assert pace.wait(now=NOW, in_flight=1) == 0


@given(st.integers(1, 20), st.lists(st.floats(0, 40), min_size=1, max_size=120))
def test_no_minute_has_more_than_the_given_rate(rate: int, pauses: list[float]) -> None:
    pace, now = Pace(requests_per_minute=rate), NOW
    sent: deque[float] = deque()
    for pause in pauses:
        now += pause
        while wait := pace.turn(now=now):
            now += wait
        sent.append(now)
    for first, beyond in zip(sent, list(sent)[rate:], strict=False):
        assert beyond - first >= 60 - 1e-6


def test_without_limits_the_window_starts_small_and_doubles_with_each_round_of_answers() -> None:
    pace = Pace()
    for expected in (FIRST_WINDOW, 2 * FIRST_WINDOW, 4 * FIRST_WINDOW):
        assert pace.window == expected
        for _ in range(pace.window):
            pace.accepted()


def test_a_429_halves_the_window_once_and_then_it_grows_by_one_a_round() -> None:
    pace = Pace()
    for _ in range(24):
        pace.accepted()
    for _ in range(5):  # answers to what was sent before say nothing new
        pace.refused(now=NOW, pause=2)
    assert pace.window == 16
    for _ in range(17):
        pace.accepted()
    assert pace.window == 17


def test_a_429_holds_up_everybody_for_its_pause() -> None:
    pace = Pace()
    pace.refused(now=NOW, pause=30)
    assert pace.wait(now=NOW + 10, in_flight=0) == 20
    assert pace.wait(now=NOW + 30, in_flight=0) == 0


def test_429_after_429_leaves_one_in_flight() -> None:
    pace = Pace()
    for count in range(20):
        pace.refused(now=NOW + 60 * count, pause=1)
    assert pace.window == 1
    assert pace.wait(now=NOW + 9999, in_flight=0) == 0


@given(st.lists(st.sampled_from(["accepted", "refused"]), max_size=400))
def test_the_window_stays_within_its_bounds(answers: list[str]) -> None:
    pace, now = Pace(), NOW
    for answer in answers:
        now += 5
        if answer == "accepted":
            pace.accepted()
        else:
            pace.refused(now=now, pause=1)
        assert 1 <= pace.window <= LARGEST_WINDOW


@pytest.mark.parametrize("in_flight", [0, 1, 7])
def test_below_the_window_nothing_waits(in_flight: int) -> None:
    assert Pace().wait(now=NOW, in_flight=in_flight) == 0
