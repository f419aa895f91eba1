"""Fault rules with a probability. How rules meet requests is in the contract tests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.plan import FaultPlan

LIKELY = {"on": "balance", "kind": "reset", "probability": 0.3}


def _plan(*rules: Mapping[str, object], seed: int = 0) -> FaultPlan:
    plan = FaultPlan(seed)
    for rule in rules:
        plan.add(faults.parse(rule))
    return plan


def _applied(plan: FaultPlan, requests: int) -> list[bool]:
    return [plan.spoiler("balance") is not None for _ in range(requests)]


def test_a_rule_with_a_probability_applies_to_such_a_share_of_requests() -> None:
    assert 0.27 < sum(_applied(_plan(LIKELY), 5_000)) / 5_000 < 0.33


def test_the_dice_follow_from_seed_and_rule() -> None:
    first = _applied(_plan(LIKELY, seed=1), 100)
    assert first == _applied(_plan(LIKELY, seed=1), 100)
    assert first != _applied(_plan(LIKELY, seed=2), 100)
    assert first != _applied(_plan({**LIKELY, "on": "history"}, LIKELY, seed=1), 100)


def test_times_counts_applications_and_not_throws() -> None:
    plan = _plan({**LIKELY, "times": 5})
    assert sum(_applied(plan, 1_000)) == 5
    (planned,) = plan.all()
    assert (planned.applied, planned.left) == (5, 0)


def test_where_the_dice_say_no_the_next_rule_has_its_turn() -> None:
    plan = _plan(LIKELY, {"on": "balance", "kind": "status", "status": 503})
    kinds = [rule.kind for _ in range(100) if (rule := plan.spoiler("balance"))]
    assert len(kinds) == 100
    assert 0 < kinds.count("reset") < 100


def test_a_shape_may_have_a_probability_too() -> None:
    plan = _plan({"on": "submit", "kind": "failed", "probability": 0.5})
    shaped = [plan.shape("x") is not None for _ in range(200)]
    assert 60 < sum(shaped) < 140


@pytest.mark.parametrize("stop", range(0, 60, 7))
def test_a_replayed_plan_goes_on_with_the_next_throw(stop: int) -> None:
    events: list[Mapping[str, object]] = []
    rules = [{**LIKELY, "times": 9}, {"on": "balance", "kind": "slow", "seconds": 0, "probability": 0.5}]
    plan = FaultPlan(3, events.append)
    for rule in rules:
        plan.add(faults.parse(rule))
    for _ in range(stop):
        plan.spoiler("balance")
    again = FaultPlan(3)
    for event in events:
        again.replay(event)
    assert [planned.as_json() for planned in again.all()] == [planned.as_json() for planned in plan.all()]
    rest = [(plan.spoiler("balance"), again.spoiler("balance")) for _ in range(60)]
    assert all(first == second for first, second in rest)
    assert any(first is None for first, _ in rest)


def test_clearing_is_replayed() -> None:
    events: list[Mapping[str, object]] = []
    plan = FaultPlan(0, events.append)
    plan.add(faults.parse(LIKELY))
    plan.clear()
    again = FaultPlan(0)
    for event in events:
        again.replay(event)
    assert again.all() == []
