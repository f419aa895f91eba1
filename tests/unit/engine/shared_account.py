"""A simulation of several batches at one account: each has a rate limiter of its own, and time is made up.

It has the round trips of submissions, the lag until a poll sees that a prediction has ended, and worker slots
that batches wait for; no engine, no store and no CPU.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from airflow_provider_bitdance.engine.rate_limiter import RateLimiter

START = 1_780_000_000.0
LATENCY = (4.5, 5.5)
UNANSWERED, BEGUN = 8, 16
"""Submissions without a response, and purchases that have begun, at a time: the engine's defaults."""
SEEN_LATE = 0.25
"""Seconds at most until a poll sees the end of a prediction."""
INTENT = 0.005
"""Seconds from the beginning of a purchase to its submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is played.

    :param limit: Predictions in flight that the account takes; it refuses what is above.
    :param apart: Seconds between the starts of the first batches.
    :param round_trip: Seconds from a submission to its response.
    """

    limit: int
    batches: int = 1
    images: int
    slots: int = 1
    apart: float = 0.0
    round_trip: float = 0.05


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it.

    :ivar share: Of the limit, in flight on average while all slots buy.
    :ivar refused: Share of the submissions.
    :ivar slowest: The images a second of the slowest batch, as a part of the mean.
    """

    share: float
    refused: float
    slowest: float


class Simulation:
    """Plays one scene, with latencies drawn from a seed."""

    def __init__(self, scene: Scene, *, seed: int) -> None:
        self.scene, self.now, self.draw = scene, START, random.Random(seed)
        self.accepted: list[tuple[float, float, Batch]] = []
        self.refused = 0
        self._ends: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.batches = [Batch(self, scene.images) for _ in range(scene.batches)]
        self._waiting = deque(self.batches)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), action))

    def play(self) -> Played:
        """Play until all batches have all images."""
        for number in range(self.scene.slots):
            self.after(number * self.scene.apart, self.next_batch)
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self._result()

    def next_batch(self) -> None:
        """Give a slot to the next batch."""
        if self._waiting:
            self._waiting.popleft().buy()

    def submit(self, batch: Batch) -> float | None:
        """Take a submission, and return when its prediction ends; ``None`` refuses it."""
        while self._ends and self._ends[0] <= self.now:
            heapq.heappop(self._ends)
        if len(self._ends) >= self.scene.limit:
            self.refused += 1
            return None
        end = self.now + self.draw.uniform(*LATENCY)
        heapq.heappush(self._ends, end)
        self.accepted.append((self.now, end, batch))
        return end

    def _result(self) -> Played:
        last = {batch: moment for moment, _, batch in self.accepted}
        until = sorted(last.values())[-self.scene.slots]
        held = sum(max(0.0, min(end, until) - begin) for begin, end, _ in self.accepted)
        seconds = {
            batch: max(end for _, end, other in self.accepted if other is batch)
            - min(begin for begin, _, other in self.accepted if other is batch)
            for batch in last
        }
        mean = len(self.accepted) / sum(seconds.values())
        return Played(
            share=held / (until - START) / self.scene.limit,
            refused=self.refused / (self.refused + len(self.accepted)),
            slowest=min(self.scene.images / length for length in seconds.values()) / mean,
        )


class Batch:
    """One batch: the part of the dispatcher and of a purchase that the limiter talks to."""

    def __init__(self, simulation: Simulation, images: int) -> None:
        self.left = images
        self._simulation, self._limiter = simulation, RateLimiter()
        self._unanswered, self._ready = 0, deque[str]()

    def buy(self) -> None:
        """Begin as many purchases as the limiter admits, or give the slot to the next batch."""
        limiter, simulation = self._limiter, self._simulation
        while self.left > 0 and limiter.started < BEGUN:
            wait = limiter.wait(now=simulation.now)
            if wait > 0:
                if wait < math.inf:
                    simulation.after(wait, self.buy)
                break
            limiter.started += 1
            limiter.queued.add(key := str(self.left))
            self._ready.append(key)
            self.left -= 1
            self._intend()
        if not (self.left or limiter.started or limiter.in_flight):
            self.left = -1
            simulation.next_batch()

    def _intend(self) -> None:
        while self._ready and self._unanswered < UNANSWERED:
            self._unanswered += 1
            key = self._ready.popleft()
            self._simulation.after(INTENT, partial(self._send, key))

    def _send(self, key: str) -> None:
        limiter, simulation = self._limiter, self._simulation
        limiter.queued.add(key)
        if wait := limiter.until_turn(now=simulation.now):
            simulation.after(wait, partial(self._send, key))
            return
        limiter.queued.remove(key)
        if limiter.turn(now=simulation.now):
            self._send(key)
            return
        simulation.after(simulation.scene.round_trip / 2, partial(self._arrive, key, simulation.now))

    def _arrive(self, key: str, sent_at: float) -> None:
        end = self._simulation.submit(self)
        response = partial(self._take_response, key, sent_at, end)
        self._simulation.after(self._simulation.scene.round_trip / 2, response)

    def _take_response(self, key: str, sent_at: float, end: float | None) -> None:
        limiter, simulation = self._limiter, self._simulation
        if end is None:
            draw = simulation.draw.random()
            limiter.refused(sent_at=sent_at, now=simulation.now, requested=None, draw=draw)
            self._send(key)
            return
        limiter.accepted(now=simulation.now)
        self._unanswered -= 1
        limiter.started -= 1
        limiter.in_flight += 1
        late = simulation.draw.uniform(0.0, SEEN_LATE)
        simulation.after(max(0.0, end - simulation.now) + late, self._see_end)
        self._intend()
        self.buy()

    def _see_end(self) -> None:
        self._limiter.in_flight -= 1
        self.buy()
