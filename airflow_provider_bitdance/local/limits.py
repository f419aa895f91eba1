"""What an account may do at once: tasks in flight, and tasks a minute in fixed windows on the clock.

Pure: moments are passed in, in the order in which tasks come. WaveSpeed says that a task above the limit
waits, while clients report HTTP 429; so both behaviours are here. The published rate counts images; here
every task counts as one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

WINDOW: Final = 60.0
"""Seconds. A window starts with each full minute of the clock."""

Tier = Literal["bronze", "silver", "gold", "ultra"]
AboveLimit = Literal["refuse", "queue"]

IN_FLIGHT_MESSAGE: Final = "You have reached your concurrency limit"
RATE_MESSAGE: Final = "You have reached your rate limit"


@dataclass(frozen=True, slots=True)
class Limits:
    """Tasks a minute, and tasks in flight at once; None is without limit."""

    per_minute: int | None = None
    in_flight: int | None = None


TIERS: Final[Mapping[Tier, Limits]] = {
    "bronze": Limits(2, 2),
    "silver": Limits(500, 300),
    "gold": Limits(3000, 3000),
    "ultra": Limits(5000, 10_000),
}
"""From https://wavespeed.ai/docs/account-levels. Another stored version of that page has other numbers, such
as 10 and 3 for bronze; these are taken to be the newer ones."""


def of(tier: Tier | None, *, per_minute: int | None = None, in_flight: int | None = None) -> Limits:
    """Find the limits of an account.

    :param tier: None is without limits.
    :param per_minute: goes before the tier's.
    :param in_flight: goes before the tier's.
    :raises ValueError: for a tier that does not exist, or a number below 1.
    """
    if tier is not None and tier not in TIERS:
        raise ValueError(f"tier {tier!r} is unknown; allowed: {', '.join(TIERS)}")
    for name, number in (("requests per minute", per_minute), ("predictions in flight", in_flight)):
        if number is not None and number < 1:
            raise ValueError(f"{number} {name} would admit nothing; allowed: 1 and more")
    published = TIERS[tier] if tier else Limits()
    return Limits(per_minute or published.per_minute, in_flight or published.in_flight)


class Gate:
    """Says when a task may start, and remembers those that took a slot.

    A task takes its slot when it starts and gives it back when it ends. Tasks start in the order in which
    they came.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._ends: list[float] = []
        self._last_start = -math.inf
        self._window = -math.inf
        self._in_window = 0

    def exceeded(self, now: float) -> str | None:
        """Return the API's message about the limit that a task starting now would exceed, if any."""
        self._free(now)
        if not self._has_slot():
            return IN_FLIGHT_MESSAGE
        return None if self._has_room(now) else RATE_MESSAGE

    def first_start(self, now: float) -> float:
        """Return the first moment at which both limits admit a task that comes now and waits its turn.

        It is infinity behind tasks that never end.
        """
        start = max(now, self._last_start)
        while start < math.inf:
            self._free(start)
            if not self._has_slot():
                start = self._ends[0]
            elif not self._has_room(start):
                start = window_end(start)
            else:
                break
        return start

    def take(self, start: float, end: float) -> None:
        """Take a slot from start to end; infinity is never."""
        self._last_start = max(self._last_start, start)
        if start == math.inf:
            return
        self._free(start)
        heapq.heappush(self._ends, end)
        window = start // WINDOW
        self._in_window = self._in_window + 1 if window == self._window else 1
        self._window = window

    def _free(self, now: float) -> None:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)

    def _has_slot(self) -> bool:
        return self.limits.in_flight is None or len(self._ends) < self.limits.in_flight

    def _has_room(self, now: float) -> bool:
        full = self.limits.per_minute is not None and self._in_window >= self.limits.per_minute
        return not (full and now // WINDOW == self._window)


def window_end(now: float) -> float:
    """Return when the window of a moment ends."""
    return (now // WINDOW + 1) * WINDOW
