"""A stored image whose file is gone or was changed is never the result; it is fetched again, free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, run_job
from airflow_provider_bitdance.engine import context as context_module
from airflow_provider_bitdance.engine.context import MANY, compares_by_size
from airflow_provider_bitdance.engine.result import FRESH
from airflow_provider_bitdance.exceptions import (
    NsfwError,
    OutputError,
    Paid,
    RecordUnreadableError,
)
from airflow_provider_bitdance.records import Job
from tests.unit.support import (
    OUTPUT,
    Crash,
    World,
    a_job,
    a_wanted,
    refusal,
    run,
)
from tests.wire import httpx

ROOT = Path(__file__).parents[3]
DAY = 24 * 3600.0
FILE = f"{OUTPUT}/cover.png"
MONDAY, TUESDAY = a_job(run_id="monday"), a_job(run_id="tuesday")
CLEARED = a_job(generation=1)

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "cut": lambda data: data[:-9],
    "of the same size": lambda data: data[:-1] + b"!",
    "another tool's": lambda _: b"not an image",
}


def go(world: World, job: Job | None = None, *, named: bool = True, **options: Any) -> Finished:
    outcome = run(run_job(world.context(job=job, **options), [a_wanted(seed=-1, named=named)]))
    assert isinstance(outcome, Finished)
    return outcome


def result(outcome: Finished) -> dict[str, Any]:
    (found,) = outcome.results
    return found


def damage(world: World, how: str = "gone", path: str = FILE) -> None:
    data = DAMAGE[how](world.disk.pop(path))
    world.disk |= {} if data is None else {path: data}


def check_true(world: World, found: dict[str, Any]) -> None:
    """What is reported is what is there."""
    context = world.context()
    data = world.disk[found["uri"]]
    assert data == world.api.made[found["prediction_id"]].picture
    assert len(data) == found["bytes"]
    receipt = context.receipts.find(a_wanted(named=True).destination)
    assert receipt is not None
    assert context.is_intact(receipt)
    assert found["seed"] == world.api.made[found["prediction_id"]].body["seed"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(("job", "named"), [(TUESDAY, True), (CLEARED, True), (CLEARED, False)])
def test_a_file_that_is_not_as_it_was_stored_is_fetched_again_and_not_bought_again(
    how: str, job: Job, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    first = a_job() if job is CLEARED else MONDAY
    result(go(world, first, named=named, drawn_seed=11))
    damage(world, how)
    found = result(go(world, job, named=named, try_number=2, drawn_seed=22))
    assert (world.api.billed, found["reused"], found["estimated_cost_usd"]) == (1, True, 0.0)
    check_true(world, found)
    assert "is missing or has changed since it was stored" in caplog.text
    assert "in the meantime" not in caplog.text


@pytest.mark.parametrize("age", [8 * DAY, 1 * DAY])
@pytest.mark.parametrize("named", [True, False])
def test_what_wavespeed_has_no_more_is_bought_again(age: float, named: bool) -> None:
    world = World()
    result(go(world, named=named))
    damage(world)
    world.clock.now += age
    lost = world.api.made["pred-1"]
    lost.status = "deleted" if age < 7 * DAY else lost.status
    found = result(go(world, CLEARED, named=named, try_number=2))
    assert (world.api.billed, found["reused"], found["prediction_id"]) == (2, False, "pred-2")
    check_true(world, found)


def test_what_another_account_has_bought_is_bought_again() -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)
    world.clock.now += DAY
    world.api.on_poll = [refusal(404), refusal(404)]
    assert result(go(world, TUESDAY))["prediction_id"] == "pred-2"


def test_regenerate_buys_what_could_be_fetched_again() -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)
    found = result(go(world, TUESDAY, if_exists="regenerate"))
    assert (world.api.billed, found["prediction_id"]) == (2, "pred-2")


def test_the_lost_image_of_another_request_is_not_fetched() -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)
    other = a_wanted("a windmill", named=True)
    outcome = run(run_job(world.context(job=TUESDAY), [other]))
    assert isinstance(outcome, Finished)
    assert result(outcome)["prediction_id"] == "pred-2"


@pytest.mark.parametrize(
    "weather",
    [
        {"on_poll": [refusal(503)] * 20},
        {"on_poll": [httpx.ConnectError("down")] * 20},
        {"on_download": [refusal(503)] * 3},
        {"on_download": [httpx.ReadTimeout("slow")] * 3},
    ],
)
def test_an_outage_is_no_reason_to_buy_again(weather: dict[str, Any]) -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)
    for name, script in weather.items():
        setattr(world.api, name, list(script))
    with pytest.raises(OutputError, match="could not be fetched again") as caught:
        go(world, a_job(run_id="tuesday", generation=1))
    assert (caught.value.retry_helps, caught.value.paid) == (True, Paid.YES)
    assert 'set if_exists="regenerate"' in str(caught.value)
    world.api.on_poll, world.api.on_download = [], []
    found = result(go(world, a_job(run_id="tuesday", generation=1), try_number=2))
    assert (world.api.billed, found["reused"]) == (1, True)
    check_true(world, found)


def test_a_flagged_image_is_not_fetched_again_where_it_would_not_be_reused() -> None:
    world = World()
    world.api.next_changes = {"nsfw": True}
    result(go(world, MONDAY, nsfw="allow"))
    damage(world)
    with pytest.raises(NsfwError):
        go(world, TUESDAY)
    assert world.api.billed == 1
    assert result(go(world, a_job(run_id="wednesday"), nsfw="allow"))["reused"]


def test_two_tasks_that_miss_one_file_at_once_fetch_it_and_buy_nothing() -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)

    async def both() -> list[Any]:
        jobs = (TUESDAY, a_job(run_id="tuesday", task_id="other"))
        wanted = [a_wanted(seed=-1, named=True)]
        return await asyncio.gather(*(run_job(world.context(job=job), wanted) for job in jobs))

    outcomes = run(both())
    assert world.api.billed == 1
    assert len(world.api.downloads) == 2
    for outcome in outcomes:
        check_true(world, result(outcome))


@pytest.mark.parametrize("at", range(1, 13))
def test_wherever_the_one_that_fetches_dies_the_next_one_finishes_it(at: int) -> None:
    world, steps = World(), list[str]()
    result(go(world, MONDAY))
    damage(world)

    def dies(step: str) -> None:
        steps.append(step)
        if len(steps) == at:
            raise Crash(step)

    retried = a_job(run_id="tuesday", generation=1)
    try:
        go(world, retried, step=dies)
    except Crash:
        found = result(go(world, retried, try_number=2))
        check_true(world, found)
    else:
        assert at > len(steps)
    assert world.api.billed == 1


def stored_then_failed(world: World, count: int = 2) -> list[Any]:
    """Run a batch whose first image is refused in this try, and is made in the next one."""
    names = [f"image-{number}" for number in range(count)]
    wanted = [a_wanted(f"prompt of {name}", key=name, name=name, named=True) for name in names]
    world.api.on_post = [refusal(400, "refused")]
    outcome = run(run_job(world.context(is_batch=True, max_in_flight=1), wanted))
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == count - 1
    return wanted


@pytest.mark.parametrize("count", [3, MANY + 2])
@pytest.mark.parametrize("how", ["gone", "cut", "of the same size"])
def test_a_retry_reports_nothing_as_stored_that_was_lost_since_an_earlier_try(how: str, count: int) -> None:
    world = World()
    wanted = stored_then_failed(world, count)
    damage(world, how, f"{OUTPUT}/image-2.png")
    outcome = run(run_job(world.context(is_batch=True, try_number=2), wanted))
    assert isinstance(outcome, Finished)
    assert (len(outcome.stored), outcome.failures, world.api.billed) == (count, {}, count)
    for found in outcome.results:
        assert world.disk[found["uri"]] == world.api.made[found["prediction_id"]].picture
        assert not found["reused"]


def test_what_a_retry_cannot_fetch_again_is_a_failure_of_that_image_alone() -> None:
    world = World()
    wanted = stored_then_failed(world, 3)
    damage(world, path=f"{OUTPUT}/image-2.png")
    world.clock.now += 8 * DAY
    outcome = run(run_job(world.context(is_batch=True, try_number=2), wanted))
    assert isinstance(outcome, Finished)
    assert list(outcome.stored) == ["image-0", "image-1"]
    error = outcome.failures["image-2"]
    assert isinstance(error, RecordUnreadableError)
    assert "its file is missing or has changed since. Clear the task to make the image again" in str(error)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_task_that_lost_its_xcom_and_its_file_does_not_report_it_as_stored(how: str) -> None:
    world = World()
    result(go(world, named=False))
    damage(world, how)
    found = result(go(world, named=False, try_number=2))
    assert world.disk[FILE] == world.api.made["pred-1"].picture
    assert (world.api.billed, found["prediction_id"]) == (1, "pred-1")


def test_of_many_a_file_of_the_same_size_passes_for_the_one_that_was_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands are not read again: docs/how-to/batches.md says so."""
    assert "more than 1,000 images" in (ROOT / "docs/how-to/batches.md").read_text()
    assert compares_by_size(1001)
    assert not compares_by_size(1000)
    monkeypatch.setattr(context_module, "MOST_READ", MANY + 1)
    world = World()
    wanted = stored_then_failed(world, MANY + 2)
    damage(world, "of the same size", f"{OUTPUT}/image-2.png")
    outcome = run(run_job(world.context(is_batch=True, try_number=2), wanted))
    assert isinstance(outcome, Finished)
    assert world.disk[f"{OUTPUT}/image-2.png"] != world.api.made["pred-3"].picture


