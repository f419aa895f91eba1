"""Progress: a line in the task's log when something changed, the rarer the longer it takes.

The same figures go to whoever shows them elsewhere (``JobContext.show_progress``).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.records import Status

PAUSE_SECONDS = 5.0
PAUSE_SHARE = 0.1
"""Of the time so far, where that is longer: a batch of hours then writes tens of lines, and not thousands."""
SHOW_PAUSE = 10.0
"""Seconds between two times that the figures are shown elsewhere: each is a request to Airflow."""
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


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a batch is.

    :param stored: Images, reused ones among them.
    :param of: All images of the batch.
    :param failed: Images that failed in this try.
    :param spent_usd: Estimated, with what is possibly paid.
    :param at: Unix time.
    :param expected_end: Unix time at which all may be stored; ``None`` while that is not known.
    """

    stored: int
    of: int
    reused: int
    in_flight: int
    awaited: int
    failed: int
    spent_usd: float
    at: float
    expected_end: float | None = None


class Progress:
    """Logs how far a job of several images is, and shows how far a batch is.

    :ivar rate: Of the images that this process buys: what others have stored comes all at once.
    """

    def __init__(self, context: JobContext) -> None:
        self.rate = Rate()
        self._context = context
        self._total = len(context.journal.state.images)
        self._started = self._logged_at = context.clock.time()
        self._shown_at = -math.inf
        self._last_text = ""

    def report(self, *, failed: int, in_flight: int, awaited: int, last: bool = False) -> None:
        """Say how far the job is, where that is news and what was said last is some seconds old.

        :param awaited: Images that other tasks make.
        :param last: Nothing more will change in this process.
        """
        now = self._context.clock.time()
        is_shown = self._context.policy.is_batch and (last or now >= self._shown_at + SHOW_PAUSE)
        pause = max(PAUSE_SECONDS, PAUSE_SHARE * (now - self._started))
        is_logged = self._total > 1 and (last or now >= self._logged_at + pause)
        if not (is_shown or is_logged):
            return  # to count thousands of images takes its time
        progress = self._progress(now, failed, in_flight, awaited)
        if is_shown:
            self._shown_at = now
            self._context.show_progress(progress)
        text = _text(progress, self.rate.per_minute(now)) if is_logged else self._last_text
        if text != self._last_text:
            self._last_text, self._logged_at = text, now
            self._context.log.info("%s", text)

    def _progress(self, now: float, failed: int, in_flight: int, awaited: int) -> JobProgress:
        state = self._context.journal.state
        stored = state.having(Status.STORED)
        left, rate = self._total - len(stored) - failed, self.rate.per_minute(now)
        return JobProgress(
            stored=len(stored),
            of=self._total,
            reused=sum(image.reused for image in stored),
            in_flight=in_flight,
            awaited=awaited,
            failed=failed,
            spent_usd=round(state.spent_usd, 6),
            at=now,
            expected_end=now + left / rate * MINUTE if left and rate and not awaited else None,
        )


def _text(progress: JobProgress, rate: float) -> str:
    """Return the line of the log.

    :param rate: Images a minute; 0 while that is not known.
    """
    reused = f" ({progress.reused} reused)" if progress.reused else ""
    parts = [f"{progress.stored}/{progress.of} stored{reused}"]
    if progress.in_flight:
        parts.append(f"{progress.in_flight} in flight")
    if progress.awaited:
        parts.append(f"{progress.awaited} awaited from other tasks")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    parts.append(usd(progress.spent_usd))
    if progress.expected_end is not None:
        parts += [f"{rate:.0f}/min", f"about {_duration(progress.expected_end - progress.at)} left"]
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
