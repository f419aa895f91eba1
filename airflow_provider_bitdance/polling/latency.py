"""What predictions that were polled tell of the others of their kind: when they end. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

EARLY = 0.2
"""The part of the predictions that has ended at the age at which one is worth its first poll."""
TELLING = 3
"""So many polls in a row that find no end tell that others of that age have hardly ended, either."""
AT_ONCE = 16
"""Polls under way, at most."""


@dataclass(slots=True, eq=False)
class Poll:
    """A poll at an age, and whether it found the end; ``None`` until its response."""

    age: float
    found_end: bool | None = None


@dataclass(slots=True, eq=False)
class Latencies:
    """What is known of one kind of predictions: those of one job, or all that are alone in theirs.

    :ivar is_single: Whether each is alone in its job; the others are other jobs'.
    :ivar expected: The age in seconds at which one may have ended; ``None`` before the first end.
    :ivar probe: One that is polled from the start, whatever is expected: a wrong expectation blinds nobody.
    """

    is_single: bool = False
    expected: float | None = None
    probe: str = ""
    polls: deque[Poll] = field(default_factory=lambda: deque(maxlen=TELLING * AT_ONCE))

    def learn(self, latency: float, *, growth: float) -> None:
        """Move the expected age towards the one at which the early part of the predictions has ended."""
        if self.expected is None or latency < self.expected * (1 - EARLY):
            self.expected = latency  # the first one; or things have changed: the service was cold, or busy
        else:
            self.expected *= 1 + growth * (EARLY if latency > self.expected else EARLY - 1)

    def quiet_until(self, age: float, *, width: float, gap: float) -> float:
        """Return the age up to which a poll is not worth it, as the last ones within a width show; or 0."""
        near = [poll for poll in reversed(self.polls) if abs(poll.age - age) <= width]
        known = [poll.found_end for poll in near if poll.found_end is not None]
        if len(near) < TELLING or len(near) - len(known) < TELLING * sum(known[:TELLING]):
            return 0.0  # the more of the last ones found an end, the more may be under way
        return max((poll.age + gap for poll in near[:TELLING] if abs(poll.age - age) < gap), default=0.0)
