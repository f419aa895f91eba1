"""What would happen: read from the records, without writing and without spending."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_bitdance.engine import Estimate, Wanted, estimate, run_job
from tests.unit.support import World, a_job, a_wanted, run


def three() -> list[Wanted]:
    return [a_wanted(f"prompt {name}", key=name, name=name) for name in "abc"]


def seen(world: World, wanted: list[Wanted], **policy: Any) -> Estimate:
    context = world.context(**policy)
    disk = dict(world.disk)
    said = run(estimate(context.client, context.records, context.images, context.policy, wanted))
    assert world.disk == disk, "an estimate writes nothing"
    return said


def test_what_is_there_is_reused_and_the_rest_is_to_buy() -> None:
    world = World()
    run(run_job(world.context(), three()[:2]))
    billed = world.api.billed
    said = seen(world, three())
    assert str(said) == "2 reused, 1 to buy, about $0.01"
    assert world.api.billed == billed


def test_all_that_is_there_costs_nothing() -> None:
    world = World()
    run(run_job(world.context(), three()))
    assert str(seen(world, three())) == "3 reused, 0 to buy, about $0.00"


def test_an_image_that_is_gone_or_of_another_request_is_to_buy() -> None:
    world = World()
    run(run_job(world.context(), three()))
    world.context().images.remove("a.png")
    wanted = [*three()[:2], a_wanted("another prompt", key="c", name="c")]
    assert (seen(world, wanted).reuse, seen(world, wanted).buy) == (1, 2)


def test_to_regenerate_buys_all() -> None:
    world = World()
    run(run_job(world.context(), three()))
    assert seen(world, three(), if_exists="regenerate").buy == 3


def test_the_price_may_be_the_apis() -> None:
    world = World()
    world.api.price = 0.05
    assert seen(world, three(), live_price=True).cost_usd == pytest.approx(0.15)


@pytest.mark.parametrize(("limit", "within"), [(None, True), (0.03, True), (0.029, False)])
def test_it_says_where_the_task_would_be_refused_for_its_cost(limit: float | None, within: bool) -> None:
    said = seen(World(), three(), max_cost_usd=limit)
    assert said.is_within_budget is within
    assert ("would be refused, because max_cost_usd is $0.029" in str(said)) is not within


def test_it_speaks_of_any_run_of_the_task() -> None:
    world = World()
    run(run_job(world.context(job=a_job(run_id="another")), three()))
    assert seen(world, three()).reuse == 3
