"""How fast to submit: given limits to the letter, found ones by growth and halving."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.rate_limiter import FIRST_WINDOW, LARGEST_WINDOW, MINUTE, RateLimiter

NOW = 1_780_000_000.0


def refuse(
    limiter: RateLimiter, now: float, *, asked: float | None = None, sent_at: float | None = None
) -> float:
    """Refuse a submission with a 429, and return the pause that follows."""
    limiter.refused(sent_at=now if sent_at is None else sent_at, now=now, requested=asked, draw=0.0)
    return limiter.blocked(now=now)


def with_in_flight(limiter: RateLimiter, count: int) -> float:
    limiter.in_flight = count
    return limiter.wait(now=NOW)


def test_a_given_limit_in_flight_holds_from_the_first_submission_on() -> None:
    limiter = RateLimiter(max_in_flight=3)
    assert [with_in_flight(limiter, count) for count in (0, 2, 3, 9)] == [0, 0, math.inf, math.inf]


def test_a_given_limit_neither_grows_nor_shrinks() -> None:
    limiter = RateLimiter(max_in_flight=3)
    for _ in range(100):
        limiter.accepted(now=NOW)
    refuse(limiter, NOW)
    assert limiter.window == 3


def test_a_rate_is_used_up_and_then_waited_for() -> None:
    limiter = RateLimiter(requests_per_minute=2)
    for moment in (NOW, NOW + 10):
        assert limiter.turn(now=moment) == 0
        limiter.accepted(now=moment)
    assert limiter.turn(now=NOW + 10) == limiter.wait(now=NOW + 10) == 50
    assert limiter.turn(now=NOW + 60) == 0


def test_a_submission_counts_from_its_answer_for_it_may_have_been_long_on_its_way() -> None:
    limiter = RateLimiter(requests_per_minute=1)
    assert limiter.turn(now=NOW) == 0
    assert 0 < limiter.turn(now=NOW + 20) < 1, "it is not answered yet"
    limiter.accepted(now=NOW + 25)
    assert limiter.turn(now=NOW + 26) == 59


def test_what_an_earlier_process_sent_counts_within_its_minute() -> None:
    limiter = RateLimiter(requests_per_minute=2, submitted=[NOW - 20, NOW - 90, NOW - 30])
    assert limiter.wait(now=NOW) == 30


def test_purchases_that_begin_count_before_they_are_sent() -> None:
    limiter = RateLimiter(requests_per_minute=2, max_in_flight=9)
    limiter.started += 1
    assert limiter.wait(now=NOW) == 0
    limiter.started += 1
    assert limiter.wait(now=NOW) > 0
    limiter.started -= 1
    assert limiter.wait(now=NOW) == 0


def test_purchases_that_begin_count_as_in_flight() -> None:
    limiter = RateLimiter(max_in_flight=2)
    limiter.started += 1
    assert with_in_flight(limiter, 1) == math.inf


@given(st.integers(1, 20), st.lists(st.floats(0, 40), min_size=1, max_size=120))
def test_no_minute_has_more_than_the_given_rate(rate: int, pauses: list[float]) -> None:
    limiter, now = RateLimiter(requests_per_minute=rate), NOW
    sent: deque[float] = deque()
    for pause in pauses:
        now += pause
        while wait := limiter.turn(now=now):
            now += wait
        sent.append(now)
        limiter.accepted(now=now)
    for first, beyond in zip(sent, list(sent)[rate:], strict=False):
        assert beyond - first >= 60 - 1e-6


def test_a_refused_submission_counts_against_the_given_rate() -> None:
    limiter = RateLimiter(requests_per_minute=1)
    assert limiter.turn(now=NOW) == 0
    refuse(limiter, NOW)
    assert limiter.turn(now=NOW + 5) == 55


def test_without_limits_the_window_starts_small_and_doubles_with_each_round_of_answers() -> None:
    limiter = RateLimiter()
    for expected in (FIRST_WINDOW, 2 * FIRST_WINDOW, 4 * FIRST_WINDOW):
        assert limiter.window == expected
        for _ in range(limiter.window):
            limiter.accepted(now=NOW)


def test_a_window_that_an_earlier_process_found_out_is_where_this_one_starts() -> None:
    assert RateLimiter(window=2).window == 2
    assert RateLimiter(window=2, max_in_flight=5).window == 5


def test_a_429_halves_the_window_once_and_then_it_grows_by_one_a_round() -> None:
    limiter = RateLimiter()
    for _ in range(24):
        limiter.accepted(now=NOW)
    for _ in range(5):  # answers to what was sent before say nothing new
        refuse(limiter, NOW)
    assert limiter.window == 16
    for _ in range(17):
        limiter.accepted(now=NOW)
    assert limiter.window == 17


def test_a_429_holds_up_everybody_for_the_pause_that_the_api_asks_for() -> None:
    limiter = RateLimiter()
    assert refuse(limiter, NOW, asked=30) == 30
    assert limiter.wait(now=NOW + 10) == 20
    assert limiter.turn(now=NOW + 10) == 20
    assert limiter.wait(now=NOW + 30) == 0


def test_without_a_word_of_the_api_the_pauses_double() -> None:
    limiter, now, pauses = RateLimiter(), NOW, []
    for _ in range(8):
        pauses.append(refuse(limiter, now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_third_429_in_a_row_is_taken_for_a_limit_of_the_minute() -> None:
    """WaveSpeed's limits reset every minute: what was taken in the last one counts from its first."""
    limiter = RateLimiter()
    limiter.accepted(now=NOW)
    limiter.accepted(now=NOW + 1)
    assert [refuse(limiter, NOW + 1), refuse(limiter, NOW + 2)] == [1, 2]
    assert refuse(limiter, NOW + 4) == MINUTE - 4


