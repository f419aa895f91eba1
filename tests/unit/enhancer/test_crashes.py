"""A process may die at every step between the first intent of a prompt and the plan of its image.

Each test kills the first process at one point, has fresh ones go on from what lies on the disk, and compares
the bill with what was requested and with what is reported as possibly paid.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_bitdance.engine import Finished
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError
from tests.unit.enhancer.support import ENHANCED, IMAGE_USD, TEXT_USD, attempts, possibly_paid, task, wanted
from tests.unit.support import Crash, Fuse, World, a_job, run

POINTS = [
    "before create 1.intent",
    "after create 1.intent",
    "before enhance",
    "after enhance",
    "before create 1.outcome",
    "after create 1.outcome",
    "before poll",
    "after poll",
    "before create text",
    "after create text",
    "before create 000001",
    "after create 000001",
]
"""The steps up to the plan, in order; for what follows see tests/unit/engine/test_crashes.py."""

UNSENT = POINTS[1:3]
"""Here the intent is written, and nothing is bought."""
UNANSWERED = POINTS[3:5]
"""Here the text is bought, and nothing on the disk says so."""


def go(world: World, *, crash_at: int = 0, **context: Any) -> Any:
    """Run one process; return its outcome, or ``None`` where it died."""
    try:
        return run(task(world.context(step=Fuse(crash_at), **context)))
    except Crash:
        return None


def finish(world: World, *, first_try: int = 2, **context: Any) -> dict[str, Any]:
    for try_number in range(first_try, first_try + 5):
        outcome = go(world, try_number=try_number, **context)
        if isinstance(outcome, Finished):
            (result,) = outcome.results
            return result
    raise AssertionError("never finished")


def check(world: World, result: dict[str, Any]) -> None:
    """Compare what is stored, what the result says and what was billed."""
    made = world.api.made[result["prediction_id"]]
    assert made.body["prompt"] == ENHANCED
    assert world.images == {"cover.png": made.picture}
    assert world.api.billed <= 2 + possibly_paid([result])


def test_the_points_of_this_test_are_all_that_there_are() -> None:
    fuse = Fuse()
    run(task(World(latency=1.0).context(step=fuse)))
    assert fuse.steps[: len(POINTS)] == POINTS
    assert fuse.steps[len(POINTS)] == "before POST"


@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_anywhere_the_text_is_bought_once_and_the_bill_is_explained(at: int) -> None:
    world = World(latency=1.0)
    assert go(world, crash_at=at + 1) is None
    result = finish(world)
    check(world, result)
    lost = POINTS[at] in (*UNSENT, *UNANSWERED)
    assert world.api.billed_texts == (2 if POINTS[at] in UNANSWERED else 1)
    assert (result["prompts_possibly_paid"], len(attempts(world))) == (int(lost), 1 + lost)
    assert result["estimated_cost_usd"] == pytest.approx(IMAGE_USD + TEXT_USD)
    images = 1 + result["possibly_paid"]
    spent = world.context(try_number=9).journal.state.spent_usd
    assert spent == pytest.approx(images * IMAGE_USD + (1 + lost) * TEXT_USD)


@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_and_a_clear_the_text_that_was_bought_is_found(at: int) -> None:
    world = World(latency=1.0)
    go(world, crash_at=at + 1)
    result = finish(world, job=a_job(generation=2))
    check_bought_once_or_lost(world, result, at)


@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_the_task_of_another_run_finds_it_and_pays_nothing_for_it(at: int) -> None:
    world = World(latency=1.0)
    go(world, crash_at=at + 1)
    result = finish(world, job=a_job(run_id="run-2"))
    check_bought_once_or_lost(world, result, at)
    if POINTS[at] in (*UNSENT, *UNANSWERED):  # it has waited until the lease of the first one has ended
        assert attempts(world)[1].intent.time.timestamp() >= attempts(world)[0].intent.until
    if at >= POINTS.index("after create 1.outcome"):
        assert result["estimated_cost_usd"] == IMAGE_USD


def check_bought_once_or_lost(world: World, result: dict[str, Any], at: int) -> None:
    assert world.api.made[result["prediction_id"]].body["prompt"] == ENHANCED
    assert world.api.billed_texts == (2 if POINTS[at] in UNANSWERED else 1)
    lost = [attempt for attempt in attempts(world) if attempt.is_lost]
    assert len(lost) == (POINTS[at] in (*UNSENT, *UNANSWERED))  # on record, for reconcile to list


@settings(max_examples=20)
@given(st.lists(st.integers(1, len(POINTS)), max_size=4))
def test_after_several_crashes_in_a_row(crashes: list[int]) -> None:
    world = World(latency=1.0)
    for try_number, crash_at in enumerate(crashes, start=1):
        go(world, crash_at=crash_at, try_number=try_number)
    result = finish(world, first_try=len(crashes) + 1)
    check(world, result)


@pytest.mark.parametrize("at", range(1, len(POINTS) + 1), ids=lambda at: f"{at} {POINTS[at - 1]}")
def test_a_process_that_slept_while_its_successor_did_the_job_costs_at_most_what_is_reported(at: int) -> None:
    world = World(latency=1.0)
    results: list[dict[str, Any]] = []

    def sleep_through_the_other(step: str) -> None:
        steps.append(step)
        if len(steps) == at:
            with ThreadPoolExecutor(1) as pool:
                results.append(pool.submit(lambda: finish(world)).result(timeout=30))

    steps: list[str] = []
    try:
        run(task(world.context(step=sleep_through_the_other)))
    except BitDanceError as error:
        assert isinstance(error, FencedError)  # noqa: PT017
    (result,) = results
    bought_late = POINTS[at - 1] in ("before enhance", "after enhance", "before create 1.outcome")
    assert world.api.billed_texts == 1 + bought_late
    assert world.api.billed_texts <= 1 + result["prompts_possibly_paid"]
    assert world.images == {"cover.png": world.api.made[result["prediction_id"]].picture}


def test_many_tasks_at_once_buy_one_text() -> None:
    world = World(latency=1.0)

    async def all_at_once() -> list[Any]:
        contexts = [world.context(job=a_job(map_index=number)) for number in range(6)]
        return await asyncio.gather(*(task(context, wanted()) for context in contexts))

    outcomes = run(all_at_once())
    assert all(isinstance(outcome, Finished) for outcome in outcomes)
    assert world.api.billed_texts == 1
    paid = sorted(outcome.results[0]["estimated_cost_usd"] for outcome in outcomes)
    assert sum(cost >= TEXT_USD for cost in paid) >= 1
    assert round(sum(paid), 6) == round(IMAGE_USD * (world.api.billed - 1) + TEXT_USD, 6)
