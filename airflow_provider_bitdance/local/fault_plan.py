"""The fault plan: the rules in order, how often each applied, and which of them meets a request."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_bitdance.local.database import Database
from airflow_provider_bitdance.local.faults import (
    AnyRule,
    FailureCode,
    NotFound,
    NullOutputs,
    Outage,
    Point,
    PredictionFault,
    ResponseFault,
    Rule,
)

Fault = TypeVar("Fault", PredictionFault, ResponseFault, Outage)


@dataclass(slots=True)
class PlannedRule:
    """A rule in the plan, with how often its dice were thrown, how often it applied, and when it began.

    Only an outage begins: with the first request that it spoils.
    """

    rule: AnyRule
    thrown: int = 0
    applied: int = 0
    began: float | None = None

    @property
    def left(self) -> int | None:
        """Times it will still apply; None for ever."""
        return None if self.rule.times is None else self.rule.times - self.applied


class FaultPlan:
    """The rules in order, and which of them meets a request.

    :param database: to which each change is written before it is made.
    :param stored: rules that the database holds already, with how often each was thrown for and applied, and
        when it began.
    :param seed: of the dice of rules with a probability.
    """

    def __init__(
        self,
        database: Database,
        stored: Iterable[tuple[AnyRule, int, int, float | None]] = (),
        *,
        seed: int = 0,
    ) -> None:
        self._database = database
        self._seed = seed
        self._planned = [PlannedRule(*row) for row in stored]
        # Downloads are served on several threads at once; a rule for one time applies one time.
        self._lock = threading.Lock()

    def add(self, rule: AnyRule) -> None:
        """Put a rule last."""
        with self._lock:
            self._database.add_rule(len(self._planned), rule)
            self._planned.append(PlannedRule(rule))

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._database.clear_rules()
            self._planned = []

    def all(self) -> list[PlannedRule]:
        """List the rules in order, spent ones too."""
        return list(self._planned)

    def for_prediction(self, prompt: str) -> PredictionFault | None:
        """Take the rule that decides about this new prediction."""
        return self._take(PredictionFault, lambda planned: _meets(planned.rule, "submit", prompt))

    def outage(self, on: Point, now: float) -> Outage | None:
        """Take the outage that a request at a point falls into; the first request begins it."""

        def meets(planned: PlannedRule) -> bool:
            rule, began = planned.rule, planned.began
            return (
                isinstance(rule, Outage)
                and rule.on in (on, "any")
                and (began is None or now < began + rule.seconds)
            )

        return self._take(Outage, meets, now)

    def for_response(
        self, on: Point, *, prompt: str = "", reads: int = 0, completed: bool = False, failed: bool = False
    ) -> ResponseFault | None:
        """Take the rule that spoils this response.

        :param on: the point.
        :param prompt: prompt of the prediction that the request is about.
        :param reads: how often the prediction was read before.
        :param completed: whether it is completed.
        :param failed: whether it failed, or is completed and flagged.
        """

        def meets(planned: PlannedRule) -> bool:
            rule = planned.rule
            if isinstance(rule, NotFound) and reads >= rule.reads:
                return False
            if isinstance(rule, NullOutputs) and not completed:
                return False
            if isinstance(rule, FailureCode) and not failed:
                return False
            return _meets(rule, on, prompt)

        return self._take(ResponseFault, meets)

    def _take(
        self, kind: type[Fault], meets: Callable[[PlannedRule], bool], now: float | None = None
    ) -> Fault | None:
        with self._lock:
            for number, planned in enumerate(self._planned):
                rule = planned.rule
                if not isinstance(rule, kind) or planned.left == 0 or not meets(planned):
                    continue
                if self._applies(number, now):
                    return rule
        return None

    def _applies(self, number: int, now: float | None) -> bool:
        """Throw the dice of a rule that meets a request, and count the throw."""
        planned = self._planned[number]
        # Each throw has dice of its own, so that a restarted service goes on with the next one.
        probability, dice = planned.rule.probability, f"{self._seed}:{number}:{planned.thrown}"
        applied = probability == 1 or random.Random(dice).random() < probability
        began = now if applied and planned.began is None else planned.began
        self._database.count_throw(number, applied=applied, began=began)
        planned.began = began
        planned.thrown += 1
        planned.applied += applied
        return applied


def _meets(rule: Rule, on: Point, prompt: str) -> bool:
    return rule.on == on and (rule.match is None or rule.match in prompt)
