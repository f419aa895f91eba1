"""What a job does next: buy one more image, wait, give its worker back, or stop. Pure: facts to a command."""

from __future__ import annotations

import math
from dataclasses import dataclass

from airflow_provider_bitdance.engine.handoff import HandOver, hand_over, hand_over_at

RESERVED_AHEAD = 8
"""Purchases that may reserve their destination while others wait for the response to their submission: each
takes an operation of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """All that the next step depends on; moments are Unix times.

    :param left: Images to be bought that no purchase has begun for.
    :param purchases: Purchases under way.
    :param max_unanswered: Of those, so many may have an intent without a recorded response.
    :param in_flight: Predictions that have not ended.
    :param wait: Seconds until the rate limiter admits one more; infinite where one in flight has to end.
    :param first_end: When the oldest prediction in flight may end; ``None`` where that is not known.
    :param last_end: The same of the newest.
    :param idle_since: Since when nothing has moved; where nothing is left to buy, since then.
    :param defer_after: Seconds to wait in the worker; ``None`` waits to the end.
    :param break_even: Seconds of waiting that are worth a deferral.
    :param is_stopped: Nothing more is bought, and what is in flight is waited for in this process.
    :param is_over: Not even that: the job is another process's, or Airflow ends this one.
    :param has_failed: A purchase of this process failed: the next process would begin with it, and so each
        that follows.
    :param held: Images that other tasks make at the same destinations.
    :param lease_end: When the first of these tasks' leases ends; infinite without one.
    :param next_check: When it is seen next what these tasks have stored; infinite without one.
    """

    now: float
    left: int
    purchases: int
    max_unanswered: int
    in_flight: int
    wait: float
    first_end: float | None
    last_end: float | None
    idle_since: float
    deadline: float
    defer_after: float | None
    break_even: float
    is_stopped: bool = False
    is_over: bool = False
    has_failed: bool = False
    held: int = 0
    lease_end: float = math.inf
    next_check: float = math.inf

    @property
    def may_begin(self) -> bool:
        """Whether one more purchase may begin, as far as this job is concerned."""
        most = self.max_unanswered + RESERVED_AHEAD
        return self.left > 0 and not self.is_stopped and self.purchases < most

    @property
    def checks_holders(self) -> bool:
        """Whether this job waits for images that other tasks make."""
        return self.held > 0 and not self.is_stopped

    @property
    def is_late(self) -> bool:
        """Whether the time is over, and neither a purchase nor the rate limiter gives more."""
        can_buy_later = self.may_begin and self.wait < math.inf
        return self.now >= self.deadline and not (self.purchases or can_buy_later)

    @property
    def may_hand_over(self) -> bool:
        """Whether a later process may go on: one that came back to a stopped job would begin to buy again."""
        return not (self.is_stopped or self.purchases) and self.now < self.deadline

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to buy, to wait for or to store."""
        return not (self.purchases or self.in_flight or self.checks_holders) and (
            self.is_stopped or not self.left
        )


@dataclass(frozen=True, slots=True)
class CheckHolders:
    """See what other tasks have stored that this job wants, too."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Begin the purchase of one more image."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Wait until something moves, and no longer than to a moment; infinite where only the first counts."""

    moment: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Wait no longer: all is done, or the time is over."""


NextStep = Submit | CheckHolders | WaitUntil | HandOver | Stop


def next_step(facts: JobFacts) -> NextStep:
    """Decide what a job does next."""
    if facts.is_over or facts.is_done:
        return Stop()
    if facts.may_begin and facts.wait <= 0:
        return Submit()
    if facts.checks_holders and facts.now >= facts.next_check:
        return CheckHolders()
    if facts.is_late:
        return Stop()
    if facts.may_hand_over and (step := hand_over(facts)):
        return step
    return WaitUntil(_next_moment(facts))


def _next_moment(facts: JobFacts) -> float:
    """Return the next moment at which there may be something to do, though nothing has moved."""
    moments = (
        # While a purchase is under way its end comes first, whatever the deadline.
        math.inf if facts.purchases else facts.deadline,
        facts.next_check if facts.checks_holders else math.inf,
        # Some waits are too short for a Unix time to show.
        max(facts.now + facts.wait, math.nextafter(facts.now, math.inf)) if facts.may_begin else math.inf,
        hand_over_at(facts) if facts.may_hand_over else math.inf,
    )
    return min((moment for moment in moments if moment > facts.now), default=math.inf)