def test_after_a_429_one_submission_tries_it_and_the_others_wait_for_its_answer() -> None:
    limiter = RateLimiter()
    pause = refuse(limiter, NOW)
    later = NOW + pause
    assert limiter.turn(now=later) == 0
    assert limiter.turn(now=later) > 0
    limiter.accepted(now=later)
    assert limiter.turn(now=later) == 0


def test_a_trial_without_an_answer_lets_the_next_one_try() -> None:
    limiter = RateLimiter()
    later = NOW + refuse(limiter, NOW)
    assert limiter.turn(now=later) == 0
    limiter.lost(now=later)
    assert limiter.turn(now=later) == 0


def test_429_after_429_leaves_one_in_flight() -> None:
    limiter = RateLimiter()
    for count in range(20):
        refuse(limiter, NOW + 100 * count)
    assert limiter.window == 1
    assert limiter.wait(now=NOW + 9999) == 0


@given(st.lists(st.sampled_from(["accepted", "refused"]), max_size=400))
def test_the_window_stays_within_its_bounds(answers: list[str]) -> None:
    limiter, now = RateLimiter(), NOW
    for answer in answers:
        now += 5
        if answer == "accepted":
            limiter.accepted(now=now)
        else:
            refuse(limiter, now)
        assert 1 <= limiter.window <= LARGEST_WINDOW


@pytest.mark.parametrize("in_flight", [0, 1, 7])
def test_below_the_window_nothing_waits(in_flight: int) -> None:
    assert with_in_flight(RateLimiter(), in_flight) == 0


@pytest.mark.parametrize("limit", [6, 20, 50])
def test_two_tasks_that_find_out_the_same_limit_share_it(limit: int) -> None:
    """Both keep submitting to an account that refuses what is above its limit in flight."""
    latency, paces = 5.0, (RateLimiter(), RateLimiter())
    ends: list[tuple[float, int]] = []
    bought = [0, 0]
    now = NOW
    for tick in range(20_000):
        now += 0.05
        for end, owner in [item for item in ends if item[0] <= now]:
            ends.remove((end, owner))
            paces[owner].in_flight -= 1
        # The second one comes a minute late, when the first has all of it.
        for owner in (0, 1) if tick % 2 else (1, 0):
            if (owner == 1 and tick < 1200) or paces[owner].wait(now=now) or paces[owner].turn(now=now):
                continue
            if len(ends) >= limit:
                paces[owner].refused(sent_at=now, now=now, requested=None, draw=0.5)
                continue
            paces[owner].accepted(now=now)
            paces[owner].in_flight += 1
            ends.append((now + latency, owner))
            bought[owner] += tick > 4000
    assert min(bought) > 0.33 * sum(bought)
    assert sum(bought) > 0.7 * limit / latency * (16_000 * 0.05)
