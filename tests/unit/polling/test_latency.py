"""What polled predictions tell of the others of their kind."""

from __future__ import annotations

import random

import pytest

from airflow_provider_bitdance.polling.latency import AT_ONCE, TELLING, Latencies, Poll


def after_polls(*polls: tuple[float, bool | None], is_first: bool = True) -> Latencies:
    kind = Latencies()
    kind.polls.extend(Poll(age, is_first, found_end) for age, found_end in polls)
    return kind


def quiet_until(kind: Latencies, age: float, *, is_first: bool = True) -> float:
    return kind.quiet_until(age, is_first=is_first, width=1.0, gap=0.5)


def learned(latencies: list[float]) -> float:
    kind = Latencies()
    for latency in latencies:
        kind.learn(latency)
    assert kind.expected is not None
    return kind.expected


def test_before_the_first_end_nothing_is_expected() -> None:
    assert Latencies().expected is None


def test_the_next_one_is_expected_when_two_in_five_of_the_last_had_ended() -> None:
    chance = random.Random(1)
    latencies = [chance.uniform(50, 100) for _ in range(2000)]
    expected = learned(latencies)
    assert 0.25 < sum(latency < expected for latency in latencies) / 2000 < 0.55


def test_slower_and_slower_ones_are_followed() -> None:
    assert learned([5.0] * 10 + [20.0] * 100) == pytest.approx(20, rel=0.1)


def test_one_much_quicker_than_expected_says_that_things_have_changed() -> None:
    assert learned([120.0] * 20 + [10.0]) == 10.0


def test_a_few_polls_without_an_end_make_others_of_that_age_wait_for_a_gap() -> None:
    kind = after_polls(*[(10.0, False)] * TELLING)
    assert quiet_until(kind, 10.1) == 10.5
    assert quiet_until(kind, 10.6) == 0.0


def test_too_few_polls_make_nobody_wait() -> None:
    assert quiet_until(after_polls(*[(10.0, False)] * (TELLING - 1)), 10.1) == 0.0


def test_one_of_the_last_few_that_found_an_end_makes_nobody_wait() -> None:
    kind = after_polls(*[(10.0, False)] * TELLING, (10.0, True))
    assert quiet_until(kind, 10.1) == 0.0


def test_where_one_of_the_last_few_found_an_end_only_as_few_are_polled_at_once() -> None:
    found = [(10.0, number == 0) for number in range(TELLING)]
    assert quiet_until(after_polls(*found, *[(10.0, None)] * (TELLING - 1)), 10.1) == 0.0
    assert quiet_until(after_polls(*found, *[(10.0, None)] * TELLING), 10.1) == 10.5


def test_where_most_of_the_last_few_found_an_end_any_number_is_polled_at_once() -> None:
    """An API that is 300 ms away would show a hundred that end together only after three seconds."""
    found = [(10.0, number > 0) for number in range(TELLING)]
    assert quiet_until(after_polls(*found, *[(10.0, None)] * (AT_ONCE - 1)), 10.1) == 0.0


def test_polls_under_way_count_before_anything_is_known() -> None:
    assert quiet_until(after_polls(*[(10.0, None)] * TELLING), 10.1) == 10.5


def test_polls_at_another_age_make_nobody_wait() -> None:
    assert quiet_until(after_polls(*[(10.0, False)] * TELLING), 12.0) == 0.0


def test_an_end_long_before_is_forgotten_for_the_last_few_polls() -> None:
    kind = after_polls((10.0, True), *[(10.0, False)] * TELLING)
    assert quiet_until(kind, 10.1) == 10.5


def test_polls_of_what_was_polled_before_tell_nothing_of_one_that_never_was() -> None:
    """What a poll has found not to have ended is more likely one of the slow ones."""
    kind = after_polls(*[(10.0, False)] * TELLING, is_first=False)
    assert quiet_until(kind, 10.1, is_first=True) == 0.0
    assert quiet_until(kind, 10.1, is_first=False) == 10.5


def test_first_polls_tell_of_what_was_polled_before() -> None:
    assert quiet_until(after_polls(*[(10.0, False)] * TELLING), 10.1, is_first=False) == 10.5
