"""Fault rules with a probability. How rules meet requests is in the contract tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.database import Database
from airflow_provider_bitdance.local.fault_plan import FaultPlan

LIKELY = {"on": "balance", "kind": "reset", "probability": 0.3}


def _plan(*rules: Mapping[str, object], seed: int = 0, database: Database | None = None) -> FaultPlan:
    plan = FaultPlan(database or Database(None), seed=seed)
    for rule in rules:
        plan.add(faults.parse(rule))
    return plan


def _applied(plan: FaultPlan, requests: int) -> list[bool]:
    return [plan.for_response("balance") is not None for _ in range(requests)]


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
    kinds = [rule.kind for _ in range(100) if (rule := plan.for_response("balance"))]
    assert len(kinds) == 100
    assert 0 < kinds.count("reset") < 100


def test_a_rule_about_predictions_may_have_a_probability_too() -> None:
    plan = _plan({"on": "submit", "kind": "failed", "probability": 0.5})
    shaped = [plan.for_prediction("x") is not None for _ in range(200)]
    assert 60 < sum(shaped) < 140


@pytest.mark.parametrize("stop", range(0, 60, 7))
def test_a_plan_read_from_the_database_goes_on_with_the_next_throw(tmp_path: Path, stop: int) -> None:
    database = Database(tmp_path / "state")
    rules = [{**LIKELY, "times": 9}, {"on": "balance", "kind": "slow", "seconds": 0, "probability": 0.5}]
    plan = _plan(*rules, seed=3, database=database)
    for _ in range(stop):
        plan.for_response("balance")
    again = FaultPlan(Database(None), database.load().rules, seed=3)
    assert again.all() == plan.all()
    rest = [(plan.for_response("balance"), again.for_response("balance")) for _ in range(60)]
    assert all(first == second for first, second in rest)
    assert any(first is None for first, _ in rest)


def test_cleared_rules_are_cleared_in_the_database_too(tmp_path: Path) -> None:
    database = Database(tmp_path / "state")
    plan = _plan(LIKELY, database=database)
    assert len(database.load().rules) == 1
    plan.clear()
    assert (plan.all(), database.load().rules) == ([], [])
