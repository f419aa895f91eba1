"""How fast to submit. Pure: the time is an argument, nothing is sent from here.

Limits that the user gives are kept to the letter, from the first submission on. Without them the account's
own are found: start slow, grow with each answer, halve at a 429 (published tier limits contradict each
other). Several tasks of one account that do this share it: each halves, and grows by one a round.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

__all__ = ["RateLimiter"]

FIRST_WINDOW = 8.0
"""Predictions in flight at the start, where no limit is given; or so many more than there are."""
LARGEST_WINDOW = 1000.0
MINUTE = 60.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
SHORT_REFUSALS = 2
"""So many 429s in a row may come of too many in flight; the next one is taken for a limit of the minute."""
SHORT_WAIT = 0.05
"""Seconds until it is asked again whether others that are about to be sent have been."""


class RateLimiter:
    """Decides when the next submission may be sent.

    A purchase begins with :meth:`start` and is over with :meth:`end`; right before it is sent it takes its
    :meth:`turn`, and the answer goes to :meth:`accepted` or :meth:`refused`.

    :param max_in_flight: At most so many predictions that have not ended; ``None`` finds out.
    :param requests_per_minute: At most so many submissions in any 60 seconds; ``None`` is without limit.
    :param submitted: Unix times of earlier submissions of the same job.
    :param in_flight_before: Predictions of an earlier process that have not ended: the account takes as many.
    :param window: Predictions in flight that the account takes at once, where a 429 has shown that before.
    :param blocked_until: Unix time before which nothing is sent, after an earlier 429; 0 without one.
    :ivar is_closed: Nothing more is to be sent, and no refused submission again.
    :ivar in_flight: Predictions that were submitted and have not ended; the caller counts.
    :ivar started: Purchases that have begun and are not over.
    """

    def __init__(
        self,
        *,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        submitted: Iterable[float] = (),
        in_flight_before: int = 0,
        window: float | None = None,
        blocked_until: float = 0.0,
    ) -> None:
        self.max_in_flight = max_in_flight
        self.requests_per_minute = requests_per_minute
        self.is_closed = False
        self.in_flight = 0
        self.started = 0
        self._window = float(max_in_flight or window or in_flight_before + FIRST_WINDOW)
        self._growing_fast = window is None
        self._unanswered = 0
        self._answered = deque(sorted(submitted))
        self._taken = deque(self._answered)
        self._refusals = 1 if blocked_until else 0
        self._refused_at = -math.inf
        self._blocked_until = blocked_until
        self._is_probing = False

    @property
    def window(self) -> int:
        """Predictions that may be in flight now."""
        return int(self._window)

    @property
    def found_window(self) -> int | None:
        """Predictions in flight that the account takes at once; ``None`` where no 429 has shown that."""
        return None if self._growing_fast else self.window

    def wait(self, *, now: float) -> float:
        """Return the seconds until one more purchase may begin; infinite where one in flight has to end.

        :param now: Unix time.
        """
        if self.in_flight + self.started >= self.window:
            return math.inf
        return self._until_free(now, others=self.started)

    def start(self) -> None:
        """Take note of a purchase that begins; its submission comes after what has to be written down."""
        self.started += 1

    def end(self) -> None:
        """Take note that a purchase is over, whatever became of it."""
        self.started -= 1

    def close(self) -> None:
        """Say that nothing more is to be sent."""
        self.is_closed = True

    def blocked(self, *, now: float) -> float:
        """Return the seconds for which nothing is sent, after a 429."""
        return max(0.0, self._blocked_until - now)

    @property
    def is_refused(self) -> bool:
        """Whether the last answer was a 429."""
        return self._refusals > 0

    def until_turn(self, *, now: float) -> float:
        """Return the seconds until the turn for a submission comes, and take none."""
        return self._until_free(now, others=0)

    def turn(self, *, now: float) -> float:
        """Take the turn for a submission at this very moment, and return 0; or the seconds until it comes."""
        wait = self.until_turn(now=now)
        if wait == 0:
            self._unanswered += 1
            self._is_probing = self._refusals > 0
        return wait

    def accepted(self, *, now: float) -> None:
        """Take note that the API took a submission: it may take more."""
        self._take_response(now)
        self._refusals = 0
        self._taken.append(now)
        if self.max_in_flight is None:
            step = 1.0 if self._growing_fast else 1.0 / self._window
            self._window = min(self._window + step, LARGEST_WINDOW)

    def lost(self, *, now: float) -> None:
        """Take note that a submission had no answer, or another one: it says nothing of the pace."""
        self._take_response(now)

    def refused(self, *, sent_at: float, now: float, asked: float | None, draw: float) -> None:
        """Take note of a 429: nothing is sent for a while, and then one submission tries it.

        :param sent_at: Unix time of the submission.
        :param asked: Seconds that the API asked to wait (``Retry-After``).
        :param draw: A random number from 0 to 1; it makes the pause longer by a tenth at most.
        """
        self._take_response(now)
        self._blocked_until = max(self._blocked_until, now + (asked or 0.0))
        if sent_at <= self._refused_at:
            return  # it was on its way when the last one was refused
        self._refusals += 1
        self._refused_at = now
        self._blocked_until = max(self._blocked_until, now + self._pause(now) * (1 + draw / 10))
        if self.max_in_flight is None:
            self._growing_fast = False
            self._window = max(1.0, self._window / 2)

    def _pause(self, now: float) -> float:
        """Return the seconds after a 429: short first, then to the end of a minute in which some were taken.

        WaveSpeed's limits of the minute "reset every minute" (docs, troubleshooting-guide).
        """
        pause = min(FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10), LONGEST_PAUSE)
        _forget_before(now - MINUTE, self._taken)
        if self._refusals > SHORT_REFUSALS and self._taken:
            return max(pause, self._taken[0] + MINUTE - now)
        return pause

    def _until_free(self, now: float, others: int) -> float:
        """Return the seconds until one more than so many others may be sent."""
        if blocked := self.blocked(now=now):
            return blocked
        if self._is_probing or (self._refusals and others):
            return SHORT_WAIT
        _forget_before(now - MINUTE, self._answered)
        if self.requests_per_minute is None:
            return 0.0
        sent = len(self._answered) + max(self._unanswered, others)
        too_many = sent + 1 - self.requests_per_minute
        if too_many <= 0:
            return 0.0
        if too_many > len(self._answered):
            return SHORT_WAIT  # the others are about to be answered
        return self._answered[too_many - 1] + MINUTE - now

    def _take_response(self, now: float) -> None:
        """Count a submission from its answer on: by then it has arrived, however long it was on its way."""
        self._unanswered -= 1
        self._is_probing = False
        self._answered.append(now)


def _forget_before(moment: float, moments: deque[float]) -> None:
    while moments and moments[0] <= moment:
        moments.popleft()
