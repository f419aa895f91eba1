"""How fast to submit, and how long to wait after a 429. Pure: the time is an argument, nothing is sent here.

Limits that the user gives are kept to the letter, from the first submission on. Without them the account's
own are found (published tier limits contradict each other). A 429 is taken for "the account is full": what is
refused waits for a prediction of ours to end, and not for a time, for a full account refuses each trial until
then. Tasks of one account know nothing of each other and come to share it: see :meth:`RateLimiter.refused`.
The numbers below were found by simulation, of which `tests/unit/engine/test_shared_account.py` is the gist.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

FIRST_WINDOW = 8.0
"""Predictions in flight at the start, where no limit is given; or so many more than there are."""
START_GROWTH = 96
"""At the start one submission is sent at a time, and more with the square of the accepted ones, divided by
this: 8 after 26. With 8 from the first on, each task that comes to a full account would have as many refused
at once; with one, 100 images at an API that is 300 ms away would take 30 s to submit."""
LARGEST_WINDOW = 1000.0
YIELD = 0.8
"""Who is refused what it held before gives up this many times the square root of its window. With a fifth of
the window, a batch that is alone would use a tenth less of an account of 100 in flight; with one place, a
task that came late would keep two places beside one that has thirteen."""
RECLAIM_ROUNDS = 4.0
"""Rounds (as many accepted submissions as the window has places) until one of these is tried again."""
TRIAL_ROUNDS = 8.0
"""Rounds until one more than ever is tried, at most: a fifth of the window's square, so that small ones try
often and large ones seldom, and half as many after each place that was gained."""
MINUTE = 60.0
FIRST_PAUSE = 1.0
SHORT_REFUSALS = 3
"""So many 429s in a row may come of too many in flight; the next one is taken for a limit of the minute."""
SHORT_WAIT = 0.05
"""Seconds until it is asked again whether a place is free, or others that are about to be sent have been."""


class RateLimiter:
    """Decides when the next submission may be sent.

    The caller counts the purchases that have begun and are not over (``started``) and what is ``in_flight``,
    and names the purchases that have begun and wait for their turn (``queued``). Right before it sends it
    takes a :meth:`turn`; the response goes to one of the three methods at the end.

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
        self.queued: set[str] = set()
        self._max_in_flight, self._per_minute = max_in_flight, requests_per_minute
        self._window = float(max_in_flight or window or in_flight_before + FIRST_WINDOW)
        self._is_starting = window is None and max_in_flight is None
        self._taken_at_start = 0
        self._ceiling = self.window
        self._gained = self._on_trial = 0
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
        return None if self._is_starting or self._max_in_flight is not None else self.window

    @property
    def at_once(self) -> float:
        """Submissions that may be on their way at the same time."""
        return 1 + self._taken_at_start**2 // START_GROWTH if self._is_starting else math.inf

    @property
    def is_refused(self) -> bool:
        """Whether the last response was a 429."""
        return self._refusals > 0

    @property
    def _taken(self) -> int:
        """Predictions in flight, with those that are about to be: all purchases but those that still wait."""
        return self.in_flight + self.started - len(self.queued)

    def wait(self, *, now: float) -> float:
        """Return the seconds until one more purchase may begin; infinite where one in flight has to end."""
        is_full = self.in_flight + self.started >= self.window
        return math.inf if is_full else self._until_sent(now=now, others=self.started)

    def blocked(self, *, now: float) -> float:
        """Return the seconds for which nothing is sent, after a 429."""
        return max(0.0, self._blocked_until - now)

    def turn(self, *, now: float) -> float:
        """Take the turn for a submission at this very moment, and return 0; or the seconds until it comes."""
        wait = self._until_sent(now=now) or (0.0 if self._has_place(self._taken - 1) else SHORT_WAIT)
        if wait == 0:
            self._unanswered += 1
            self._is_trying = self.is_refused
        return wait

    def until_turn(self, *, now: float) -> float:
        """Return the seconds until the turn of a purchase comes that is ``queued``, and take none."""
        return self._until_sent(now=now) or (0.0 if self._has_place(self._taken) else SHORT_WAIT)

    def _has_place(self, others: int) -> bool:
        """Say whether a submission may be sent beside others that are in flight or about to be."""
        if self._is_starting:
            # A purchase whose response was lost keeps its place for minutes: only what is on its way counts.
            return self._unanswered < self.at_once
        return others < self.window

    def _until_sent(self, *, now: float, others: int = 0) -> float:
        """Return the seconds until one more may be sent, as far as pauses and the rate are concerned.

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
        # A window that is not used up does not show whether the account takes more.
        is_full = self.in_flight + self.started >= self.window
        if self._max_in_flight is None and (is_full or self._is_starting):
            self._grow()

    def lost(self, *, now: float) -> None:
        """Take note that a submission had no response, or one that says nothing of the rate."""
        self._unanswered -= 1
        self._is_trying = False
        self._answered.append(now)  # it counts from here on: it has arrived, however long it was on its way

    def refused(self, *, sent_at: float, now: float, requested: float | None, draw: float) -> None:
        """Take note of a 429: the account is full, or a limit of the minute is reached.

        In the first case the window becomes what is in flight, and where that was more before, others have
        come: some places are given up, which they find by trying. The large are refused more often than the
        small and give up more, so all come to have as much.

        Where that leaves a place free, only time can help. These pauses double. After some 429s in a row the
        next one lasts to the end of a minute in which some were taken: WaveSpeed's limits "reset every
        minute" (docs, troubleshooting-guide).

        :param requested: Seconds that the API asked to wait (``Retry-After``).
        :param draw: A random number from 0 to 1; it makes the pause longer by a tenth at most.
        """
        is_new = sent_at > self._refused_at  # else it was on its way when the last one was refused
        others = max(0, self._taken - 1)
        self.lost(now=now)
        if self._max_in_flight is None:
            self._shrink(min(others, self.window - 1), is_new=is_new)
        pause = requested or 0.0
        if is_new:
            self._refusals, self._refused_at = self._refusals + 1, now
            # What has only begun is no prediction whose end one could wait for.
            is_full = others >= self.window and self.in_flight + self._unanswered > 0
            pause = max(pause, self._pause(now=now, is_full=is_full) * (1 + draw / 10))
        self._blocked_until = max(self._blocked_until, now + pause)

    def _pause(self, *, now: float, is_full: bool) -> float:
        pause = 0.0 if is_full else min(FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10), MINUTE)
        _forget_before(now - MINUTE, self._accepted)
        if self._refusals > SHORT_REFUSALS and self._accepted:
            return max(pause, self._accepted[0] + MINUTE - now)
        return pause

    def _grow(self) -> None:
        """Widen the window after a submission that filled it was accepted."""
        before = self.window
        self._on_trial = max(0, self._on_trial - 1)
        if self._is_starting:
            self._taken_at_start += 1
            step = 1.0
        else:
            rounds = max(1.0, min(self._window**2 / 5, TRIAL_ROUNDS) / 2.0**self._gained)
            step = 1.0 / (self._window * (RECLAIM_ROUNDS if before < self._ceiling else rounds))
        self._window = min(self._window + step, LARGEST_WINDOW)
        if self.window > before and not self._is_starting:
            self._gained, self._on_trial = self._gained + 1, self.window

    def _shrink(self, held: int, *, is_new: bool) -> None:
        """Narrow the window to what is in flight beside a submission that was refused, or below that."""
        is_trial = self._is_starting or self._on_trial > 0 or not is_new
        given_up = 0 if is_trial else max(1, round(YIELD * math.sqrt(held + 1))) - 1
        self._ceiling = max(1, held)
        self._window = float(max(1, min(self._ceiling, held - given_up)))
        self._is_starting = False
        self._gained = self._on_trial = 0


def _forget_before(moment: float, moments: deque[float]) -> None:
    while moments and moments[0] <= moment:
        moments.popleft()
