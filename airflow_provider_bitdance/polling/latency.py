"""What predictions of one kind tell about each other: when they end. Pure: no clock and no network."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Crowd"]

SCOUTS = 3
"""So many looks at an age tell whether the others of that age are worth one."""
PRESSED_SCOUTS = 2
"""So many times as many where somebody is pressed for the first end."""
PRESSED_ROUND = 10.0
"""Seconds for a round of looks at them then, if that is sooner: with many, one ends soon."""
LARGEST_ROUND = 50
"""So many of them at most, so that a round of more takes no more looks."""
SHORTEST_PRESSED_GAP = PRESSED_ROUND / LARGEST_ROUND
"""Seconds. Looks at young ones that come closer cost more, and see the first end hardly sooner."""
REMEMBERED_LOOKS = 64
REMEMBERED_ENDS = 64
MUCH_SOONER = 0.7
"""An end before this part of the expected age says that what was learned is out of date."""
EARLY = 0.2
"""The part of the ends that lies before the age at which one is expected."""


@dataclass(slots=True, eq=False)
class Crowd:
    """Predictions that tell about each other: those of one job, or all that are alone in theirs.

    :ivar expected_age: The age in seconds at which one may be ready; ``None`` before the first end.
    :ivar size: How many there are.
    :ivar scout: The one that is looked at from the start, whatever is expected.
    :ivar under_way: Their ages at the looks that are under way.
    :ivar put_off: Those that are due, and not looked at because of what the others show.
    """

    expected_age: float | None = None
    size: int = 0
    scout: str = ""
    under_way: dict[str, float] = field(default_factory=dict)
    put_off: dict[str, None] = field(default_factory=dict)
    _seen: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_LOOKS))
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ENDS))
    _missed: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ENDS - 1))

    def see(self, age: float, *, ended: bool) -> None:
        """Take note of a look."""
        self._seen.append((age, ended))

    def learn(self, end: float) -> bool:
        """Take note of an end, and say whether it is much sooner than was expected.

        :param end: The age in seconds at which it came.
        """
        before = self.expected_age
        if before is not None and end < before * MUCH_SOONER:
            self._ends.clear()  # things have changed
        self._ends.extend(missed for missed in self._missed if missed < end)
        self._ends.append(end)
        self._missed.clear()
        self.expected_age = sorted(self._ends)[int(EARLY * (len(self._ends) - 1))]
        return before is not None and self.expected_age < before * MUCH_SOONER

    def miss(self, end: float) -> None:
        """Take note of an end while nobody looked: it may have come long before, so it only lowers others.

        :param end: The age in seconds before which it came.
        """
        self._missed.append(end)

    def near(self, age: float, width: float) -> list[tuple[float, bool]]:
        """Return the last few looks at predictions of about an age: that age, and whether it had ended."""
        near: list[tuple[float, bool]] = []
        for look in reversed(self._seen):
            if abs(look[0] - age) <= width:
                near.append(look)
                if len(near) == SCOUTS:
                    break
        return near

    def gap(self, width: float, *, is_pressed: bool) -> float:
        """Return the seconds between the ages of two looks where none of about that age had ended.

        :param width: Seconds that ages may differ by and still be about the same.
        """
        gap = width / SCOUTS
        if not is_pressed:
            return gap
        in_round = max(PRESSED_ROUND, width) / min(self.size, LARGEST_ROUND)
        return max(SHORTEST_PRESSED_GAP, min(gap / PRESSED_SCOUTS, in_round))
