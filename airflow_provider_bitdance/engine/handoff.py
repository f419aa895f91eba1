"""When a worker is given back though its job is not done. Only decides; the pump acts.

There are two cases. Only waiting is left: the job is handed over to the trigger. Or there is more to buy and
the account takes nothing for long: a rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.polling.scheduler import PollScheduler

__all__ = ["Rest", "Rests"]


@dataclass(frozen=True, slots=True)
class Rest:
    """There is more to buy, and nothing to do for a while.

    :param until: Unix time at which there may be something to do; that of the decision where it is not known.
    :param enough: So many predictions have to end first; 0 where it is a matter of time only.
    :param in_flight: So many were in flight when this was decided.
    """

    until: float
    enough: int
    in_flight: int


class Rests:
    """Decides when the worker of one job is given back.

    :param pace: What the account admits.
    :param looks: What is known of when predictions end.
    """

    def __init__(self, context: JobContext, limiter: RateLimiter, looks: PollScheduler) -> None:
        self._context = context
        self._limiter = limiter
        self._looks = looks
        self._moved_at = context.clock.time()

    def move(self) -> None:
        """Take note that something moved."""
        self._moved_at = self._context.clock.time()

    def rest(self, wait: float) -> Rest | None:
        """Decide whether to give the worker back though there is more to buy and no purchase is under way.

        :param wait: Seconds until the next purchase may begin; infinite where one in flight has to end first.
        """
        now, deadline = self._context.clock.time(), self._context.journal.state.deadline
        in_flight, enough = self._limiter.in_flight, 0
        if self._context.policy.defer_after is None:
            return None
        if wait == math.inf:
            if in_flight and self.until_idle() <= 0:
                return Rest(now, 1, in_flight) if now < deadline else None
            wait, enough = (self._looks.first_end() or now) - now, 1
        is_worth_it = wait >= self._context.policy.break_even and now + wait < deadline
        return Rest(now + wait, enough, in_flight) if is_worth_it else None

    def rest_for_holders(self, held: Mapping[str, float]) -> Rest | None:
        """Decide whether to give the worker back, if other tasks make all that is left of this job.

        :param held: By key, the Unix time at which the other task's lease ends.
        """
        now, defer_after = self._context.clock.time(), self._context.policy.defer_after
        waited = now - self._moved_at
        if defer_after is None or waited < defer_after:
            return None
        until = min(min(held.values()), now + max(waited, self._context.policy.break_even))
        return Rest(until, 0, 0) if until < self._context.journal.state.deadline else None

    def until_idle(self) -> float:
        """Return the seconds until nothing has moved for so long that a trigger had better wait."""
        return self._moved_at + self._shortest() - self._context.clock.time()

    def hand_over_at(self, started: float) -> float:
        """Return the Unix time at which the trigger goes on, where only waiting is left.

        :param started: Unix time since which only waiting is left.
        """
        if self.is_long(self._looks.last_end() or 0.0):
            return 0.0
        defer_after = self._context.policy.defer_after
        return math.inf if defer_after is None else started + defer_after

    def is_long(self, until: float) -> bool:
        """Say whether it is worth a deferral to wait until a Unix time."""
        return until - self._context.clock.time() > self._shortest()

    def _shortest(self) -> float:
        """Return the seconds of waiting that are worth a deferral."""
        policy = self._context.policy
        return math.inf if policy.defer_after is None else max(policy.defer_after, policy.break_even)
