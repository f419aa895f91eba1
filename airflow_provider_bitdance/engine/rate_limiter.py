"""How fast to submit, and how long to wait after a 429. Pure: the time is an argument, nothing is sent here.

Limits that the user gives are kept to the letter, from the first submission on. Without them the account's
own are found: start slow, grow with each response, halve at a 429 (published tier limits contradict each
other). Tasks of one account that do this come to share it: each halves, and grows by one a round.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

FIRST_WINDOW = 8.0
"""Predictions in flight at the start, where no limit is given; or so many more than there are."""
LARGEST_WINDOW = 1000.0
MINUTE = 60.0
FIRST_PAUSE = 1.0
SHORT_REFUSALS = 2
"""So many 429s in a row may come of too many in flight; the next one is taken for a limit of the minute."""
SHORT_WAIT = 0.05
"""Seconds until it is asked again whether others that are about to be sent have been."""


class RateLimiter:
    """Decides when the next submission may be sent.

    The caller counts the purchases that have begun and are not over (``started``), and what is ``in_flight``.
    Right before it sends it takes a :meth:`turn`; the response goes to one of the three methods at the end.

    :param max_in_flight: At most so many predictions that have not ended; ``None`` finds out.
    :param requests_per_minute: At most so many submissions in any 60 seconds; ``None`` is without limit.
    :param submitted: Unix times of earlier submissions of the same job.
    :param in_flight_before: Predictions of an earlier process that have not ended: the account takes as many.
    :param window: Predictions in flight that the account takes at once, where a 429 has shown that before.
    :param blocked_until: Unix time before which nothing is sent, after an earlier 429; 0 without one.
    :ivar is_closed: Nothing more is to be sent, and no refused submission again.
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
        self.is_closed = False
        self.in_flight = self.started = 0
        self._max_in_flight, self._per_minute = max_in_flight, requests_per_minute
        self._window = float(max_in_flight or window or in_flight_before + FIRST_WINDOW)
        self._growing_fast = window is None
        self._unanswered = 0
        self._answered = deque(sorted(submitted))
        self._accepted = deque(self._answered)
        self._refusals, self._refused_at = (1 if blocked_until else 0), -math.inf
        self._blocked_until = blocked_until
        self._is_trying = False

    @property
    def window(self) -> int:
        """Predictions that may be in flight now."""
        return int(self._window)

    @property
    def found_window(self) -> int | None:
        """Predictions in flight that the account takes at once; ``None`` where no 429 has shown that."""
        return None if self._growing_fast else self.window

    @property
    def is_refused(self) -> bool:
        """Whether the last response was a 429."""
        return self._refusals > 0

    def wait(self, *, now: float) -> float:
        """Return the seconds until one more purchase may begin; infinite where one in flight has to end."""
        is_full = self.in_flight + self.started >= self.window
        return math.inf if is_full else self.until_turn(now=now, others=self.started)

    def blocked(self, *, now: float) -> float:
        """Return the seconds for which nothing is sent, after a 429."""
        return max(0.0, self._blocked_until - now)

    def turn(self, *, now: float) -> float:
        """Take the turn for a submission at this very moment, and return 0; or the seconds until it comes."""
        wait = self.until_turn(now=now)
        if wait == 0:
            self._unanswered += 1
            self._is_trying = self.is_refused
        return wait

    def until_turn(self, *, now: float, others: int = 0) -> float:
        """Return the seconds until the turn for a submission comes, and take none.

        :param others: So many that have begun are sent before it.
        """
        if blocked := self.blocked(now=now):
            return blocked
        if self._is_trying or (self.is_refused and others):
            return SHORT_WAIT
        _forget_before(now - MINUTE, self._answered)
        sent = len(self._answered) + max(self._unanswered, others)
        too_many = sent + 1 - (self._per_minute or math.inf)
        if too_many <= 0:
            return 0.0
        if too_many > len(self._answered):
            return SHORT_WAIT  # the others are about to be answered
        return self._answered[int(too_many) - 1] + MINUTE - now

    def accepted(self, *, now: float) -> None:
        """Take note that the API took a submission: it may take more."""
        self.lost(now=now)
        self._refusals = 0
        self._accepted.append(now)
        if self._max_in_flight is None:
            step = 1.0 if self._growing_fast else 1.0 / self._window
            self._window = min(self._window + step, LARGEST_WINDOW)

    def lost(self, *, now: float) -> None:
        """Take note that a submission had no response, or one that says nothing of the rate."""
        self._unanswered -= 1
        self._is_trying = False
        self._answered.append(now)  # it counts from here on: it has arrived, however long it was on its way

    def refused(self, *, sent_at: float, now: float, requested: float | None, draw: float) -> None:
        """Take note of a 429: for a while nothing is sent, and then one submission tries it.

        The pauses double. From the third one on they last to the end of a minute in which some were taken:
        WaveSpeed's limits "reset every minute" (docs, troubleshooting-guide).

        :param requested: Seconds that the API asked to wait (``Retry-After``).
        :param draw: A random number from 0 to 1; it makes the pause longer by a tenth at most.
        """
        self.lost(now=now)
        self._blocked_until = max(self._blocked_until, now + (requested or 0.0))
        if sent_at > self._refused_at:  # else it was on its way when the last one was refused
            self._refusals, self._refused_at = self._refusals + 1, now
            pause = min(FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10), MINUTE)
            _forget_before(now - MINUTE, self._accepted)
            if self._refusals > SHORT_REFUSALS and self._accepted:
                pause = max(pause, self._accepted[0] + MINUTE - now)
            self._blocked_until = max(self._blocked_until, now + pause * (1 + draw / 10))
            if self._max_in_flight is None:
                self._growing_fast, self._window = False, max(1.0, self._window / 2)


def _forget_before(moment: float, moments: deque[float]) -> None:
    while moments and moments[0] <= moment:
        moments.popleft()