def test_a_file_is_read_once_a_process_to_compare_it() -> None:
    world = World()
    result(go(world, MONDAY))
    context, read = world.context(job=TUESDAY), list[str]()
    original = context.images.read
    context.images.read = lambda name: [read.append(name), original(name)][1]  # type: ignore[method-assign]
    outcome = run(run_job(context, [a_wanted(seed=-1, named=True)]))
    assert isinstance(outcome, Finished)
    assert result(outcome)["reused"]
    assert read == ["cover.png"]


def test_a_file_that_changes_after_the_plan_is_not_reported() -> None:
    world = World()
    result(go(world, MONDAY))

    def somebody_deletes(step: str) -> None:
        if step == "after create 000001" and FILE in world.disk:
            damage(world)

    found = result(go(world, TUESDAY, step=somebody_deletes))
    check_true(world, found)
    assert world.api.billed == 1


def test_a_prediction_that_has_not_ended_is_no_reason_to_buy_again() -> None:
    world = World()
    result(go(world, MONDAY))
    damage(world)
    world.api.made["pred-1"].status = "processing"
    with pytest.raises(OutputError, match="did not return the final status of prediction pred-1"):
        go(world, TUESDAY)
    assert world.api.billed == 1


def test_a_receipt_that_names_a_prediction_of_another_request_does_not_bring_its_picture() -> None:
    world = World()
    run(run_job(world.context(), [a_wanted("a windmill", seed=8, name="other", named=True)]))
    result(go(world, MONDAY))
    damage(world)
    context, place = world.context(), a_wanted(named=True).destination
    receipt = context.receipts.find(place)
    assert receipt is not None
    context.receipts.write(place, receipt.model_copy(update={"prediction_id": "pred-1"}))
    world.api.echo = "poll"
    found = result(go(world, TUESDAY))
    assert (found["prediction_id"], world.api.billed) == ("pred-3", 3)
    check_true(world, found)


def test_a_batch_of_more_than_ten_minutes_looks_again_at_what_it_has_stored_itself() -> None:
    world = World()
    wanted = [a_wanted(name, key=name, name=name, named=True) for name in "abc"]

    def somebody_deletes(step: str) -> None:
        if step == "before replace c.png":
            damage(world, path=f"{OUTPUT}/a.png")
            world.clock.now += FRESH + 1

    outcome = run(run_job(world.context(is_batch=True, max_in_flight=1, step=somebody_deletes), wanted))
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == world.api.billed == 3
    for found in outcome.results:
        assert world.disk[found["uri"]] == world.api.made[found["prediction_id"]].picture
