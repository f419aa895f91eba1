"""The pauses between two polls of one prediction. Pure: the time and the random draw are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_bitdance.exceptions import BitDanceError, UnknownPathError

DEFAULT_POLL_INTERVAL = 1.0
"""Seconds. WaveSpeed's own clients poll each second; its page docs/get-result asks for 2 or more."""
FIRST_POLL = 2.0
"""Seconds to the first poll where nothing is known yet: BitDance takes 5 to 15 (internals/benchmarks.md)."""
MINUTE = 60.0
"""WaveSpeed's limits "reset every minute". So long a ``Retry-After`` holds up all polls at most, may a new
prediction be unknown to the API, and is one warning of an outage enough."""


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """The pauses between polls, in seconds.

    :param interval: The shortest pause of a prediction that is alone in its job.
    :param growth: The pause as a part of the age; it is drawn this part up or down, so that tasks spread.
    """

    interval: float = DEFAULT_POLL_INTERVAL
    longest: float = 15.0
    growth: float = 0.1

    @property
    def first(self) -> float:
        """The age at the first poll where nothing is known."""
        return max(self.interval, FIRST_POLL)

    def pause(self, *, age: float, draw: float, failures: int = 0, requested: float | None = None) -> float:
        """Return the seconds until the next poll: each failure doubles them; no fewer than were requested."""
        pause = min(max(self.interval, age * self.growth) * 2.0 ** min(failures, 10), self.longest)
        return max(pause * (1 + self.growth * (2 * draw - 1)), self.interval, requested or 0.0)


def is_refusal(error: BitDanceError) -> bool:
    """Say whether a poll was refused, rather than lost in an outage.

    An outage is waited out, as long as the task waits: the image is paid for, and WaveSpeed's last two to
    three minutes. A refusal, such as 401, may pass: keys that work were refused for a moment. After a minute
    of nothing but refusals it does not.
    """
    return not error.retry_helps and not isinstance(error, UnknownPathError)
