"""How fast to submit. Pure: the time is an argument, nothing is sent from here.

Limits that the user gives are kept to the letter, from the first submission on. Without them the account's
own are found: start slow, grow with each answer, halve at a 429 (published tier limits contradict each
other).
"""

from __future__ import annotations

from collections import deque

__all__ = ["Pace"]

FIRST_WINDOW = 8.0
"""Predictions in flight at the start, where no limit is given."""
LARGEST_WINDOW = 1000.0
MINUTE = 60.0
SHORT_PAUSE = 1.0


class Pace:
    """Decides when the next submission may be sent.

    :param max_in_flight: At most so many predictions that have not ended; ``None`` finds out.
    :param requests_per_minute: At most so many submissions in any 60 seconds; ``None`` is without limit.
    :ivar is_closed: Nothing more is to be sent, and no refused submission again.
    """

    def __init__(self, *, max_in_flight: int | None = None, requests_per_minute: int | None = None) -> None:
        self.max_in_flight = max_in_flight
        self.requests_per_minute = requests_per_minute
        self._window = FIRST_WINDOW if max_in_flight is None else float(max_in_flight)
        self._growing_fast = True
        self._blocked_until = 0.0
        self._halved_at = float("-inf")
        self._sent: deque[float] = deque()
        self._started = 0
        self.is_closed = False

    @property
    def window(self) -> int:
        """Predictions that may be in flight now."""
        return int(self._window)

    def wait(self, *, now: float, in_flight: int) -> float:
        """Return the seconds until one more may be sent; infinite where one in flight has to end first.

        :param now: Unix time.
        :param in_flight: Predictions that are submitted, or about to be, and have not ended.
        """
        if in_flight >= self.window:
            return float("inf")
        return max(0.0, self._blocked_until - now, self._until_free(now, self._started))

    def start(self) -> None:
        """Take note of a purchase that begins; its submission comes after what has to be written down."""
        self._started += 1

    @property
    def started(self) -> int:
        """Purchases that have begun and are not over."""
        return self._started

    def end(self) -> None:
        """Take note that a purchase is over, whatever became of it."""
        self._started -= 1

    def close(self) -> None:
        """Say that nothing more is to be sent."""
        self.is_closed = True

    def turn(self, *, now: float) -> float:
        """Take the turn for a submission at this very moment, and return 0; or the seconds until it comes."""
        wait = self._until_free(now, 0)
        if wait == 0 and self.requests_per_minute is not None:
            self._sent.append(now)
        return wait

    def _until_free(self, now: float, others: int) -> float:
        """Return the seconds until the minute before has room for one more than so many others."""
        if self.requests_per_minute is None:
            return 0.0
        while self._sent and self._sent[0] <= now - MINUTE:
            self._sent.popleft()
        too_many = len(self._sent) + others + 1 - self.requests_per_minute
        if too_many <= 0:
            return 0.0
        if not self._sent:
            return SHORT_PAUSE  # the others are about to be sent
        return self._sent[min(too_many, len(self._sent)) - 1] + MINUTE - now

    def accepted(self) -> None:
        """Take note that the API took a submission: it may take more."""
        if self.max_in_flight is None:
            step = 1.0 if self._growing_fast else 1.0 / self._window
            self._window = min(self._window + step, LARGEST_WINDOW)

    def refused(self, *, now: float, pause: float) -> None:
        """Take note of a 429.

        :param pause: Seconds for which nothing is to be sent.
        """
        # Answers to what was sent before the last halving say nothing new.
        if self.max_in_flight is None and now >= self._halved_at + pause:
            self._growing_fast = False
            self._halved_at = now
            self._window = max(1.0, self._window / 2)
        self._blocked_until = max(self._blocked_until, now + pause)
