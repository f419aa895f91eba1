"""When to look at which prediction. Pure: no clock and no network; the time is an argument.

One prediction alone is looked at again and again, and the pause grows with its age. Of many of about the same
age a few are looked at first, and the others only when these have ended: one look tells about all. What has
ended says when the next ones are likely to be ready, so their first look comes then.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

__all__ = ["DEFAULT_POLL_INTERVAL", "Looks", "PollSchedule", "Watcher"]

DEFAULT_POLL_INTERVAL = 1.0
"""Seconds. WaveSpeed's own clients look each second; its page docs/get-result asks for 2 or more."""
FIRST_LOOK = 2.0
"""Seconds to the first look where nothing is known yet: BitDance takes 5 to 15 (docs/benchmarks.md)."""
SCOUTS = 3
"""So many looks at an age tell whether the others of that age are worth one."""
PRESSED_SCOUTS = 2
"""So many times as many where somebody is pressed for the first end."""
REMEMBERED_LOOKS = 64
REMEMBERED_ENDS = 64
EARLY = 0.2
"""The part of the ends that lies before the age at which one is expected."""
IMPATIENCE = 1.5
"""The only prediction of its task is looked at before it is so many times as old as at its last look."""
SHORTEST_PAUSE = 0.25
LOOK_TAKES = 0.05


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The pauses between looks.

    :param interval: Seconds; the shortest pause between two looks at a prediction that nothing is known of.
    :param longest: Seconds of the longest pause.
    :param growth: The pause as a part of the prediction's age.
    :param jitter: The pause is drawn this part up or down, so that many tasks do not look at once.
    :param failures: So many looks may fail one after another.
    :param not_found_grace: Seconds for which a new prediction may be unknown to the API.
    """

    interval: float = DEFAULT_POLL_INTERVAL
    longest: float = 15.0
    growth: float = 0.1
    jitter: float = 0.1
    failures: int = 10
    not_found_grace: float = 60.0

    @property
    def first(self) -> float:
        """Seconds from the submission to the first look where nothing is known."""
        return max(self.interval, FIRST_LOOK)

    def pause(self, *, age: float, draw: float, failures: int = 0, asked: float | None = None) -> float:
        """Return the seconds until the next look.

        :param age: Seconds since the submission.
        :param draw: A random number from 0 to 1.
        :param failures: Looks that failed one after another; each doubles the pause.
        :param asked: Seconds that the API asked to wait (``Retry-After``).
        """
        pause = min(max(self.interval, age * self.growth) * 2.0 ** min(failures, 10), self.longest)
        return max(pause * (1 + self.jitter * (2 * draw - 1)), self.interval, asked or 0.0)


@dataclass(slots=True, eq=False)
class Watcher:
    """Who waits for predictions: a job, or a trigger.

    :param is_single: It waits for one prediction only.
    :param is_pressed: It has more to buy as soon as one has ended, so each is looked at early.
    """

    is_single: bool = False
    is_pressed: bool = False


@dataclass(slots=True, eq=False)
class _Item:
    submitted_at: float
    watcher: Watcher
    due: float
    is_overdue: bool
    looked_at_age: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Looks:
    """Decides at which of many predictions to look now. Never twice at once at the same one.

    :param schedule: The pauses of a prediction of which nothing is known.
    :param draw: Returns random numbers from 0 to 1.
    :ivar expected_age: The age in seconds at which a prediction may be ready, learned; ``None`` before the
        first end.
    """

    schedule: PollSchedule = field(default_factory=PollSchedule)
    draw: Callable[[], float] = field(default=lambda: random.random())
    expected_age: float | None = None
    _items: dict[str, _Item] = field(default_factory=dict)
    _queue: list[tuple[float, int, str]] = field(default_factory=list)
    _ticket: count[int] = field(default_factory=count)
    _under_way: dict[str, float] = field(default_factory=dict)
    _seen: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_LOOKS))
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ENDS))
    _quiet_until: float = 0.0

    def add(self, prediction_id: str, submitted_at: float, watcher: Watcher, *, now: float) -> None:
        """Begin with a prediction.

        :param submitted_at: Unix time.
        :param now: Unix time.
        """
        first = self.schedule.first
        if self.expected_age is not None:
            first = self.expected_age + self._pause(self.expected_age, watcher)
        due = submitted_at + first
        item = _Item(submitted_at, watcher, due=max(now, due), is_overdue=due < now)
        self._items[prediction_id] = item
        self._put(prediction_id, item, item.due)

    def remove(self, prediction_id: str) -> None:
        """Stop with a prediction."""
        self._items.pop(prediction_id, None)
        self._under_way.pop(prediction_id, None)

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
            if item is None or item.due != due or prediction_id in self._under_way:
                continue  # it was put again, or removed
            later = max(self._quiet_until, self._later(item, now))
            if later > now:
                self._put(prediction_id, item, later)
            else:
                self._under_way[prediction_id] = now - item.submitted_at
                taken.append(prediction_id)
        return taken

    def seen(self, prediction_id: str, *, ended: bool, now: float) -> None:
        """Take note of what a look showed; a prediction that has ended is removed."""
        item = self._items.get(prediction_id)
        if item is None:
            return
        age = self._under_way.pop(prediction_id)
        some_ended = any(had_ended for _, had_ended in self._near(age))
        self._seen.append((age, ended))
        if ended:
            del self._items[prediction_id]
            if item.looked_at_age or not item.is_overdue:
                self._learn(item, age)
            return
        item.looked_at_age, item.failures = age, 0
        pause = self._pause(age, item.watcher)
        if not some_ended:
            pause = max(pause, self.schedule.interval)
        elif not item.watcher.is_pressed:
            pause = max(pause / 2, SHORTEST_PAUSE)
        self._put(prediction_id, item, now + pause)

    def failed(self, prediction_id: str, *, asked: float | None, now: float) -> int:
        """Take note of a look that failed, and return how many did one after another.

        :param asked: Seconds that the API asked to wait; nothing is looked at before.
        """
        item = self._items.get(prediction_id)
        if item is None:
            return 0
        self._under_way.pop(prediction_id)
        item.failures += 1
        if asked:
            self._quiet_until = max(self._quiet_until, now + asked)
        age = now - item.submitted_at
        self._put(
            prediction_id,
            item,
            now + self.schedule.pause(age=age, draw=self.draw(), failures=item.failures, asked=asked),
        )
        return item.failures

    def first_end(self) -> float | None:
        """Return the Unix time at which the oldest prediction may be ready, where that is known."""
        if self.expected_age is None or not self._items:
            return None
        return next(iter(self._items.values())).submitted_at + self.expected_age

    def last_end(self) -> float | None:
        """Return the Unix time before which the newest prediction is hardly ready, where that is known."""
        if self.expected_age is None or not self._items:
            return None
        return next(reversed(self._items.values())).submitted_at + self.expected_age

    def hasten(self, prediction_id: str, *, now: float) -> None:
        """Have a last look at a prediction, unless there was one a moment ago."""
        item = self._items.get(prediction_id)
        if item is not None and now - item.submitted_at - item.looked_at_age >= self.schedule.interval:
            self._put(prediction_id, item, now)

    def age(self, prediction_id: str, *, now: float) -> float:
        """Return a prediction's age in seconds; 0 where it is not known."""
        item = self._items.get(prediction_id)
        return now - item.submitted_at if item else 0.0

    def _put(self, prediction_id: str, item: _Item, due: float) -> None:
        item.due = due
        heapq.heappush(self._queue, (due, next(self._ticket), prediction_id))

    def _learn(self, item: _Item, age: float) -> None:
        """Take note of an end: after the last look, and a little sooner than this one, which may be late."""
        self._ends.append(max(item.looked_at_age, age * (1 - self.schedule.growth)))
        self.expected_age = sorted(self._ends)[int(EARLY * (len(self._ends) - 1))]

    def _pause(self, age: float, watcher: Watcher) -> float:
        pause = min(age * self.schedule.growth, self.schedule.longest)
        if watcher.is_pressed:
            pause = min(pause, self.schedule.interval)
        return pause * (1 + self.schedule.jitter * (2 * self.draw() - 1))

    def _near(self, age: float) -> list[tuple[float, bool]]:
        """Return the last few looks at predictions of about an age."""
        near: list[tuple[float, bool]] = []
        for look in reversed(self._seen):
            if abs(look[0] - age) <= self.schedule.growth * age:
                near.append(look)
                if len(near) == SCOUTS:
                    break
        return near

    def _later(self, item: _Item, now: float) -> float:
        """Return when to ask again whether to look at a prediction; now, if it is to be looked at."""
        age = now - item.submitted_at
        watcher, expected = item.watcher, self.expected_age
        if watcher.is_pressed and expected is not None and age >= expected * (1 - self.schedule.growth):
            return now
        if watcher.is_single and age >= max(item.looked_at_age, self.schedule.first) * IMPATIENCE:
            return now
        near = self._near(age)
        if near and 2 * sum(ended for _, ended in near) >= len(near):
            return now
        step = self.schedule.growth / SCOUTS / (PRESSED_SCOUTS if watcher.is_pressed else 1)
        if any(abs(other - age) < step * age for other in self._under_way.values()):
            return now + LOOK_TAKES
        scouted = [other for other, _ in near if abs(other - age) < step * age]
        return item.submitted_at + max(scouted) / (1 - step) if scouted else now
