"""When the next look at a prediction is due."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.scheduler import PollScheduler, Subscriber

ages = st.floats(0, 100_000)
draws = st.floats(0, 1)


@given(ages, draws, st.integers(0, 50), st.floats(0.1, 120))
def test_a_pause_is_never_shorter_than_the_interval_nor_much_longer_than_the_longest(
    age: float, draw: float, failures: int, interval: float
) -> None:
    schedule = PollPolicy(interval=interval)
    pause = schedule.pause(age=age, draw=draw, failures=failures)
    assert interval <= pause <= max(schedule.longest, interval) * 1.1 + 1e-9


@pytest.mark.parametrize(("age", "pause"), [(0, 1), (5, 1), (10, 1), (20, 2), (50, 5), (150, 15), (9999, 15)])
def test_the_pause_grows_with_the_predictions_age(age: float, pause: float) -> None:
    assert PollPolicy().pause(age=age, draw=0.5) == pytest.approx(pause)


@pytest.mark.parametrize(("failures", "pause"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 15), (9999, 15)])
def test_each_failure_doubles_the_pause_up_to_the_longest(failures: int, pause: float) -> None:
    assert PollPolicy().pause(age=0, draw=0.5, failures=failures) == pytest.approx(pause)


@pytest.mark.parametrize(("draw", "pause"), [(0, 4.5), (0.5, 5), (1, 5.5)])
def test_jitter_spreads_the_looks_of_many_tasks(draw: float, pause: float) -> None:
    assert PollPolicy().pause(age=50, draw=draw) == pytest.approx(pause)


@pytest.mark.parametrize(("asked", "pause"), [(None, 1), (0.0, 1), (0.5, 1), (7.0, 7), (90.0, 90)])
def test_the_api_may_ask_for_a_longer_pause_but_not_for_a_shorter_one(
    asked: float | None, pause: float
) -> None:
    assert PollPolicy().pause(age=0, draw=0.5, asked=asked) == pytest.approx(pause)


@pytest.mark.parametrize(("interval", "first"), [(0.1, 2), (1, 2), (8, 8)])
def test_the_first_look_comes_after_two_seconds_or_the_interval(interval: float, first: float) -> None:
    assert PollPolicy(interval=interval).first == first


class Field:
    """Predictions of known ends, and looks at them on a clock of its own."""

    def __init__(self, ends: list[float], *, interval: float = 1.0, together: bool = True) -> None:
        self.looks = PollScheduler(PollPolicy(interval=interval), draw=lambda: 0.5)
        self.ends = ends
        self.seen_at: dict[int, float] = {}
        self.looked: list[tuple[float, int]] = []
        self.watcher = Subscriber(is_single=len(ends) == 1)
        for number in range(len(ends) if together else 0):
            self.add(number, 0.0)

    def add(self, number: int, now: float) -> None:
        self.looks.add(str(number), now, self.watcher, now=now)

    def run(self, *, until: float = 1000.0, most: int = 16) -> None:
        """Look whenever it is due; a response takes 20 milliseconds."""
        now, answers = 0.0, list[tuple[float, int]]()
        while now < until and len(self.seen_at) < len(self.ends):
            due = self.looks.next_due() if len(answers) < most else math.inf
            moment = min([due, *(answer for answer, _ in answers)])
            now = max(now, moment)
            for answer in [answer for answer in answers if answer[0] <= now]:
                answers.remove(answer)
                number = answer[1]
                has_ended = self.ends[number] <= now - 0.01
                if has_ended:
                    self.seen_at[number] = now
                self.looks.seen(str(number), ended=has_ended, now=now)
            for name in self.looks.take(now, most=most - len(answers)):
                assert int(name) not in {number for _, number in answers}, "two looks at once"
                self.looked.append((now, int(name)))
                answers.append((now + 0.02, int(name)))

    @property
    def looks_each(self) -> float:
        return len(self.looked) / len(self.ends)

    @property
    def lags(self) -> list[float]:
        return sorted(self.seen_at[number] - end for number, end in enumerate(self.ends))


def around(seconds: float, count: int = 100, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(0.9 * seconds, 1.1 * seconds) for _ in range(count)]


def test_one_prediction_alone_is_looked_at_each_second_and_then_each_tenth_of_its_age() -> None:
    field = Field([20.0])
    field.run()
    moments = [round(moment, 1) for moment, _ in field.looked]
    assert moments[:9] == [2.0, 3.0, 4.0, 5.1, 6.1, 7.1, 8.1, 9.1, 10.2]
    assert all(later / sooner < 1.2 for sooner, later in pairwise(moments[8:]))


@pytest.mark.parametrize("seconds", [2.0, 5.0, 12.4, 40.0])
def test_of_a_hundred_that_begin_together_each_is_looked_at_twice_and_seen_soon(seconds: float) -> None:
    runs = []
    for seed in range(5):
        field = Field(around(seconds, seed=seed))
        field.run()
        runs.append((field.looks_each, statistics.median(field.lags) / seconds, field.lags[-1] / seconds))
    looks, lag, longest = (statistics.mean(column) for column in zip(*runs, strict=True))
    assert looks <= 2.2
    assert lag <= 0.14
    assert longest <= 0.6


def test_of_a_hundred_of_which_some_take_long_each_is_looked_at_three_times() -> None:
    field = Field([*around(5.0, 80), *around(40.0, 20)])
    field.run()
    assert field.looks_each <= 3.2
    assert statistics.median(field.lags) <= 0.9


def test_what_has_ended_says_when_to_look_at_the_next() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("one", 0.0, watcher, now=0.0)
    assert looks.take(12.0, most=1) == ["one"]
    looks.seen("one", ended=False, now=12.0)
    assert looks.take(13.2, most=1) == ["one"]
    looks.seen("one", ended=True, now=13.2)
    assert looks.expected_age(watcher) == 12.0
    looks.add("scout", 100.0, watcher, now=100.0)
    assert looks.next_due() == 102
    looks.add("two", 90.0, watcher, now=100.0)
    looks.remove("scout")
    assert looks.take(102.0, most=9) == []
    assert looks.next_due() == pytest.approx(90 + 12 * 1.1)


def test_after_slow_ones_the_first_quick_one_says_that_things_have_changed() -> None:
    """A service that was cold, or busy, is not taken for slow ever after."""
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("slow", 0.0, watcher, now=0.0)
    looks.take(30.0, most=1)
    looks.seen("slow", ended=False, now=30.0)
    looks.take(60.0, most=1)
    looks.seen("slow", ended=True, now=60.0)
    assert looks.expected_age(watcher) == 54
    for name in ("scout", "a", "b"):
        looks.add(name, 100.0, watcher, now=100.0)
    assert looks.take(105.0, most=9) == ["scout"]
    looks.seen("scout", ended=True, now=105.0)
    assert looks.expected_age(watcher) == 4.5
    assert sorted(looks.take(105.1, most=9)) == ["a", "b"]


@pytest.mark.parametrize("age", [60.0, 600.0, 3600.0, 86_400.0])
def test_what_ended_long_ago_is_seen_at_once(age: float) -> None:
    """A retry, or a take-over, hours later."""
    looks, watcher, now, seen = PollScheduler(draw=lambda: 0.5), Subscriber(), age, 0
    for number in range(20):
        looks.add(str(number), 0.0, watcher, now=now)
    while seen < 20:
        now = max(now, looks.next_due())
        taken = looks.take(now, most=16)
        now += 0.02
        for name in taken:
            looks.seen(name, ended=True, now=now)
            seen += 1
    assert now - age < 0.1


def test_a_batch_does_not_wait_for_the_slow_ones_of_another() -> None:
    looks, slow, quick = PollScheduler(draw=lambda: 0.5), Subscriber(), Subscriber()
    for number in range(100):
        looks.add(f"slow {number}", 0.0, slow, now=0.0)
    looks.add("quick", 0.0, quick, now=0.0)
    now, looked_at = 0.0, []
    while now < 12:
        now = max(now + 0.01, looks.next_due())
        for name in looks.take(now, most=16):
            if name == "quick":
                looked_at.append(round(now))
            looks.seen(name, ended=False, now=now)
    assert looked_at[:10] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_an_answer_that_comes_after_its_prediction_was_removed_and_added_again_changes_nothing() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("one", 0.0, watcher, now=0.0)
    assert looks.take(5.0, most=1) == ["one"]
    looks.remove("one")
    looks.add("one", 0.0, watcher, now=5.0)
    looks.seen("one", ended=False, now=5.1)
    assert looks.failed("one", asked=None, now=5.1) == 0
    assert looks.take(5.2, most=1) == ["one"]


def test_a_first_look_that_finds_the_end_may_have_come_late_so_the_next_comes_sooner() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    expected = []
    for number in range(20):
        start = 100.0 * number
        looks.add(str(number), start, watcher, now=start)
        due = looks.next_due() if number else start + 30.0
        assert looks.take(due, most=1)
        looks.seen(str(number), ended=True, now=due)
        expected.append(looks.expected_age(watcher) or 0.0)
    assert expected[0] == pytest.approx(27.0)
    assert expected[1] == pytest.approx(1.8), "the next one is looked at from the start"


def test_with_more_to_buy_each_is_looked_at_twice_a_second_once_it_may_be_ready() -> None:
    field = Field(around(60.0, 50))
    field.watcher.is_pressed = True
    field.looks._crowd(field.watcher).expected_age = 54.0
    field.run()
    assert statistics.median(field.lags) < 0.5


def test_with_more_to_buy_the_first_end_of_many_is_seen_soon_though_nothing_is_known() -> None:
    late = []
    for seed in range(10):
        field = Field(around(60.0, 50, seed=seed))
        field.watcher.is_pressed = True
        field.run(until=70.0)
        late.append(min(field.seen_at.values()) - min(field.ends))
        before = [number for moment, number in field.looked if moment < min(field.ends)]
        assert len(before) <= 50 * 54 / 8, "a look at each in 10 seconds, and a few"
    assert statistics.mean(late) < 2.5


def test_with_more_to_buy_many_young_ones_cost_five_looks_a_second_and_not_one_each() -> None:
    for seed in range(10):
        field = Field(around(5.0, 100, seed=seed))
        field.watcher.is_pressed = True
        field.run()
        before = [number for moment, number in field.looked if moment < min(field.ends)]
        assert len(before) <= 5 * (min(field.ends) - field.looks.schedule.first) + 2
        assert statistics.median(field.lags) < 0.5


def test_what_ended_while_nobody_looked_says_that_ends_may_come_sooner() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("ended", 0.0, watcher, now=57.0)
    looks.add("not yet", 0.0, watcher, now=57.0)
    assert looks.take_one("ended", now=57.0)
    looks.seen("ended", ended=True, now=57.0)
    assert looks.expected_age(watcher) is None, "it may have ended long ago"
    for now, ended in (57.0, False), (60.0, True):
        assert looks.take_one("not yet", now=now)
        looks.seen("not yet", ended=ended, now=now)
    assert looks.expected_age(watcher) == pytest.approx(0.9 * 57.0)


@pytest.mark.parametrize(("alone", "least"), [(True, 2.0), (False, 0.2)])
def test_an_image_alone_in_its_task_is_never_looked_at_sooner_than_the_interval(
    alone: bool, least: float
) -> None:
    looks, watchers = (
        PollScheduler(PollPolicy(interval=2.0), draw=lambda: 0.5),
        [Subscriber(is_single=alone)] * 2,
    )
    for name, watcher in zip("ab", watchers, strict=True):
        looks.add(name, 0.0, watcher, now=0.0)
        assert looks.take_one(name, now=3.0)
        looks.seen(name, ended=name == "a", now=3.0)
    assert looks.take(3.0 + least - 0.01, most=1) == []
    assert looks.take(3.0 + least, most=1) == ["b"]


def test_somebody_pressed_looks_after_a_tenth_of_the_interval_at_the_soonest() -> None:
    looks, watcher = PollScheduler(PollPolicy(interval=8.0), draw=lambda: 0.0), Subscriber(is_pressed=True)
    for number in range(4):
        looks.add(str(number), 0.0, watcher, now=0.0)
        assert looks.take_one(str(number), now=7.0)
        looks.seen(str(number), ended=number < 3, now=7.0)
    assert looks.next_due() - 7.0 == pytest.approx(0.8)


def test_the_first_look_is_never_sooner_than_the_interval_whatever_was_learned() -> None:
    looks, watcher = PollScheduler(PollPolicy(interval=8.0), draw=lambda: 0.0), Subscriber()
    looks.add("quick", 0.0, watcher, now=0.0)
    assert looks.take(8.0, most=1)
    looks.seen("quick", ended=True, now=8.0)
    looks.add("scout", 10.0, watcher, now=10.0)
    looks.add("next", 10.0, watcher, now=10.0)
    looks.remove("scout")
    assert looks.take(17.9, most=1) == []
    assert looks.take(18.0, most=1) == ["next"]


def test_no_more_looks_than_allowed_are_taken_and_the_others_come_next() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    for number in range(5):
        looks.add(str(number), 100.0 * number, watcher, now=400.0)
    first = looks.take(402.0, most=2)
    assert len(first) == 2
    assert set(looks.take(402.0, most=9)).isdisjoint(first)


def test_retry_after_holds_up_every_look() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("one", 0.0, watcher, now=0.0)
    looks.add("two", -50.0, watcher, now=0.0)
    (taken,) = looks.take(0.0, most=1)
    assert looks.failed(taken, asked=30.0, now=0.0) == 1
    assert looks.take(29.0, most=9) == []
    assert len(looks.take(31.0, most=9)) == 2


def test_failures_are_counted_until_a_look_succeeds() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("one", 0.0, watcher, now=0.0)
    now, counted = 0.0, []
    for fails in (True, True, False, True):
        now = looks.next_due()
        assert looks.take(now, most=1) == ["one"]
        if fails:
            counted.append(looks.failed("one", asked=None, now=now))
        else:
            looks.seen("one", ended=False, now=now)
    assert counted == [1, 2, 1]


def test_what_is_removed_is_not_looked_at_and_its_late_answer_changes_nothing() -> None:
    looks, watcher = PollScheduler(draw=lambda: 0.5), Subscriber()
    looks.add("one", 0.0, watcher, now=0.0)
    assert looks.take(5.0, most=1) == ["one"]
    looks.remove("one")
    looks.seen("one", ended=True, now=5.0)
    assert looks.failed("one", asked=None, now=5.0) == 0
    assert looks.expected_age(watcher) is None
    assert looks.take(999.0, most=9) == []


@given(st.lists(st.floats(0.5, 300), min_size=1, max_size=40))
def test_every_end_is_seen_within_twice_its_time_where_all_wait_alone(ends: list[float]) -> None:
    field = Field(ends)
    field.watcher.is_single = True
    field.run(until=2000.0)
    assert len(field.seen_at) == len(ends)
    assert all(field.seen_at[number] <= max(2 * end, end + 2.5) + 16 for number, end in enumerate(ends))


def test_of_a_thousand_that_wait_alone_each_is_seen_soon() -> None:
    field = Field(around(30.0, 1000))
    field.watcher.is_single = True
    field.run()
    assert field.looks_each <= 11
    assert field.lags[-1] <= 0.15 * 30


@given(st.lists(st.floats(0.5, 300), min_size=1, max_size=40), st.integers(1, 16))
def test_every_end_is_seen_in_the_end_whatever_the_others_take(ends: list[float], most: int) -> None:
    field = Field(ends)
    field.run(until=3000.0, most=most)
    assert len(field.seen_at) == len(ends)
