"""A journal that somebody else has written in the right form: what it may cost, and for how long it may keep
a task waiting."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from airflow_provider_bitdance.engine import Finished, run_job
from airflow_provider_bitdance.exceptions import BudgetError, RecordUnreadableError
from airflow_provider_bitdance.records import Journal, Planned
from airflow_provider_bitdance.records.events import Rested
from airflow_provider_bitdance.records.state import LONGEST_LEASE, JobState, at_least
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    START,
    Crash,
    MemoryFolder,
    World,
    a_job,
    a_plan,
    a_wanted,
    a_writer,
    run,
)

YEAR_2096 = 3_976_000_000.0
KEYS = "abc"


@pytest.fixture
def world() -> World:
    return World()


def plant(world: World, *, price: float = 0.01, deadline: float = START + 600, rested: float = 0.0) -> None:
    """Write a journal of this task's first try, with three images, a moment ago."""
    plans = (a_plan(key, stem=key) for key in KEYS)
    images = tuple(plan.model_copy(update={"estimated_cost_usd": price}) for plan in plans)
    journal = Journal(MemoryFolder(world.disk, RECORDS), a_writer())
    more = (Rested(until=rested, window=None),) if rested else ()
    journal.claim(deadline, START, Planned(output=OUTPUT, is_batch=True, images=images), *more)
    world.clock.now += 1


def go(world: World, *, most_images: float = math.inf, try_number: int = 2, **policy: float) -> Finished:
    context = world.context(try_number=try_number, is_batch=True, **policy)
    outcome = run(run_job(replace(context, most_images=most_images), []))
    assert isinstance(outcome, Finished)
    return outcome


@pytest.mark.parametrize("price", [0.0, 0.001])
def test_a_plan_at_no_price_is_counted_at_todays(world: World, price: float) -> None:
    plant(world, price=price)
    outcome = go(world, max_cost_usd=0.02)
    assert isinstance(outcome.stopped, BudgetError)
    assert "may have spent, $0.02; another image costs about $0.01" in str(outcome.stopped)
    assert world.api.billed <= 2


def test_a_price_that_has_fallen_since_the_plan_is_counted_as_planned(world: World) -> None:
    plant(world, price=0.05)
    assert isinstance(go(world, max_cost_usd=0.12).stopped, BudgetError)
    assert world.api.billed <= 2


def test_what_is_already_bought_is_counted_at_todays_price_too(world: World) -> None:
    plant(world, price=0.0)

    def crash(step: str) -> None:
        if step == "before poll":
            raise Crash(step)

    with pytest.raises((Crash, BaseExceptionGroup)):
        run(run_job(world.context(try_number=2, is_batch=True, step=crash), []))
    bought = world.api.billed
    assert isinstance(go(world, max_cost_usd=0.01 * bought, try_number=3).stopped, BudgetError | None)
    assert world.api.billed == bought


def test_raising_prices_counts_each_purchase_once_more_and_lowers_none() -> None:
    entry = Journal(MemoryFolder({}, RECORDS), a_writer())
    entry.claim(START + 60, START, Planned(output=OUTPUT, images=(a_plan(),)))
    state = entry.state
    assert at_least(state, {}) == state
    request = a_plan().request
    raised = at_least(state, {request.kind: 0.03})
    assert raised.images["image"].plan.estimated_cost_usd == 0.03
    assert at_least(raised, {request.kind: 0.02}) == raised
    another = request.model_copy(update={"model": "another/model"})
    assert at_least(raised, {another.kind: 1.0}) == raised


@pytest.mark.parametrize(("most", "billed"), [(2, 0), (3, 3), (math.inf, 3)])
def test_of_a_plan_with_more_images_than_are_wanted_none_is_bought(
    world: World, most: float, billed: int
) -> None:
    plant(world)
    outcome = go(world, most_images=most)
    assert world.api.billed == billed
    if not billed:
        assert "has 3 images, but the task now requests 2" in str(outcome.stopped)
        assert "Nothing was charged" in str(outcome.stopped)


