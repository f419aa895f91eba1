"""Which predictions are polled next. Pure: no clock and no network; the time is an argument.

The pauses grow with a prediction's age. Of many of about the same age a few polls tell about all, and what
has ended tells when the next one is worth its first poll.

Each rule is there for a case that ``tests/unit/polling/test_scheduler.py`` plays: the probe for a batch whose
first images are slow and the others quick, the recall for images that end while all wait for a gap, the
bound on waiting (``SOONER``) for quick images among slow ones.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_bitdance.polling.latency import Latencies, Poll
from airflow_provider_bitdance.polling.policy import MINUTE, PollPolicy

SOONER = 2.0
"""One of several has pauses so many times as short as one alone. Whatever others show, each is polled before
it is so many times as old as at its last poll, or as was expected for its first."""


@dataclass(slots=True, eq=False)
class _Item:
    submitted_at: float
    kind: Latencies
    is_overdue: bool
    due: float = math.inf
    polled_age: float = 0.0
    failures: int = 0
    refused_since: float | None = None
    is_deferred: bool = False
    under_way: Poll | None = None


@dataclass(slots=True)
class PollScheduler:
    """Decides which of many predictions, known by their ids, to poll now; each by one poll at a time."""

    policy: PollPolicy = field(default_factory=PollPolicy)
    draw: Callable[[], float] = field(default=lambda: random.random())
    _items: dict[str, _Item] = field(default_factory=dict)
    _queue: list[tuple[float, bool, float, str]] = field(default_factory=list)
    _blocked_until: float = 0.0

    def add(self, id_: str, submitted_at: float, kind: Latencies, *, now: float) -> None:
        """Begin with a prediction of a kind."""
        first = max(kind.expected or 0.0, self.policy.first)
        if kind.expected is not None and kind.probe not in self._items:
            kind.probe, first = id_, self.policy.first
        due = submitted_at + first
        self._items[id_] = _Item(submitted_at, kind, is_overdue=due < now)
        self._put(id_, max(now, due))

    def remove(self, id_: str) -> None:
        """Stop with a prediction."""
        self._items.pop(id_, None)

    def age(self, id_: str, *, now: float) -> float:
        """Return a prediction's age in seconds."""
        return now - self._items[id_].submitted_at

    def expected_end(self, id_: str) -> float | None:
        """Return the Unix time at which a prediction may have ended, where that is known."""
        item = self._items.get(id_)
        return None if item is None or item.kind.expected is None else item.submitted_at + item.kind.expected

    def next_due(self) -> float:
        """Return the Unix time of the next poll, or of the next question whether to poll; or infinity."""
        return self._queue[0][0] if self._queue else math.inf

    def take(self, now: float, *, most: int) -> list[str]:
        """Return the predictions to poll now; each waits for its result."""
        taken: list[str] = []
        while len(taken) < most and self.next_due() <= now:
            due, _, _, id_ = heapq.heappop(self._queue)
            item = self._items.get(id_)
            if item is None or item.due != due:
                continue  # it was put again, or removed
            later = max(self._blocked_until, item.submitted_at + self._quiet_until(item, now))
            if later > now:
                item.is_deferred = True
                self._put(id_, later)
            else:
                self._begin(item, now)
                taken.append(id_)
        return taken

    def take_last(self, id_: str, *, now: float) -> bool:
        """Take a prediction for its last poll, whatever others show; not if it was polled a moment ago."""
        item = self._items[id_]
        is_stale = now - item.submitted_at - item.polled_age >= self.policy.interval
        is_taken = is_stale and item.under_way is None and now >= self._blocked_until
        if is_taken:
            self._begin(item, now)
        return is_taken

    def polled(self, id_: str, *, ended: bool, now: float) -> None:
        """Take note of what a poll found; a prediction that has ended is removed."""
        item = self._items.get(id_)
        if item is None or item.under_way is None:
            return  # it was removed meanwhile
        poll, item.under_way, item.failures = item.under_way, None, 0
        poll.found_end = ended
        if not ended:
            item.polled_age = poll.age
            is_early_probe = id_ == item.kind.probe and poll.age < (item.kind.expected or 0.0)
            pause = self.policy.pause(age=poll.age, draw=self.draw())
            is_alone = item.kind.is_single or is_early_probe
            self._put(id_, now + (pause if is_alone else self._short_pause(poll.age)))
            return
        self.remove(id_)
        if item.polled_age or not item.is_overdue:  # else nobody knows how long ago it ended
            item.kind.learn(max(item.polled_age, poll.age * (1 - self.policy.growth)))
        self._recall(item.kind, now)

    def failed(self, id_: str, *, requested: float | None, now: float, refused: bool = False) -> float:
        """Take note of a poll that failed, and return for how many seconds every one was refused.

        :param refused: It was, and is not lost in an outage.
        :param requested: Seconds that the API asked to wait: nothing is polled before, for a minute at most.
        """
        item = self._items.get(id_)
        if item is None or item.under_way is None:
            return 0.0
        was_refused = item.refused_since if item.failures else None
        item.refused_since = (now if was_refused is None else was_refused) if refused else None
        item.under_way, item.failures, requested = None, item.failures + 1, min(requested or 0.0, MINUTE)
        self._blocked_until = max(self._blocked_until, now + requested)
        age, draw = now - item.submitted_at, self.draw()
        pause = self.policy.pause(age=age, draw=draw, failures=item.failures, requested=requested)
        self._put(id_, now + pause)
        return 0.0 if item.refused_since is None else now - item.refused_since

    def _put(self, id_: str, due: float) -> None:
        item = self._items[id_]
        item.due = due
        # Of those due at once first what was never polled, by lot: slow ones may be neighbours.
        heapq.heappush(self._queue, (due, item.polled_age > 0, self.draw(), id_))

    def _begin(self, item: _Item, now: float) -> None:
        poll = Poll(now - item.submitted_at, is_first=not item.polled_age)
        item.due, item.is_deferred, item.under_way = math.inf, False, poll
        item.kind.polls.append(item.under_way)

    def _short_pause(self, age: float) -> float:
        pause = min(age * self.policy.growth / SOONER, self.policy.longest)
        return max(pause, self.policy.interval * self.policy.growth)

    def _quiet_until(self, item: _Item, now: float) -> float:
        """Return the age up to which a poll is not worth it, as the others show."""
        age, expected = now - item.submitted_at, item.kind.expected or math.inf
        latest = SOONER * max(item.polled_age, expected)
        if item.kind.is_single:  # there is no other in its task
            latest = min(expected, SOONER * max(item.polled_age, self.policy.first))
        if age >= latest:
            return 0.0
        width, gap = age * self.policy.growth, self._short_pause(age)
        return item.kind.quiet_until(age, is_first=not item.polled_age, width=width, gap=gap)

    def _recall(self, kind: Latencies, now: float) -> None:
        """Let others of a kind come sooner, now that one has ended."""
        first = max(kind.expected or 0.0, self.policy.first)
        for id_, item in self._items.items():
            if item.kind is kind and item.under_way is None:
                sooner = math.inf if item.polled_age else max(now, item.submitted_at + first)
                if (sooner := now if item.is_deferred else sooner) < item.due:
                    self._put(id_, sooner)
