"""What predictions that were polled tell of the others of their kind: when they end. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

EARLY = 0.4
"""The part of the predictions that had ended at the age at which the next one is worth its first poll."""
TELLING = 3
"""So many polls in a row that find no end tell that others of that age have hardly ended, either."""
AT_ONCE = 32
"""Polls under way, at most. With 16, a hundred that end within a second were seen 0.2 s later where the API
is 300 ms away."""
RECENT = 48
"""Polls, and ends, that are remembered of a kind. With more, a batch would take longer to see that its images
have become quicker."""


@dataclass(slots=True, eq=False)
class Poll:
    """A poll at an age, and whether it found the end; ``None`` until its response.

    :ivar is_first: Whether it is its prediction's first. What was polled before is more likely a slow one.
    """

    age: float
    is_first: bool
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
    ended: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    polls: deque[Poll] = field(default_factory=lambda: deque(maxlen=RECENT))

    def learn(self, latency: float) -> None:
        """Expect the others when the early part of the last ones had ended."""
        if self.expected is not None and latency < self.expected * (1 - EARLY):
            self.ended.clear()  # things have changed: the service was cold, or busy
        self.ended.append(latency)
        self.expected = sorted(self.ended)[int(EARLY * len(self.ended))]

    def quiet_until(self, age: float, *, is_first: bool, width: float, gap: float) -> float:
        """Return the age up to which a poll is not worth it, as the last ones within a width show; or 0."""
        near = [
            poll
            for poll in reversed(self.polls)
            if poll.is_first >= is_first and abs(poll.age - age) <= width
        ]
        known = [poll.found_end for poll in near if poll.found_end is not None]
        ends = sum(known[:TELLING])
        if len(near) < TELLING or 2 * ends > TELLING or len(near) - len(known) < TELLING * ends:
            return 0.0  # the more of the last ones found an end, the more may be under way
        return max((poll.age + gap for poll in near[:TELLING] if abs(poll.age - age) < gap), default=0.0)
