"""An image of another size than was requested: stored and recorded, said once, and refused where asked.

Pictures of the fake API have 12 x 12 pixels whatever is requested.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Wanted, run_job
from airflow_provider_bitdance.exceptions import Paid, SizeMismatchError
from airflow_provider_bitdance.records import Status
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import MODELS
from tests.unit.support import OUTPUT, RECORDS, Crash, Fuse, World, a_job, a_wanted, run

FAIL: dict[str, Any] = {"on_size_mismatch": "fail"}
FIRST, SECOND = a_job(task_id="first"), a_job(dag_id="other", task_id="second", run_id="run-2")
CLEARED: dict[str, Any] = {"job": a_job(generation=1), "try_number": 2}
STORED_AT = rf"stored at {OUTPUT}/cover\.png has 12 x 12 pixels, but 1024\*1024 was requested"


@pytest.fixture
def world() -> World:
    return World(latency=0)


def go(world: World, *wanted: Wanted, named: bool = False, **options: Any) -> Finished:
    """Run one process of a job to its end."""
    outcome = run(run_job(world.context(**options), list(wanted) or [a_wanted(named=named)]))
    assert isinstance(outcome, Finished)
    return outcome


def refused(world: World, **options: Any) -> SizeMismatchError:
    with pytest.raises(SizeMismatchError, match=STORED_AT) as caught:
        go(world, **FAIL, **options)
    assert not caught.value.retry_helps
    assert 'on_size_mismatch="warn" and clear the task' in str(caught.value)
    return caught.value


def receipt(world: World) -> dict[str, Any]:
    (found,) = [data for path, data in world.disk.items() if path.startswith(f"{RECORDS}/receipts/")]
    return dict(json.loads(found))


def many(count: int) -> list[Wanted]:
    return [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(count)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [line for line in said if "pixels" in line]


# Said


def test_result_receipt_and_log_say_that_the_size_differs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (result,) = go(world).results
    assert (result["size"], result["width"], result["height"]) == ("1024*1024", 12, 12)
    assert result["size_differs"] is True
    assert receipt(world)["size_differs"] is True
    (line,) = warnings(caplog)
    assert line.startswith(f"{OUTPUT}/cover.png has 12 x 12 pixels, but 1024*1024 was requested")


def test_of_many_images_the_first_is_said_and_of_many_that_are_reused_the_first(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    go(world, *many(20), is_batch=True)
    assert len(warnings(caplog)) == 1
    caplog.clear()
    outcome = go(world, *many(20), is_batch=True, job=a_job(run_id="run-2"))
    assert len(warnings(caplog)) == 1
    assert {result["size_differs"] for result in outcome.results} == {True}
    assert world.api.billed == 20


RECRAFT, SEEDREAM = "recraft-ai/recraft-v4/text-to-image", "bytedance/seedream-v5.0-lite"


@pytest.mark.parametrize(
    ("request_", "differs"),
    [
        (ImageRequest.of(prompt="p", model=RECRAFT, size="1:1"), False),
        (ImageRequest.of(prompt="p", model=RECRAFT, size="16:9"), True),
        (ImageRequest.of(prompt="p", model=SEEDREAM, size="16:9"), True),
        (ImageRequest(prompt="p", model="a/model-without-sizes", size=None, seed=None), False),
    ],
)
def test_a_ratio_is_compared_as_a_ratio_and_without_a_size_nothing_is(
    world: World, request_: ImageRequest, differs: bool
) -> None:
    model = MODELS.get(request_.model) or MODELS[RECRAFT]
    item = Wanted(key="image", request=request_, destination=a_wanted().destination, model=model)
    (result,) = go(world, item, prices={request_.model: 0.02}).results
    assert result["size_differs"] is differs
    assert result["seed"] is None


# Refused


def test_an_image_of_another_size_is_stored_with_its_receipt_before_the_task_fails(world: World) -> None:
    error = refused(world)
    assert error.paid is Paid.YES
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}
    assert receipt(world)["size_differs"] is True
    assert world.api.billed == 1


def test_the_next_try_is_refused_by_what_is_written_down(world: World) -> None:
    refused(world)
    disk = dict(world.disk)
    refused(world, try_number=2)
    assert world.disk == disk
    assert world.api.billed == 1


@pytest.mark.parametrize("later", [{"job": a_job(run_id="run-2")}, CLEARED], ids=["a rerun", "a clear"])
def test_what_is_stored_is_refused_again_and_nothing_is_bought(world: World, later: dict[str, Any]) -> None:
    refused(world)
    refused(world, **later)
    assert world.api.billed == 1


@pytest.mark.parametrize("later", [{"job": a_job(run_id="run-2")}, CLEARED], ids=["a rerun", "a clear"])
def test_what_is_stored_is_the_result_once_a_warning_is_enough(world: World, later: dict[str, Any]) -> None:
    refused(world)
    (result,) = go(world, **later).results
    assert (result["reused"], result["size_differs"], result["estimated_cost_usd"]) == (True, True, 0.0)
    assert world.api.billed == 1


def test_a_receipt_of_format_1_is_judged_by_its_pixels(world: World) -> None:
    go(world)
    (path,) = [path for path in world.disk if path.startswith(f"{RECORDS}/receipts/")]
    written = json.loads(world.disk[path])
    del written["size_differs"]
    world.disk[path] = json.dumps(written | {"format": 1}).encode()
    refused(world, job=a_job(run_id="run-2"))
    assert world.api.billed == 1


def test_a_batch_goes_on_and_says_where_the_refused_ones_are(world: World) -> None:
    outcome = go(world, *many(3), is_batch=True, **FAIL)
    assert (outcome.stored, sorted(outcome.failures)) == ({}, ["k0", "k1", "k2"])
    assert all(isinstance(error, SizeMismatchError) for error in outcome.failures.values())
    assert {key: found["uri"] for key, found in outcome.refused.items()} == {
        f"k{n}": f"{OUTPUT}/k{n}.png" for n in range(3)
    }
    assert outcome.refused["k0"]["estimated_cost_usd"] == 0.01

    again = go(world, *many(3), is_batch=True, job=a_job(run_id="run-2"), **FAIL)
    assert sorted(again.refused) == ["k0", "k1", "k2"]
    assert again.refused["k0"]["estimated_cost_usd"] == 0.0
    assert world.api.billed == 3


def test_a_refused_image_whose_file_is_gone_is_not_said_to_be_stored(world: World) -> None:
    go(world, *many(2), is_batch=True, **FAIL)
    del world.disk[f"{OUTPUT}/k0.png"]
    outcome = go(world, *many(2), is_batch=True, try_number=2, **FAIL)
    assert (sorted(outcome.failures), sorted(outcome.refused)) == (["k0", "k1"], ["k1"])


def test_a_batch_is_not_spoiled_by_a_receipt_that_cannot_be_read(world: World) -> None:
    go(world, *many(2), is_batch=True, **FAIL)
    for path in [path for path in world.disk if path.startswith(f"{RECORDS}/receipts/")][:1]:
        world.disk[path] = b"{"
    outcome = go(world, *many(2), is_batch=True, try_number=2, **FAIL)
    assert (len(outcome.failures), len(outcome.refused)) == (2, 1)


def test_the_first_image_of_another_size_stops_a_batch_that_fails_fast(world: World) -> None:
    outcome = go(world, *many(9), is_batch=True, on_item_failure="fail_fast", max_in_flight=1, **FAIL)
    assert isinstance(outcome.stopped, SizeMismatchError)
    assert world.api.billed == 2  # one was on its way while the first was looked at


def test_a_process_that_dies_between_receipt_and_journal_leaves_a_retry_that_buys_nothing(
    world: World,
) -> None:
    steps = Fuse()
    counted = World(latency=0)
    with pytest.raises(SizeMismatchError):
        go(counted, step=steps, **FAIL)
    with pytest.raises(Crash):
        go(world, step=Fuse(at=steps.steps.index("after create receipt") + 1), **FAIL)
    refused(world, try_number=2)
    assert (world.api.billed, len(world.api.downloads)) == (1, 1)


def test_an_image_that_an_earlier_process_stored_is_judged_by_the_policy_of_now(world: World) -> None:
    go(world, *many(2), is_batch=True)
    outcome = go(world, *many(2), is_batch=True, try_number=2, **FAIL)
    assert (outcome.stored, sorted(outcome.refused)) == ({}, ["k0", "k1"])
    assert world.api.billed == 2


# Another task, and a file that is gone


def test_a_task_that_waits_for_the_same_image_judges_it_by_its_own_policy(world: World) -> None:
    refused(world, job=FIRST, named=True)
    refused(world, job=SECOND, named=True)
    third = a_job(dag_id="third", task_id="third", run_id="run-3")
    (result,) = go(world, job=third, named=True).results
    assert result["reused"] is True
    assert world.api.billed == 1


def test_a_task_that_is_refused_what_another_stored_meanwhile_buys_nothing(world: World) -> None:
    world.api.latency = 5
    for job in (FIRST, SECOND):
        run(run_job(world.context(job=job, defer_after=0.0, **FAIL), [a_wanted(named=True)]))
    world.clock.now += 5
    go(world, job=FIRST, named=True)
    refused(world, job=SECOND, named=True)
    (image,) = world.context(job=SECOND).journal.state.images.values()
    assert image.status is not Status.STORED
    assert world.api.billed == 1


@pytest.mark.parametrize("named", [False, True])
def test_a_refused_image_whose_file_is_gone_is_not_bought_again(world: World, named: bool) -> None:
    refused(world, named=named)
    del world.disk[f"{OUTPUT}/cover.png"]
    refused(world, named=named, job=a_job(run_id="run-2"))
    assert world.api.billed == 1


@pytest.mark.parametrize("gone", ["file", "file and receipt"])
def test_a_refused_image_that_is_gone_is_fetched_again_once_a_warning_is_enough(
    world: World, gone: str
) -> None:
    refused(world)
    for path in list(world.disk):
        if path.endswith(".png") or ("receipt" in gone and path.startswith(f"{RECORDS}/receipts/")):
            del world.disk[path]
    (result,) = go(world, **CLEARED).results
    assert result["size_differs"] is True
    assert world.api.billed == 1
    assert len(world.images) == 1
