"""Progress: a line in the task's log when something changed, the rarer the longer it takes."""

from __future__ import annotations

from collections import deque

from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.records import Status

PAUSE_SECONDS = 5.0
PAUSE_SHARE = 0.1
"""Of the time so far, where that is longer: a batch of hours then writes tens of lines, and not thousands."""
MINUTE = 60.0
LEAST_IMAGES, MOST_MINUTES = 10, 10


class Rate:
    """At which rate this process stores what it buys; the time is an argument.

    Known once it has stored ten such images and a whole minute has passed since the first. It is that of the
    last whole minutes, at most ten: an account's limits are by the minute, and what is stored in the first
    seconds of one says nothing of the next.
    """

    def __init__(self) -> None:
        self._count, self._first = 0, 0.0
        self._stored: deque[float] = deque()

    def stored(self, now: float) -> None:
        """Take note of an image."""
        self._first = self._first if self._count else now
        self._count += 1
        self._stored.append(now)

    def per_minute(self, now: float) -> float:
        """Return the images a minute; 0 while it is not known."""
        minutes = min(int((now - self._first) // MINUTE), MOST_MINUTES)
        if self._count < LEAST_IMAGES or minutes < 1:
            return 0.0
        while self._stored and self._stored[0] <= now - MOST_MINUTES * MINUTE:
            self._stored.popleft()
        return sum(moment > now - minutes * MINUTE for moment in self._stored) / minutes


class Progress:
    """Logs how far a job of several images is.

    :ivar rate: Of the images that this process buys: what others have stored comes all at once.
    """

    def __init__(self, context: JobContext) -> None:
        self.rate = Rate()
        self._context = context
        self._total = len(context.journal.state.images)
        self._started = self._logged_at = context.clock.time()
        self._last_text = ""

    def report(self, *, failed: int, in_flight: int, awaited: int, last: bool = False) -> None:
        """Say how far the job is, where that is news and the last line is some seconds old.

        :param awaited: Images that other tasks make.
        :param last: Nothing more will change in this process.
        """
        now = self._context.clock.time()
        pause = max(PAUSE_SECONDS, PAUSE_SHARE * (now - self._started))
        if self._total < 2 or not (last or now >= self._logged_at + pause):
            return
        text = self._text(now, failed, in_flight, awaited)
        if text != self._last_text:
            self._last_text, self._logged_at = text, now
            self._context.log.info("%s", text)

    def _text(self, now: float, failed: int, in_flight: int, awaited: int) -> str:
        stored = self._context.journal.state.having(Status.STORED)
        done, reused = len(stored), sum(image.reused for image in stored)
        parts = [f"{done}/{self._total} stored{f' ({reused} reused)' if reused else ''}"]
        if in_flight:
            parts.append(f"{in_flight} in flight")
        if awaited:
            parts.append(f"{awaited} awaited from other tasks")
        if failed:
            parts.append(f"{failed} failed")
        parts.append(usd(round(self._context.journal.state.spent_usd, 6)))
        left = self._total - done - failed
        if left and not awaited and (rate := self.rate.per_minute(now)):
            parts += [f"{rate:.0f}/min", f"about {_duration(left / rate * MINUTE)} left"]
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
