"""When a task gives its worker back though its job is not done. Pure: facts in, a command out.

There are two rules. Only waiting has been left for ``defer_after``; or there is more to buy, and the account
takes nothing for longer than a deferral costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine.next_step import JobFacts


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give the worker back; a trigger waits.

    :param until: Unix time at which there may be something to do; that of the decision where it is not known.
    :param enough: So many predictions have to end first; 0 where it is a matter of time only.
    """

    until: float
    enough: int


class WaitsFor(StrEnum):
    """What a job with images left waits for, in the words of the log."""

    ACCOUNT = "Rate limited by WaveSpeed"
    MINUTE = "The limit requests_per_minute is reached"
    IN_FLIGHT = "The maximum number of predictions is in flight"
    OTHERS = "Other tasks are making the remaining images"


def waits_for(*, left: int, wait: float, blocked: float) -> WaitsFor:
    """Say what a job waits for that gives its worker back with images left.

    :param left: Images to be bought that no other task makes.
    :param wait: Seconds until the rate limiter admits one more; infinite where one in flight has to end.
    :param blocked: Seconds for which nothing is sent, after a 429.
    """
    if not left:
        return WaitsFor.OTHERS
    if blocked:
        return WaitsFor.ACCOUNT
    return WaitsFor.IN_FLIGHT if wait == math.inf else WaitsFor.MINUTE


def hand_over_at(facts: JobFacts) -> float:
    """Return the Unix time at which a job in which nothing moves gives its worker back; infinite if never."""
    is_full = facts.wait == math.inf and not facts.has_failed
    is_waiting = facts.in_flight or facts.held
    if facts.defer_after is None or not is_waiting or (facts.left and not is_full):
        return math.inf
    return facts.idle_since + max(facts.defer_after, facts.break_even if facts.left else 0.0)


def hand_over(facts: JobFacts) -> HandOver | None:
    """Decide whether to give the worker back now, where no purchase is under way and it is not too late."""
    if facts.defer_after is None or (facts.left and facts.has_failed):
        return None
    if facts.held and not facts.left:
        return _hand_over_held(facts)
    end, enough = _awaited(facts)
    # An end that is near is not worth a deferral by time: the trigger polls from now on.
    is_far = end is not None and end - facts.now >= facts.break_even
    until = end if end is not None and is_far else facts.now
    is_blocked = facts.left > 0 and is_far and until < facts.deadline
    return HandOver(until, enough) if is_blocked or facts.now >= hand_over_at(facts) else None


def _awaited(facts: JobFacts) -> tuple[float | None, int]:
    """Return when there may be something to do, where that is known, and how many predictions end before."""
    if facts.left and facts.wait < math.inf:
        return facts.now + facts.wait, 0
    return (facts.first_end, 1) if facts.left else (facts.last_end, facts.in_flight)


def _hand_over_held(facts: JobFacts) -> HandOver | None:
    """Decide it if other tasks make all that is left: wait as long again, or until the lease ends.

    What is in flight itself is polled when the job comes back.
    """
    waited = facts.now - facts.idle_since
    until = min(facts.lease_end, facts.now + max(waited, facts.break_even))
    is_due = facts.now >= hand_over_at(facts) and until < facts.deadline
    return HandOver(until, 0) if is_due else None
