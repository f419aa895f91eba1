"""How fast to submit: given limits to the letter, found ones by growth and halving."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.rate_limiter import LARGEST_WINDOW, MINUTE, RateLimiter

NOW = 1_780_000_000.0


def refuse(
    limiter: RateLimiter, now: float, *, asked: float | None = None, sent_at: float | None = None
) -> float:
    """Refuse a submission with a 429, and return the pause that follows."""
    limiter.refused(sent_at=now if sent_at is None else sent_at, now=now, requested=asked, draw=0.0)
    return limiter.blocked(now=now)


def accept(limiter: RateLimiter, *, full: bool = False) -> None:
    """Let the next submission be accepted.

    :param full: It takes the last place that is free, and all predictions in flight then stay.
    """
    limiter.in_flight = limiter.window if full else limiter.in_flight + 1
    limiter.accepted(now=NOW)


def started(in_flight: int) -> RateLimiter:
    """Return a limiter that knows no limit yet."""
    limiter = RateLimiter(in_flight_before=in_flight)
    limiter.in_flight = in_flight
    return limiter


def refused_at(held: int) -> RateLimiter:
    """Return a limiter to which a 429 has shown the limit, and that has held so many since."""
    limiter = started(held)
    limiter.started = 1
    refuse(limiter, NOW)
    limiter.started = 0
    return limiter


def trials_begin(limiter: RateLimiter) -> int:
    """Return how many submissions are accepted until the window grows."""
    before, count = limiter.window, 0
    while limiter.window == before:
        accept(limiter, full=True)
        count += 1
    return count


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


def test_without_limits_one_submission_is_sent_first_and_the_next_one_waits_for_its_answer() -> None:
    limiter = RateLimiter()
    assert limiter.turn(now=NOW) == 0
    assert limiter.turn(now=NOW) > 0
    limiter.accepted(now=NOW)
    assert limiter.turn(now=NOW) == 0


def test_a_lost_response_at_the_start_holds_up_no_other_submission() -> None:
    limiter = RateLimiter()
    assert limiter.turn(now=NOW) == 0
    limiter.started = 1
    limiter.lost(now=NOW)
    assert (limiter.wait(now=NOW), limiter.until_turn(now=NOW)) == (0, 0)


def test_the_start_grows_faster_the_more_the_account_has_taken() -> None:
    limiter = RateLimiter()
    for _ in range(26):
        assert limiter.turn(now=NOW) == 0
        limiter.in_flight += 1
        limiter.accepted(now=NOW)
    assert [limiter.turn(now=NOW) == 0 for _ in range(9)] == [True] * 8 + [False]


def test_a_window_that_is_not_used_up_shows_nothing_and_does_not_grow() -> None:
    limiter = RateLimiter(window=9)
    for _ in range(500):
        limiter.in_flight = 3
        limiter.accepted(now=NOW)
    assert limiter.window == 9


def test_a_window_that_an_earlier_process_found_out_is_where_this_one_starts() -> None:
    assert RateLimiter(window=2).window == 2
    assert RateLimiter(window=2, max_in_flight=5).window == 5


def test_the_first_429_shows_what_the_account_takes_at_once() -> None:
    limiter = RateLimiter(in_flight_before=25)
    limiter.in_flight, limiter.started = 20, 3
    refuse(limiter, NOW)
    assert limiter.window == 22, "two more are on their way"
    for left in (2, 1):  # answers to what was sent before
        limiter.started = left
        refuse(limiter, NOW + 0.01, sent_at=NOW - 0.01)
    assert limiter.window == 20


def test_what_is_refused_waits_for_the_end_of_one_in_flight_and_not_for_a_time() -> None:
    limiter = started(20)
    limiter.started = 1
    assert refuse(limiter, NOW) == 0
    limiter.queued = {"image"}
    assert limiter.until_turn(now=NOW + 3600) > 0
    limiter.in_flight -= 1
    assert limiter.until_turn(now=NOW) == 0


def test_what_has_only_begun_is_not_waited_for() -> None:
    limiter = RateLimiter()
    limiter.started = 2
    assert limiter.turn(now=NOW) == 0
    assert refuse(limiter, NOW) == 1


def test_of_many_that_were_refused_as_many_try_again_as_there_are_places() -> None:
    limiter = refused_at(20)
    limiter.started, limiter.queued = 5, set("abcde")
    limiter.in_flight -= 1
    assert limiter.until_turn(now=NOW) == 0
    limiter.queued.remove("a")
    assert limiter.until_turn(now=NOW) > 0
    assert limiter.turn(now=NOW) == 0


def test_one_more_than_ever_that_is_refused_is_all_that_is_given_up() -> None:
    limiter = refused_at(20)
    trials_begin(limiter)
    assert limiter.window == 21
    limiter.in_flight, limiter.started = 20, 1
    refuse(limiter, NOW + 60)
    assert limiter.window == 20


@pytest.mark.parametrize(("held", "left"), [(2, 1), (5, 3), (20, 16), (100, 92)])
def test_who_is_refused_what_it_held_before_makes_room_for_others(held: int, left: int) -> None:
    limiter = refused_at(held)
    limiter.in_flight, limiter.started = held - 1, 1
    refuse(limiter, NOW + 60)
    assert limiter.window == left


def test_room_that_nobody_has_taken_is_taken_back() -> None:
    limiter = refused_at(20)
    limiter.in_flight, limiter.started = 19, 1
    refuse(limiter, NOW + 60)
    accepted = 0
    while limiter.window < 19:
        accept(limiter, full=True)
        accepted += 1
    assert 3 * 4 * 16 < accepted < 3 * 4 * 20


def test_small_ones_try_for_more_sooner_than_large_ones() -> None:
    rounds = [trials_begin(refused_at(held)) / held for held in (1, 5, 20)]
    assert rounds == sorted(rounds)
    assert rounds[-1] <= 9


def test_each_place_that_is_found_halves_the_time_to_the_next_trial() -> None:
    limiter = refused_at(20)
    assert [round(trials_begin(limiter) / 20) for _ in range(3)] == [8, 4, 2]


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


def test_the_fourth_429_in_a_row_is_taken_for_a_limit_of_the_minute() -> None:
    """WaveSpeed's limits reset every minute: what was taken in the last one counts from its first."""
    limiter = RateLimiter()
    limiter.accepted(now=NOW)
    limiter.accepted(now=NOW + 1)
    assert [refuse(limiter, NOW + moment) for moment in (1, 2, 4)] == [1, 2, 4]
    assert refuse(limiter, NOW + 8) == MINUTE - 8


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
    assert with_in_flight(RateLimiter(window=8), in_flight) == 0