def test_a_planned_model_that_the_task_does_not_request_is_not_bought(world: World) -> None:
    plant(world)
    context = replace(world.context(try_number=2, is_batch=True), models=frozenset({"other/model"}))
    outcome = run(run_job(context, []))
    assert isinstance(outcome, Finished)
    assert world.api.billed == 0
    assert "which the task no longer requests" in str(outcome.stopped)
    assert "Nothing was charged" in str(outcome.stopped)


@pytest.mark.parametrize(
    "planted",
    [
        {"inputs": {"num_images": 100}},
        {"inputs": {"webhook_url": "https://example.com/"}},
        {"inputs": {"image": "https://10.0.0.1/secret.png"}},
        {"model": "../balance"},
    ],
)
def test_a_planned_request_that_nobody_may_make_is_damaged(world: World, planted: dict[str, object]) -> None:
    plant(world)
    entries = [path for path, data in world.disk.items() if b'"request"' in data]
    for path in entries:
        entry = json.loads(world.disk[path])
        for image in (image for event in entry["events"] for image in event.get("images", ())):
            image["request"] |= planted
        world.disk[path] = json.dumps(entry).encode()
    with pytest.raises(RecordUnreadableError, match=r"is damaged at .*request"):
        go(world)
    assert entries
    assert world.api.billed == 0


def test_without_a_limit_a_plan_at_no_price_is_reported_at_todays(world: World) -> None:
    plant(world, price=0.0)
    assert [result["estimated_cost_usd"] for result in go(world).results] == [0.01] * 3


def test_what_such_a_plan_has_bought_is_stored(world: World) -> None:
    plant(world)

    def crash(step: str) -> None:
        if step == "before poll":
            raise Crash(step)

    with pytest.raises((Crash, BaseExceptionGroup)):
        run(run_job(world.context(try_number=2, is_batch=True, step=crash), []))
    bought = world.api.billed
    assert bought
    outcome = go(world, most_images=1, try_number=3)
    assert len(outcome.stored) == bought == world.api.billed


def test_a_deadline_of_this_try_is_no_later_than_its_timeout(world: World) -> None:
    plant(world, deadline=YEAR_2096)
    context = world.context(try_number=1, is_batch=True, timeout=600)
    run(run_job(context, []))
    claims = [event["deadline"] for event in world.events if event["event"] == "claimed"]
    assert claims[0] == YEAR_2096
    assert all(deadline <= world.clock.now + 600 for deadline in claims[1:])


def test_a_lease_until_2096_keeps_nobody_waiting(world: World) -> None:
    """The destination of another task, that claims to be at work until then."""
    other = a_job(dag_id="another")
    with pytest.raises(Crash):
        run(
            run_job(
                world.context(job=other, step=lambda step: crash_at(step, "after create 000002")),
                [a_wanted(named=True)],
            )
        )
    (name,) = (name for name in world.disk if "another" in name and name.endswith("000001.json"))
    entry = json.loads(world.disk[name])
    entry["events"][0]["deadline"] = YEAR_2096
    world.disk[name] = json.dumps(entry).encode()

    outcome = run(run_job(world.context(timeout=60), [a_wanted(named=True)]))

    assert isinstance(outcome, Finished)
    assert outcome.results[0]["uri"].endswith("cover.png")
    assert world.clock.now < START + 300


def crash_at(step: str, name: str) -> None:
    if step == name:
        raise Crash(step)


@pytest.mark.parametrize(("ahead", "is_believed"), [(7 * 24 * 3600.0, True), (8 * 24 * 3600.0, False)])
def test_a_lease_ends_at_most_7_days_ahead(ahead: float, is_believed: bool) -> None:
    state = JobState(deadline=START + ahead)
    assert state.lease_end(START) == (START + ahead if is_believed else 0.0)


def test_an_account_that_takes_nothing_until_2096_does_not_keep_a_job_so_long(world: World) -> None:
    plant(world, rested=YEAR_2096)
    go(world, timeout=60)
    assert world.clock.now <= START + LONGEST_LEASE + 120
