"""When to look at which prediction. Pure: no clock and no network; the time is an argument.

One prediction alone is looked at again and again, and the pause grows with its age. Of many of about the same
age a few are looked at first, and the others only when these have ended: one look tells about all. What has
ended says when the next ones are likely to be ready, so their first look comes then.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakKeyDictionary

from airflow_provider_bitdance.polling.latency import Crowd
from airflow_provider_bitdance.polling.policy import PollPolicy

__all__ = ["PollScheduler", "Subscriber"]

IMPATIENCE = 1.5
"""The only prediction of its task is looked at before it is so many times as old as at its last look."""
NEARLY_READY = 0.1
"""The shortest pause, as a part of ``interval``, where others of the same age have ended."""
PRESSED = 0.4
"""The longest pause, as a part of ``interval``, where somebody is pressed and an end is near."""
FAR_BEYOND = 1.5
"""A prediction so many times as old as expected is not near its end: it is one of another kind."""
SOME, MOST = 1 / 3, 1 / 2
"""Where this part of the last looks found an end, one of that age is looked at: a first time, or again."""
LOOK_TAKES = 0.05
LONGEST_QUIET = 60.0
"""Seconds. WaveSpeed's limits "reset every minute"; a longer ``Retry-After`` would hold up an account."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Subscriber:
    """Who waits for predictions: a job, or a trigger.

    :param is_single: It waits for one prediction only.
    :param is_pressed: It has more to buy as soon as one has ended, so each is looked at early.
    """

    is_single: bool = False
    is_pressed: bool = False


