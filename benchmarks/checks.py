"""What a row must reach, what it reached, and all that was measured on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from benchmarks.measure import Figures

Runs = dict[str, list[Figures]]
"""Every single run, under a name that tells way and case."""


@dataclass(frozen=True, slots=True)
class Check:
    """One criterion.

    :param what: In words; a ratio names both sides.
    :param most: It must not be above this; with `exactly` it must be this, with `is_least` not below.
    :param where: Which of several cases was the worst.
    """

    what: str
    measured: float
    most: float
    exactly: bool = False
    where: str = ""
    is_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether it is reached; what could not be measured is not."""
        if self.is_least:
            return self.measured >= self.most
        return self.measured == self.most if self.exactly else self.measured <= self.most

    @property
    def must(self) -> str:
        """What must be reached, in words."""
        sign = "=" if self.exactly else "≥" if self.is_least else "≤"
        return f"{self.what} {sign} {self.most:g}"

    @property
    def reached(self) -> str:
        """What was measured, in words."""
        mark = "" if self.ok else " **misses**"
        return f"{self.measured:.4g}{f' ({self.where})' if self.where else ''}{mark}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row.

    :param notes: Figures that are no run of images.
    """

    checks: list[Check]
    runs: Runs = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


def at_least(what: str, measured: float, least: float) -> Check:
    """Return the criterion that something is not below a number."""
    return Check(what, measured, least, is_least=True)


def worst(what: str, cases: dict[str, float], most: float) -> Check:
    """Return the criterion for the worst of several cases."""
    where = max(cases, key=lambda case: cases[case])
    return Check(what, cases[where], most, where=where)


def all_there(runs: Runs, images: int) -> Check:
    """Return the criterion that each image is stored, and bought once: no figure counts without it."""
    found = (run for way in runs.values() for run in way)
    odd = sum(abs(run.stored - images) + abs(run.billed - images) for run in found)
    return Check("images missing or billed twice", odd, 0, exactly=True)


def median_ratio(ours: list[Figures], theirs: list[Figures]) -> float:
    """Return the median of the ratios of walls, each of two runs that met the same latencies."""
    return median(our.wall / their.wall for our, their in zip(ours, theirs, strict=True))
