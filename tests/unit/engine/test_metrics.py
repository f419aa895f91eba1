"""What is counted, event by event."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_provider_bitdance.engine import run_job
from airflow_provider_bitdance.exceptions import PredictionFailedError
from tests.unit.support import World, a_job, a_wanted, run


def counted(world: World, **context: Any) -> dict[str, int]:
    counter: Counter[str] = Counter()

    def count(name: str, number: int) -> None:
        counter[name.removeprefix("bitdance.")] += number

    run(run_job(world.context(count=count, **context), [a_wanted()]))
    return dict(counter)


def test_a_bought_image_counts_with_its_cost() -> None:
    assert counted(World()) == {"bought": 1, "estimated_cost_micro_usd": 10_000, "stored": 1}


def test_a_reused_image_costs_nothing() -> None:
    world = World()
    counted(world)
    assert counted(world, job=a_job(run_id="another")) == {"reused": 1}


def test_an_adopted_image_costs_nothing_here() -> None:
    world = World(latency=50)
    run(run_job(world.context(defer_after=1.0), [a_wanted()]))
    assert counted(world, job=a_job(generation=1), try_number=2) == {"adopted": 1, "stored": 1}


def test_a_lost_response_counts_as_possibly_paid() -> None:
    world = World()
    world.api.on_post = [world.api.lose_answer]
    assert counted(world)["possibly_paid"] == 1


def test_a_failed_prediction_counts() -> None:
    world = World()
    world.api.next_changes = {"status": "failed", "code": 5000}
    counter: Counter[str] = Counter()
    context = world.context(count=lambda name, number: counter.update({name: number}))
    with pytest.raises(PredictionFailedError):
        run(run_job(context, [a_wanted()]))
    assert counter["bitdance.failed"] == 1
