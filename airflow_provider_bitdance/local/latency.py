"""How long an image takes: a mixture of ranges, written as ``2``, ``1-12`` or ``80%:4.5-5.5,20%:36-44``.

Pure: the dice are passed in. Within a range every moment is as likely as the other.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

ALLOWED = "2, 1-12 or 80%:4.5-5.5,20%:36-44"
"""An example of each form, for error messages and the manual."""


@dataclass(frozen=True, slots=True)
class Range:
    """Seconds from ``low`` to ``high``, drawn in so many of a hundred cases."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Latency:
    """A mixture of ranges whose shares add up to a hundred."""

    ranges: tuple[Range, ...]

    def draw(self, chance: random.Random) -> float:
        """Draw a number of seconds."""
        drawn = self.ranges[-1]
        if len(self.ranges) > 1:
            left = chance.random() * 100
            for drawn in self.ranges:
                left -= drawn.percent
                if left < 0:
                    break
        return chance.uniform(drawn.low, drawn.high)


def of(latency: float | tuple[float, float] | str) -> Latency:
    """Make the mixture from any of its forms.

    :param latency: seconds, the lowest and the highest, or a text.
    :raises ValueError: says what is wrong with it and what is allowed.
    """
    if isinstance(latency, str):
        return parse(latency)
    low, high = latency if isinstance(latency, tuple) else (latency, latency)
    if not 0 <= low <= high < math.inf:
        raise _bad(str(latency), "not a range of seconds from low to high")
    return Latency((Range(100, low, high),))


def parse(text: str) -> Latency:
    """Read the text form.

    :param text: such as ``2``, ``1-12`` or ``80%:4.5-5.5,20%:36-44``.
    :raises ValueError: says what is wrong with it and what is allowed.
    """
    parts = text.split(",") if "%" in text else [f"100%:{text}"]
    ranges = []
    for part in parts:
        try:
            ranges.append(_range(part))
        except ValueError:
            raise _bad(
                text, "neither seconds, nor a range from low to high, nor ranges with shares"
            ) from None
    total = sum(part.percent for part in ranges)
    if not math.isclose(total, 100):
        raise _bad(text, f"its shares add up to {total:g}%, not 100%")
    return Latency(tuple(ranges))


def _range(part: str) -> Range:
    percent, _, seconds = part.partition("%:")
    low, dash, high = seconds.partition("-")
    read = Range(float(percent), float(low), float(high if dash else low))
    if not (0 < read.percent <= 100 and 0 <= read.low <= read.high < math.inf):
        raise ValueError(part)
    return read


def _bad(text: str, why: str) -> ValueError:
    return ValueError(f"latency {text!r}: {why}; allowed: {ALLOWED}")
