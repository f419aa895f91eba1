"""The pauses between looks at one prediction. Pure: no clock and no network; the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_POLL_INTERVAL", "PollPolicy"]

DEFAULT_POLL_INTERVAL = 1.0
"""Seconds. WaveSpeed's own clients look each second; its page docs/get-result asks for 2 or more."""
FIRST_LOOK = 2.0
"""Seconds to the first look where nothing is known yet: BitDance takes 5 to 15 (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """The pauses between looks.

    :param interval: Seconds; the shortest pause between two looks at a prediction that nothing is known of.
    :param longest: Seconds of the longest pause.
    :param growth: The pause as a part of the prediction's age.
    :param jitter: The pause is drawn this part up or down, so that many tasks do not look at once.
    :param failures: So many looks may fail one after another.
    :param not_found_grace: Seconds for which a new prediction may be unknown to the API.
    """

    interval: float = DEFAULT_POLL_INTERVAL
    longest: float = 15.0
    growth: float = 0.1
    jitter: float = 0.1
    failures: int = 10
    not_found_grace: float = 60.0

    @property
    def first(self) -> float:
        """Seconds from the submission to the first look where nothing is known."""
        return max(self.interval, FIRST_LOOK)

    def pause(self, *, age: float, draw: float, failures: int = 0, asked: float | None = None) -> float:
        """Return the seconds until the next look.

        :param age: Seconds since the submission.
        :param draw: A random number from 0 to 1.
        :param failures: Looks that failed one after another; each doubles the pause.
        :param asked: Seconds that the API asked to wait (``Retry-After``).
        """
        pause = min(max(self.interval, age * self.growth) * 2.0 ** min(failures, 10), self.longest)
        return max(pause * (1 + self.jitter * (2 * draw - 1)), self.interval, asked or 0.0)
