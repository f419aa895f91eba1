"""When to look at a prediction. Pure: no clock, no network, no memory, so a restarted trigger goes on alike.

The pause grows with the prediction's age, so an image that takes long costs few looks and is seen late by at
most a fifth of its time. WaveSpeed asks for at least 2 seconds between looks (docs/get-result).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_POLL_INTERVAL", "PollSchedule"]

DEFAULT_POLL_INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The pauses between looks.

    :param interval: Seconds from the submission to the first look, and the shortest pause.
    :param longest: Seconds of the longest pause.
    :param growth: The pause as a part of the prediction's age.
    :param jitter: The pause is drawn this part up or down, so that many tasks do not look at once.
    :param failures: So many looks may fail one after another.
    :param not_found_grace: Seconds for which a new prediction may be unknown to the API.
    """

    interval: float = DEFAULT_POLL_INTERVAL
    longest: float = 15.0
    growth: float = 0.2
    jitter: float = 0.1
    failures: int = 10
    not_found_grace: float = 60.0

    def pause(self, *, age: float, draw: float, failures: int = 0, asked: float | None = None) -> float:
        """Return the seconds until the next look.

        :param age: Seconds since the submission.
        :param draw: A random number from 0 to 1.
        :param failures: Looks that failed one after another; each doubles the pause.
        :param asked: Seconds that the API asked to wait (``Retry-After``).
        """
        pause = min(max(self.interval, age * self.growth) * 2.0**failures, self.longest)
        return max(pause * (1 + self.jitter * (2 * draw - 1)), self.interval, asked or 0.0)

    def first(self, *, age: float) -> float:
        """Return the seconds until the first look of this process: at once where it is due."""
        return max(0.0, self.interval - age)
