"""The fault plan: the rules in order, how often each applied, and which of them meets a request."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from airflow_provider_bitdance.local.faults import (
    AnyRule,
    NotFound,
    NullOutputs,
    Point,
    Shape,
    Spoiler,
    parse,
)
from airflow_provider_bitdance.local.state_file import StateEvent, from_rule


@dataclass(slots=True)
class Planned:
    """A rule in the plan, with how often it applied and how often its dice were thrown."""

    rule: AnyRule
    applied: int = 0
    thrown: int = 0

    @property
    def left(self) -> int | None:
        """Times it will still apply; None for ever."""
        return None if self.rule.times is None else self.rule.times - self.applied

    def as_json(self) -> Mapping[str, object]:
        """Show the rule and its counts."""
        return {**self.rule.model_dump(), "applied": self.applied, "left": self.left}


class FaultPlan:
    """The rules in order, and which of them meets a request.

    :param seed: of the dice of rules with a probability.
    :param note: told of each change, so that :meth:`replay` can repeat it.
    """

    def __init__(self, seed: int = 0, note: Callable[[StateEvent], object] = lambda _: None) -> None:
        self._seed = seed
        self._note = note
        self._planned: list[Planned] = []
        # Downloads are answered on several threads at once; a rule for one time applies one time.
        self._lock = threading.Lock()

    def add(self, rule: AnyRule) -> Planned:
        """Put a rule last."""
        with self._lock:
            self._note({"event": "rule", "rule": from_rule(rule)})
            planned = Planned(rule)
            self._planned.append(planned)
            return planned

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._note({"event": "no_rules"})
            self._planned = []

    def all(self) -> list[Planned]:
        """List the rules in order, spent ones too."""
        return list(self._planned)

    def shape(self, prompt: str) -> Shape | None:
        """Take the rule that shapes this new prediction."""
        with self._lock:
            for number, planned in enumerate(self._planned):
                rule = planned.rule
                if isinstance(rule, Shape) and _meets(planned, "submit", prompt) and self._applies(number):
                    return rule
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
            for number, planned in enumerate(self._planned):
                rule = planned.rule
                if not isinstance(rule, Spoiler) or not _meets(planned, on, prompt):
                    continue
                if isinstance(rule, NotFound) and reads >= rule.reads:
                    continue
                if isinstance(rule, NullOutputs) and not completed:
                    continue
                if self._applies(number):
                    return rule
        return None

    def replay(self, event: StateEvent) -> None:
        """Repeat a change that was noted.

        :param event: what ``note`` was told.
        :raises ValueError: for an event of another kind.
        """
        match event["event"]:
            case "rule":
                self._planned.append(Planned(parse(event["rule"])))
            case "no_rules":
                self._planned = []
            case "met":
                self._count(self._planned[event["number"]], applied=event["applied"])
            case other:
                raise ValueError(f"unknown event {other!r}")

    def _applies(self, number: int) -> bool:
        """Throw the dice of a rule that meets a request, and count the throw."""
        planned = self._planned[number]
        # Each throw has dice of its own, so that a restarted service goes on with the next one.
        probability, dice = planned.rule.probability, f"{self._seed}:{number}:{planned.thrown}"
        applied = probability == 1 or random.Random(dice).random() < probability
        self._note({"event": "met", "number": number, "applied": applied})
        self._count(planned, applied=applied)
        return applied

    @staticmethod
    def _count(planned: Planned, *, applied: bool) -> None:
        planned.thrown += 1
        planned.applied += applied


def _meets(planned: Planned, on: Point, prompt: str) -> bool:
    rule = planned.rule
    return rule.on == on and planned.left != 0 and (rule.match is None or rule.match in prompt)
