"""Which predictions are polled next, and when."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.polling.latency import AT_ONCE, Latencies
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.scheduler import PollScheduler


class Field:
    """Predictions of known ends, and polls of them on a clock of its own."""

    def __init__(
        self,
        ends: list[float],
        *,
        single: bool = False,
        in_flight: int | None = None,
        interval: float = 1.0,
        submitted_within: float = 0.0,
        round_trip: float = 0.02,
    ) -> None:
        self.round_trip = round_trip
        self.scheduler = PollScheduler(PollPolicy(interval=interval), draw=random.Random(1).random)
        self.kind = Latencies(is_single=single)
        self.ends = ends
        self.added: dict[int, float] = {}
        self.seen_at: dict[int, float] = {}
        self.polled: list[tuple[float, int]] = []
        begun = in_flight or len(ends)
        for number in range(begun):
            self.add(submitted_within * number / begun)

    def add(self, now: float) -> None:
        number = len(self.added)
        if number < len(self.ends):
            self.added[number] = now
            self.scheduler.add(str(number), now, self.kind, now=now)

    def run(self, *, until: float = 1000.0, most: int = 16) -> None:
        """Poll whenever it is due. Each end lets in the next one."""
        now, responses = 0.0, list[tuple[float, int]]()
        while now < until and len(self.seen_at) < len(self.ends):
            due = self.scheduler.next_due() if len(responses) < most else math.inf
            now = max(now, min([due, *(moment for moment, _ in responses)]))
            for response in [response for response in responses if response[0] <= now]:
                responses.remove(response)
                number = response[1]
                has_ended = self.added[number] + self.ends[number] <= now - self.round_trip / 2
                self.scheduler.polled(str(number), ended=has_ended, now=now)
                if has_ended:
                    self.seen_at[number] = now
                    self.add(now)
            for name in self.scheduler.take(now, most=most - len(responses)):
                assert int(name) not in {number for _, number in responses}, "two polls at once"
                self.polled.append((now, int(name)))
                responses.append((now + self.round_trip, int(name)))

    @property
    def polls_each(self) -> float:
        return len(self.polled) / len(self.ends)

    @property
    def lags_in_order(self) -> list[float]:
        return [self.seen_at[n] - self.added[n] - end for n, end in enumerate(self.ends)]

    @property
    def lags(self) -> list[float]:
        return sorted(self.lags_in_order)


def around(seconds: float, count: int = 100, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(0.9 * seconds, 1.1 * seconds) for _ in range(count)]


def scheduled(*names: str, now: float = 0.0, single: bool = False, **policy: float) -> PollScheduler:
    """Return a scheduler with predictions of one kind that were submitted at 0."""
    scheduler = PollScheduler(PollPolicy(**policy), draw=lambda: 0.5)  # type: ignore[arg-type]
    kind = Latencies(is_single=single)
    for name in names:
        scheduler.add(name, 0.0, kind, now=now)
    return scheduler


def polled_now(scheduler: PollScheduler, name: str, *, ended: bool, now: float) -> None:
    assert scheduler.take_last(name, now=now)
    scheduler.polled(name, ended=ended, now=now)


def test_one_prediction_alone_is_polled_each_second_and_then_each_tenth_of_its_age() -> None:
    field = Field([20.0], single=True)
    field.scheduler.draw = lambda: 0.5
    field.run()
    moments = [round(moment, 1) for moment, _ in field.polled]
    assert moments[:9] == [2.0, 3.0, 4.0, 5.1, 6.1, 7.1, 8.1, 9.1, 10.2]
    assert all(later / sooner < 1.2 for sooner, later in pairwise(moments[8:]))


@pytest.mark.parametrize("seconds", [2.0, 5.0, 12.4, 40.0])
def test_of_a_hundred_that_begin_together_each_is_polled_twice_and_seen_soon(seconds: float) -> None:
    runs = []
    for seed in range(5):
        field = Field(around(seconds, seed=seed))
        field.run()
        runs.append((field.polls_each, statistics.median(field.lags) / seconds, field.lags[-1] / seconds))
    polls, lag, longest = (statistics.mean(column) for column in zip(*runs, strict=True))
    assert polls <= 2.2
    assert lag <= 0.14
    assert longest <= 0.6


@pytest.mark.parametrize("seconds", [5.0, 40.0])
def test_of_a_hundred_submitted_within_a_second_each_is_polled_twice_or_thrice_and_seen_soon(
    seconds: float,
) -> None:
    """Their ages differ, so what one poll tells of all at one moment is not enough."""
    runs = []
    for seed in range(3):
        field = Field(around(seconds, seed=seed), submitted_within=1.0)
        field.run()
        runs.append((field.polls_each, statistics.median(field.lags) / seconds))
    polls, lag = (statistics.mean(column) for column in zip(*runs, strict=True))
    assert polls <= 2.6
    assert lag <= 0.1


def test_of_a_hundred_of_which_some_take_long_each_is_polled_three_times() -> None:
    field = Field([*around(5.0, 80), *around(40.0, 20)])
    field.run()
    assert field.polls_each <= 3.2
    assert statistics.median(field.lags) <= 0.9


@pytest.mark.parametrize("seed", range(10))
def test_slow_ones_that_are_polled_again_and_again_do_not_hide_that_the_others_have_ended(seed: int) -> None:
    """The oldest are polled first. If they are slow ones, the others must not wait for them."""
    ends = [*around(5.0, 80, seed), *around(40.0, 20, seed)]
    random.Random(seed).shuffle(ends)
    field = Field(ends, submitted_within=1.0)
    field.run()
    shares = sorted(lag / end for lag, end in zip(field.lags_in_order, ends, strict=True))
    assert shares[50] <= 0.2
    assert shares[90] <= 1.0


@pytest.mark.parametrize("count", [100, 1000])
def test_the_polls_an_image_do_not_grow_with_the_batch(count: int) -> None:
    field = Field(around(5.0, count))
    field.run()
    assert field.polls_each <= 2


def test_with_more_to_buy_a_place_in_flight_is_hardly_ever_empty() -> None:
    """A thousand images of 5 seconds, 100 in flight: 10 generations that each lose a lag."""
    field = Field(around(5.0, 1000), in_flight=100)
    field.run()
    assert field.polls_each <= 2.2
    assert max(field.seen_at.values()) <= 1.07 * (1000 * 5 / 100 + 5)


def test_with_more_to_buy_at_an_api_300_ms_away_what_ends_together_is_seen_soon() -> None:
    """Of 300 images of 5 seconds, 100 in flight, a hundred end within a second each time."""
    field = Field(around(5.0, 300), in_flight=100, submitted_within=1.0, round_trip=0.3)
    field.run(most=AT_ONCE)
    assert field.polls_each <= 2
    assert statistics.mean(field.lags) <= 0.3 / 2 + 0.5


def test_with_more_to_buy_slow_images_are_seen_within_a_twentieth_of_their_time() -> None:
    field = Field(around(60.0, 300), in_flight=50)
    field.run()
    assert field.polls_each <= 6
    assert statistics.mean(field.lags) <= 0.06 * 60


def test_what_has_ended_says_when_to_poll_the_next_one_first() -> None:
    scheduler, kind = PollScheduler(draw=lambda: 0.5), Latencies(expected=12.0)
    scheduler.add("probe", 100.0, kind, now=100.0)
    assert scheduler.next_due() == 102, "one is polled from the start, should they have got quicker"
    scheduler.add("two", 90.0, kind, now=100.0)
    scheduler.remove("probe")
    assert scheduler.take(101.9, most=9) == []
    assert scheduler.take(102.0, most=9) == ["two"]


def test_after_slow_ones_the_first_quick_one_says_that_things_have_changed() -> None:
    """A service that was cold, or busy, is not taken for slow ever after."""
    scheduler, kind = PollScheduler(draw=lambda: 0.5), Latencies(expected=120.0)
    for name in ("probe", "a", "b"):
        scheduler.add(name, 100.0, kind, now=100.0)
    assert scheduler.take(110.0, most=9) == ["probe"]
    scheduler.polled("probe", ended=True, now=110.0)
    assert sorted(scheduler.take(110.1, most=9)) == ["a", "b"]


def test_a_wrong_expectation_does_not_blind_a_batch() -> None:
    """Eight from a cold start take 120 seconds, the next ones 10, of 8 in flight."""
    field = Field([120.0] * 8 + [10.0] * 80, in_flight=8)
    field.run()
    assert max(field.seen_at.values()) <= 1.05 * (120 + 10 * 10)


@pytest.mark.parametrize("age", [60.0, 600.0, 3600.0, 86_400.0])
def test_what_ended_long_ago_is_seen_at_once(age: float) -> None:
    """A retry, or a take-over, hours later."""
    scheduler, now, seen = scheduled(*map(str, range(20)), now=age), age, 0
    while seen < 20:
        now = max(now, scheduler.next_due())
        taken = scheduler.take(now, most=16)
        now += 0.02
        for name in taken:
            scheduler.polled(name, ended=True, now=now)
            seen += 1
    assert now - age < 0.1


def test_a_batch_does_not_wait_for_the_slow_ones_of_another() -> None:
    scheduler, slow, quick = PollScheduler(draw=lambda: 0.5), Latencies(), Latencies(is_single=True)
    for number in range(100):
        scheduler.add(f"slow {number}", 0.0, slow, now=0.0)
    scheduler.add("quick", 0.0, quick, now=0.0)
    now, polled_at = 0.0, []
    while now < 12:
        now = max(now + 0.01, scheduler.next_due())
        for name in scheduler.take(now, most=16):
            if name == "quick":
                polled_at.append(round(now))
            scheduler.polled(name, ended=False, now=now)
    assert polled_at[:10] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_the_slow_ones_of_a_batch_do_not_hide_the_end_of_one_never_polled() -> None:
    scheduler, kind = PollScheduler(draw=lambda: 0.5), Latencies(expected=5.0)
    kind.probe = "slow 0"
    for number in range(40):
        scheduler.add(f"slow {number}", 0.0, kind, now=0.0)
    scheduler.add("quick", 0.0, kind, now=0.0)
    now = 0.0
    while now < 12:
        now = max(now, scheduler.next_due())
        taken = scheduler.take(now, most=1)
        if "quick" in taken:
            break
        for name in taken:
            scheduler.polled(name, ended=False, now=now + 0.02)
    assert now <= 1.6 * 5.0 + 0.5


def test_one_of_the_last_that_takes_far_longer_is_not_polled_each_second() -> None:
    field = Field([*[10.0] * 19, 3500.0])
    field.run(until=5000.0)
    assert len(field.polled) < 400
    assert field.lags[-1] <= 20


def test_a_response_after_its_prediction_was_removed_and_added_again_changes_nothing() -> None:
    scheduler = scheduled("one")
    assert scheduler.take(5.0, most=1) == ["one"]
    scheduler.remove("one")
    scheduler.add("one", 0.0, Latencies(), now=5.0)
    scheduler.polled("one", ended=False, now=5.1)
    assert scheduler.failed("one", requested=None, now=5.1) == 0
    assert scheduler.take(5.2, most=1) == ["one"]


def test_a_first_poll_that_finds_the_end_may_have_come_late_so_the_next_comes_sooner() -> None:
    scheduler, kind = PollScheduler(draw=lambda: 0.5), Latencies(expected=30.0, probe="another")
    scheduler.add("another", 0.0, kind, now=0.0)
    for number in range(10):
        start = 100.0 * number
        scheduler.add(str(number), start, kind, now=start)
        polled_now(scheduler, str(number), ended=True, now=start + (kind.expected or 0.0))
    assert kind.expected is not None
    assert kind.expected < 20


def test_what_ended_while_nobody_polled_teaches_nothing() -> None:
    scheduler = scheduled("ended", "not yet", now=57.0)
    polled_now(scheduler, "ended", ended=True, now=57.0)
    assert scheduler.expected_end("not yet") is None, "it may have ended long ago"
    polled_now(scheduler, "not yet", ended=False, now=57.0)
    scheduler.add("next", 0.0, scheduler._items["not yet"].kind, now=57.0)
    polled_now(scheduler, "not yet", ended=True, now=60.0)
    assert scheduler.expected_end("next") == 57.0


@pytest.mark.parametrize("single", [True, False])
def test_an_image_alone_in_its_task_is_never_polled_sooner_than_the_interval(single: bool) -> None:
    scheduler = scheduled("a", "b", single=single, interval=2.0)
    polled_now(scheduler, "a", ended=True, now=3.0)
    polled_now(scheduler, "b", ended=False, now=3.0)
    least = 2.0 if single else 0.2
    assert scheduler.take(3.0 + least - 0.01, most=1) == []
    assert scheduler.take(3.0 + least, most=1) == ["b"]


def test_the_first_poll_is_never_sooner_than_the_interval_whatever_was_learned() -> None:
    scheduler, kind = PollScheduler(PollPolicy(interval=8.0), draw=lambda: 0.0), Latencies(expected=3.0)
    scheduler.add("next", 10.0, kind, now=10.0)
    assert scheduler.take(17.9, most=1) == []
    assert scheduler.take(18.0, most=1) == ["next"]


def test_no_more_polls_than_allowed_are_taken_and_the_others_come_next() -> None:
    scheduler, kind = PollScheduler(draw=lambda: 0.5), Latencies()
    for number in range(4):
        scheduler.add(str(number), 100.0 * number, kind, now=400.0)
    first = scheduler.take(402.0, most=2)
    assert len(first) == 2
    assert sorted([*first, *scheduler.take(402.0, most=9)]) == ["0", "1", "2", "3"]


def test_retry_after_holds_up_every_poll_even_the_last_one() -> None:
    scheduler = scheduled("one", "two", now=60.0)
    (taken,) = scheduler.take(60.0, most=1)
    scheduler.failed(taken, requested=30.0, now=60.0)
    assert scheduler.take(89.0, most=9) == []
    assert not scheduler.take_last("two", now=89.0)
    assert len(scheduler.take(91.0, most=9)) == 2


def test_retry_after_of_a_day_holds_up_for_a_minute() -> None:
    scheduler = scheduled("one", "two", now=60.0)
    (taken,) = scheduler.take(60.0, most=1)
    scheduler.failed(taken, requested=86_400.0, now=60.0)
    assert len(scheduler.take(121.0, most=9)) == 2


def test_the_time_of_refusals_is_counted_until_a_poll_succeeds_or_is_lost() -> None:
    scheduler, counted = scheduled("one"), []
    for refused in (True, True, True, None, True, False, True, True):
        now = scheduler.next_due()
        assert scheduler.take(now, most=1) == ["one"]
        if refused is None:
            scheduler.polled("one", ended=False, now=now)
        else:
            counted.append(scheduler.failed("one", requested=None, now=now, refused=refused))
    assert counted[:3] == [0.0, 2.0, 6.0]
    assert [seconds > 0 for seconds in counted[3:]] == [False, False, False, True]


def test_what_is_removed_is_not_polled_and_its_late_response_changes_nothing() -> None:
    scheduler = scheduled("one", "two")
    assert scheduler.take(5.0, most=1)[0] == "one"
    scheduler.remove("one")
    scheduler.polled("one", ended=True, now=5.0)
    assert scheduler.failed("one", requested=None, now=5.0) == 0
    assert scheduler.expected_end("two") is None
    assert scheduler.take(999.0, most=9) == ["two"]


def test_a_last_poll_is_not_made_right_after_another_nor_beside_one() -> None:
    scheduler = scheduled("one")
    assert scheduler.take(5.0, most=1) == ["one"]
    assert not scheduler.take_last("one", now=5.0)
    scheduler.polled("one", ended=False, now=5.0)
    assert not scheduler.take_last("one", now=5.9)
    assert scheduler.take_last("one", now=6.0)


@given(st.lists(st.floats(0.5, 300), min_size=1, max_size=40))
def test_every_end_is_seen_within_twice_its_time_where_all_wait_alone(ends: list[float]) -> None:
    field = Field(ends, single=True)
    field.run(until=2000.0)
    assert len(field.seen_at) == len(ends)
    assert all(field.seen_at[number] <= max(2 * end, end + 2.5) + 16 for number, end in enumerate(ends))


def test_of_a_thousand_that_wait_alone_each_is_seen_soon() -> None:
    field = Field(around(30.0, 1000), single=True)
    field.run()
    assert field.polls_each <= 11
    assert field.lags[-1] <= 0.15 * 30


@given(st.lists(st.floats(0.5, 300), min_size=1, max_size=40), st.integers(1, 16))
def test_every_end_is_seen_in_the_end_whatever_the_others_take(ends: list[float], most: int) -> None:
    field = Field(ends)
    field.run(until=3000.0, most=most)
    assert len(field.seen_at) == len(ends)