@dataclass(slots=True, eq=False)
class _Item:
    submitted_at: float
    watcher: Subscriber
    crowd: Crowd
    due: float
    is_overdue: bool
    looked_at_age: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class PollScheduler:
    """Decides at which of many predictions to look now. Never twice at once at the same one.

    :param schedule: The pauses of a prediction of which nothing is known.
    :param draw: Returns random numbers from 0 to 1.
    """

    schedule: PollPolicy = field(default_factory=PollPolicy)
    draw: Callable[[], float] = field(default=lambda: random.random())
    _items: dict[str, _Item] = field(default_factory=dict)
    _queue: list[tuple[float, int, str]] = field(default_factory=list)
    _ticket: count[int] = field(default_factory=count)
    _singles: Crowd = field(default_factory=Crowd)
    _crowds: WeakKeyDictionary[Subscriber, Crowd] = field(default_factory=WeakKeyDictionary)
    _quiet_until: float = 0.0

    def expected_age(self, watcher: Subscriber) -> float | None:
        """Return the age in seconds at which a watcher's predictions may be ready, where it is known."""
        return self._crowd(watcher).expected_age

    def add(self, prediction_id: str, submitted_at: float, watcher: Subscriber, *, now: float) -> None:
        """Begin with a prediction.

        :param submitted_at: Unix time.
        :param now: Unix time.
        """
        crowd, first = self._crowd(watcher), self.schedule.first
        if crowd.expected_age is not None:
            if crowd.scout not in self._items:
                crowd.scout = prediction_id
            else:
                first = self._first(crowd.expected_age, watcher)
        due = submitted_at + first
        item = _Item(submitted_at, watcher, crowd, due=max(now, due), is_overdue=due < now)
        self._items[prediction_id] = item
        crowd.size += 1
        self._put(prediction_id, item, item.due)

    def remove(self, prediction_id: str) -> None:
        """Stop with a prediction."""
        item = self._items.pop(prediction_id, None)
        if item is not None:
            item.crowd.size -= 1
            item.crowd.under_way.pop(prediction_id, None)

    def next_due(self) -> float:
        """Return the Unix time of the next look, or of the next question whether to look; or infinity."""
        return self._queue[0][0] if self._queue else float("inf")

    def take(self, now: float, *, most: int) -> list[str]:
        """Return the predictions to look at now; each is under way until :meth:`seen` or :meth:`failed`.

        :param most: At most so many.
        """
        taken: list[str] = []
        while len(taken) < most and self._queue and self._queue[0][0] <= now:
            due, _, prediction_id = heapq.heappop(self._queue)
            item = self._items.get(prediction_id)
            if item is None or item.due != due or prediction_id in item.crowd.under_way:
                continue  # it was put again, or removed
            later = max(self._quiet_until, self._later(prediction_id, item, now))
            if later > now:
                item.crowd.put_off[prediction_id] = None
                self._put(prediction_id, item, later)
            else:
                self.take_one(prediction_id, now=now)
                taken.append(prediction_id)
        return taken

    def take_one(self, prediction_id: str, *, now: float) -> bool:
        """Take a prediction to look at, whatever the others show; not where a look is under way."""
        item = self._items.get(prediction_id)
        if item is None or prediction_id in item.crowd.under_way:
            return False
        item.crowd.put_off.pop(prediction_id, None)
        item.crowd.under_way[prediction_id] = now - item.submitted_at
        return True

    def seen(self, prediction_id: str, *, ended: bool, now: float) -> None:
        """Take note of what a look showed; a prediction that has ended is removed."""
        item = self._items.get(prediction_id)
        age = item.crowd.under_way.pop(prediction_id, None) if item is not None else None
        if item is None or age is None:
            return  # it was removed meanwhile
        some_ended = any(had_ended for _, had_ended in self._near(item.crowd, age))
        item.crowd.see(age, ended=ended)
        if ended:
            self.remove(prediction_id)
            self._learn(item, age)
            if _have_ended(self._near(item.crowd, age), MOST):
                self._call_back(item.crowd, now)
            return
        item.looked_at_age, item.failures = age, 0
        pause = self._pause(age)
        if item.watcher.is_pressed and self._is_near_its_end(item, age):
            pause = min(pause, PRESSED * self.schedule.interval)
        elif not some_ended:
            pause = max(pause, self.schedule.interval)
        else:
            pause /= 2
        least = 1.0 if item.watcher.is_single else NEARLY_READY
        self._put(prediction_id, item, now + max(pause, least * self.schedule.interval))

    def failed(self, prediction_id: str, *, asked: float | None, now: float) -> int:
        """Take note of a look that failed, and return how many did one after another.

        :param asked: Seconds that the API asked to wait; nothing is looked at before, for a minute at most.
        """
        item = self._items.get(prediction_id)
        if item is None or item.crowd.under_way.pop(prediction_id, None) is None:
            return 0
        item.failures += 1
        asked = min(asked, LONGEST_QUIET) if asked else None
        if asked:
            self._quiet_until = max(self._quiet_until, now + asked)
        pause = self.schedule.pause(
            age=now - item.submitted_at, draw=self.draw(), failures=item.failures, asked=asked
        )
        self._put(prediction_id, item, now + pause)
        return item.failures

    def first_end(self) -> float | None:
        """Return the Unix time at which the oldest prediction may be ready, where that is known."""
        return self._end_of(next(iter(self._items.values()), None))

    def last_end(self) -> float | None:
        """Return the Unix time before which the newest prediction is hardly ready, where that is known."""
        return self._end_of(next(reversed(self._items.values()), None))

    def hasten(self, prediction_id: str, *, now: float) -> None:
        """Have a last look at a prediction, unless there was one a moment ago."""
        if self.is_stale(prediction_id, now=now):
            self._put(prediction_id, self._items[prediction_id], now)

    def is_stale(self, prediction_id: str, *, now: float) -> bool:
        """Say whether the last look at a prediction is longer ago than the shortest pause."""
        item = self._items.get(prediction_id)
        return item is not None and now - item.submitted_at - item.looked_at_age >= self.schedule.interval

    def age(self, prediction_id: str, *, now: float) -> float:
        """Return a prediction's age in seconds; 0 where it is not known."""
        item = self._items.get(prediction_id)
        return now - item.submitted_at if item else 0.0

    def _crowd(self, watcher: Subscriber) -> Crowd:
        return self._singles if watcher.is_single else self._crowds.setdefault(watcher, Crowd())

    def _end_of(self, item: _Item | None) -> float | None:
        if item is None or item.crowd.expected_age is None:
            return None
        return item.submitted_at + item.crowd.expected_age

    def _put(self, prediction_id: str, item: _Item, due: float) -> None:
        item.due = due
        heapq.heappush(self._queue, (due, next(self._ticket), prediction_id))

    def _learn(self, item: _Item, age: float) -> None:
        """Take note of an end: after the last look, and a little sooner than this one, which may be late."""
        crowd, sooner = item.crowd, age * (1 - self.schedule.growth)
        if item.is_overdue and not item.looked_at_age:
            crowd.miss(sooner)
        elif crowd.learn(max(item.looked_at_age, sooner)):
            self._look_sooner(crowd)

    def _look_sooner(self, crowd: Crowd) -> None:
        """Move the first looks at a crowd's predictions to what is expected now."""
        assert crowd.expected_age is not None
        for prediction_id, item in self._items.items():
            due = item.submitted_at + self._first(crowd.expected_age, item.watcher)
            if item.crowd is crowd and not item.looked_at_age and due < item.due:
                self._put(prediction_id, item, due)

    def _call_back(self, crowd: Crowd, now: float) -> None:
        """Ask at once again about those that were put off: others of their age have ended."""
        put_off, crowd.put_off = crowd.put_off, {}
        for prediction_id in put_off:
            item = self._items.get(prediction_id)
            if item is not None and prediction_id not in crowd.under_way:
                self._put(prediction_id, item, now)

    def _first(self, expected_age: float, watcher: Subscriber) -> float:
        """Return the seconds from a submission to its first look, where something is known."""
        pause = self._pause(expected_age)
        if watcher.is_pressed:
            pause = min(pause, PRESSED * self.schedule.interval)
        return max(expected_age + pause, self.schedule.first)

    def _pause(self, age: float) -> float:
        pause = min(age * self.schedule.growth, self.schedule.longest)
        return pause * (1 + self.schedule.jitter * (2 * self.draw() - 1))

    def _is_near_its_end(self, item: _Item, age: float) -> bool:
        expected = item.crowd.expected_age
        return expected is not None and expected * (1 - self.schedule.growth) <= age <= expected * FAR_BEYOND

    def _near(self, crowd: Crowd, age: float) -> list[tuple[float, bool]]:
        """Return the last few looks at predictions of about an age."""
        return crowd.near(age, self.schedule.growth * age)

    def _later(self, prediction_id: str, item: _Item, now: float) -> float:
        """Return when to ask again whether to look at a prediction; now, if it is to be looked at."""
        age = now - item.submitted_at
        watcher, crowd, expected = item.watcher, item.crowd, item.crowd.expected_age
        if prediction_id == crowd.scout:
            return now
        # Somebody needs this very one, whatever the others do: to buy the next, or because it has no other.
        is_needed = watcher.is_pressed or watcher.is_single
        if is_needed and expected is not None and age >= expected * (1 - self.schedule.growth / 2):
            return now
        if watcher.is_single and age >= max(item.looked_at_age, self.schedule.first) * IMPATIENCE:
            return now
        near = self._near(crowd, age)
        if _have_ended(near, MOST if item.looked_at_age else SOME):
            return now
        gap = crowd.gap(age * self.schedule.growth, is_pressed=watcher.is_pressed)
        if any(abs(other - age) < gap for other in crowd.under_way.values()):
            return now + max(LOOK_TAKES, gap / 2)
        scouted = [other for other, _ in near if abs(other - age) < gap]
        return item.submitted_at + max(scouted) + gap if scouted else now


def _have_ended(near: list[tuple[float, bool]], part: float) -> bool:
    return bool(near) and sum(ended for _, ended in near) >= part * len(near)
