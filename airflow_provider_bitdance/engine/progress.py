"""Progress: a line in the task's log when something changed, the rarer the longer it takes."""

from __future__ import annotations

from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.records import Status

PAUSE_SECONDS = 5.0
PAUSE_SHARE = 0.1
"""Of the time so far, where that is longer: a batch of hours then writes tens of lines, and not thousands."""


class Progress:
    """Logs how far a job of several images is."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._total = len(context.journal.state.images)
        self._there_before = len(context.journal.state.having(Status.STORED))
        self._started = self._logged_at = context.clock.time()
        self._last_text = ""

    def report(self, *, failed: int, in_flight: int, last: bool = False) -> None:
        """Say how far the job is, where that is news and the last line is some seconds old.

        :param last: Nothing more will change in this process.
        """
        now = self._context.clock.time()
        pause = max(PAUSE_SECONDS, PAUSE_SHARE * (now - self._started))
        if self._total < 2 or not (last or now >= self._logged_at + pause):
            return
        text = self._text(now, failed, in_flight)
        if text != self._last_text:
            self._last_text, self._logged_at = text, now
            self._context.log.info("%s", text)

    def _text(self, now: float, failed: int, in_flight: int) -> str:
        # Those that another task has stored for this one count, too.
        done = len(self._context.journal.state.having(Status.STORED))
        new = done - self._there_before
        parts = [f"{done}/{self._total} stored"]
        if in_flight:
            parts.append(f"{in_flight} in flight")
        if failed:
            parts.append(f"{failed} failed")
        parts.append(usd(round(self._context.journal.state.spent_usd, 6)))
        minutes = (now - self._started) / 60
        left = self._total - done - failed
        if new and minutes > 0 and left:
            rate = new / minutes
            parts.append(f"{rate:.0f}/min")
            parts.append(f"about {_duration(left / rate * 60)} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
