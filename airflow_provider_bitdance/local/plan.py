"""The fault plan: the rules in order, how often each applied, and which of them meets a request."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_bitdance.local.faults import AnyRule, NotFound, NullOutputs, Point, Shape, Spoiler


@dataclass(slots=True)
class Planned:
    """A rule in the plan, with how often it applied."""

    rule: AnyRule
    applied: int = 0

    @property
    def left(self) -> int | None:
        """Times it will still apply; None for ever."""
        return None if self.rule.times is None else self.rule.times - self.applied

    def as_json(self) -> Mapping[str, object]:
        """Show the rule and its counts."""
        return {**self.rule.model_dump(), "applied": self.applied, "left": self.left}


class FaultPlan:
    """The rules in order, and which of them meets a request."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        # Downloads are answered on several threads at once; a rule for one time applies one time.
        self._lock = threading.Lock()

    def add(self, rule: AnyRule) -> Planned:
        """Put a rule last."""
        planned = Planned(rule)
        self._planned.append(planned)
        return planned

    def clear(self) -> None:
        """Forget all rules."""
        self._planned = []

    def all(self) -> list[Planned]:
        """List the rules in order, spent ones too."""
        return list(self._planned)

    def shape(self, prompt: str) -> Shape | None:
        """Take the rule that shapes this new prediction."""
        with self._lock:
            for planned in self._planned:
                if isinstance(planned.rule, Shape) and _meets(planned, "submit", prompt):
                    planned.applied += 1
                    return planned.rule
        return None

    def spoiler(
        self, on: Point, *, prompt: str = "", reads: int = 0, completed: bool = False
    ) -> Spoiler | None:
        """Take the rule that spoils this answer.

        :param on: the point.
        :param prompt: prompt of the prediction asked for.
        :param reads: how often the prediction was read before.
        :param completed: whether it is completed.
        """
        with self._lock:
            for planned in self._planned:
                rule = planned.rule
                if not isinstance(rule, Spoiler) or not _meets(planned, on, prompt):
                    continue
                if isinstance(rule, NotFound) and reads >= rule.reads:
                    continue
                if isinstance(rule, NullOutputs) and not completed:
                    continue
                planned.applied += 1
                return rule
        return None


def _meets(planned: Planned, on: Point, prompt: str) -> bool:
    rule = planned.rule
    return rule.on == on and planned.left != 0 and (rule.match is None or rule.match in prompt)
