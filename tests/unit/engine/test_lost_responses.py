"""What becomes of an intent without a response: proof, doubt, nothing in the history, no history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_bitdance.engine import Finished, JobContext, run_job
from airflow_provider_bitdance.engine.lost_response_decisions import SEARCH_PAUSES
from airflow_provider_bitdance.engine.lost_responses import (
    READING_PAUSES,
    recover_noted,
    resolve_intents,
)
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.engine.settlement import settle_losses
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    FencedError,
    LostResponseError,
    Paid,
    ServerError,
    StorageError,
)
from airflow_provider_bitdance.records import (
    Adopted,
    Failed,
    Failure,
    ImageState,
    Intended,
    Journal,
    Lost,
    NotCreated,
    Planned,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.base import LARGEST_FILE
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import OUTPUT, World, a_job, a_plan, a_request, a_wanted, envelope, refusal, run
from tests.wire import httpx

SENT = {"prompt": "a lighthouse at dawn", "size": "1024*1024", "seed": 7}

PLANTED: dict[str, Callable[[Path], object]] = {
    "deep": lambda entry: entry.write_bytes(b"[" * 100_000),
    "a time before all times": lambda entry: entry.write_bytes(b'{"time": "0001-01-01T00:00:00+14:00"}'),
    "a pipe": os.mkfifo,
    "a link": lambda entry: entry.symlink_to("/dev/zero"),
    "too large": lambda entry: entry.touch() or os.truncate(entry, LARGEST_FILE + 1),
}
"""What somebody may put in the place of another task's entry."""
NO_FILES = ("a pipe", "a link", "too large")


@pytest.fixture
def world() -> World:
    return World()


def left_open(world: World, *keys: str, seeds: tuple[int, ...] = (7,), **context: Any) -> JobContext:
    """Return a process that has claimed a job with open intents of an earlier one."""
    names = keys or ("image",)
    plans = tuple(
        a_plan(key, seed=seed, stem=key)
        for key, seed in zip(names, seeds * len(names) if len(seeds) == 1 else seeds, strict=False)
    )
    opened = world.context(**context)
    opened.journal.claim(
        world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=plans), Intended(keys=names)
    )
    return opened


def resolved(world: World, process: JobContext, **options: Any) -> list[str]:
    """Find out what became of the open intents, and return the events that came of it."""
    before = len(world.event_names)
    run(resolve_intents(process, process.journal, **options))
    return world.event_names[before:]


def bought_later(world: World, *, after: float = 70.0, age: float = 100.0) -> str:
    """Let another task of the Dag run buy, so many seconds later, and some time pass."""
    world.clock.now += after
    sibling = world.context(job=a_job(task_id="later"))
    made = world.api.create({"prompt": "a later one", "seed": 99, "size": "512*512"})
    sibling.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(a_plan(),)))
    sibling.journal.append(world.clock.now, Intended(keys=("image",)))
    sibling.journal.append(world.clock.now, Submitted(key="image", prediction_id=made.id))
    world.clock.now += age
    return made.id


def settled(process: JobContext) -> int:
    """Settle the losses that can be, and return how many were."""
    before = process.journal.state
    run(settle_losses(process))
    return sum(image.possibly_paid for image in before.images.values()) - sum(
        image.possibly_paid for image in process.journal.state.images.values()
    )


def echoed(**changed: Any) -> Prediction:
    return Prediction(id="p-1", input=SENT | changed)


@pytest.mark.parametrize(
    ("prediction", "proof"),
    [
        (echoed(), Proof.OURS),
        (Prediction(id="p-1", input={"prompt": SENT["prompt"], "seed": 7}), Proof.OURS),
        (echoed(guidance=3), Proof.OURS),
        (echoed(seed="7", size="1024x1024", prompt="  a lighthouse\nat dawn "), Proof.OURS),
        (echoed(size=None), Proof.OURS),
        (echoed(seed=8, prompt="another"), Proof.ANOTHER),
        (echoed(seed=8), Proof.SIMILAR),
        (echoed(seed=True), Proof.SIMILAR),
        (echoed(seed=None, prompt="another"), Proof.SIMILAR),
        (echoed(prompt="another"), Proof.SIMILAR),
        (echoed(prompt="a lighthouse"), Proof.SIMILAR),
        (echoed(size="512*512"), Proof.SIMILAR),
        (Prediction(id="p-1"), Proof.NONE),
        (Prediction(id="p-1", input={}), Proof.NONE),
        (Prediction(id="p-1", input={"size": SENT["size"]}), Proof.NONE),
        (Prediction(id="p-1", input={"prompt": SENT["prompt"]}), Proof.SIMILAR),
        (Prediction(id="p-1", input={"seed": 7}), Proof.SIMILAR),
    ],
)
def test_prompt_and_seed_together_are_proof(prediction: Prediction, proof: Proof) -> None:
    assert proof_of(prediction, a_request()) is proof


@pytest.mark.parametrize("echo", ["history", "poll"])
def test_a_proven_prediction_is_adopted_at_the_first_look(world: World, echo: Any) -> None:
    world.api.echo = echo
    process = left_open(world)
    world.api.create(SENT)
    assert resolved(world, process) == ["submitted"]
    assert (process.journal.state.images["image"].prediction_id, world.clock.slept) == ("pred-1", [])


def test_a_proven_prediction_is_adopted_also_where_a_replaced_process_has_noted_it(world: World) -> None:
    world.api.echo = "history"
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)
    replaced.journal.load()
    replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
    assert resolved(world, process) == ["submitted"]
    image = process.journal.state.images["image"]
    assert (image.prediction_id, image.possibly_paid) == (made.id, 0)


@pytest.mark.parametrize("is_shown", [True, False])
@pytest.mark.parametrize("is_next", [True, False])
def test_what_a_replaced_process_has_noted_of_an_open_intent_is_taken_without_a_search(
    world: World, *, is_next: bool, is_shown: bool
) -> None:
    """It had the response; by the process that replaced it, or by one after that."""
    world.api.echo = "history" if is_shown else None
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)
    replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
    if not is_next:
        process = world.context()
        process.journal.claim(world.clock.now + 600, world.clock.now)
    assert resolved(world, process) == ["submitted"]
    image = process.journal.state.images["image"]
    assert (image.prediction_id, image.possibly_paid, world.api.histories) == (made.id, 0, [])


@pytest.mark.parametrize("is_shown", [False, True])
def test_a_response_that_a_replaced_process_notes_during_the_search_ends_it(
    world: World, *, is_shown: bool
) -> None:
    """Also where the history shows what was bought before the response arrives, without its inputs."""
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)

    def late(request: httpx.Request) -> httpx.Response:
        replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
        return world.api.listed(request) if is_shown else envelope({"page": 1, "items": []})

    world.api.on_history = [late]
    assert resolved(world, process) == ["submitted"]
    listings = [asked["page"] for asked in world.api.histories].count(1)
    assert (world.clock.slept, listings) == ([SEARCH_PAUSES[0]], 1)


@pytest.mark.parametrize("on_lost_response", ["buy_again", "fail"])
def test_what_a_replaced_process_notes_after_its_intent_was_given_up_is_not_bought_again(
    world: World, on_lost_response: str
) -> None:
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)
    process.journal.append(world.clock.now, Lost(key="image", reason="x"))
    replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
    outcome = run(run_job(world.context(on_lost_response=on_lost_response), [a_wanted()]))
    assert isinstance(outcome, Finished)
    assert (outcome.results[0]["prediction_id"], outcome.results[0]["possibly_paid"]) == (made.id, 0)
    assert (world.api.posts, world.api.billed) == ([], 1)


@pytest.mark.parametrize("try_number", [1, 2])
def test_what_a_replaced_process_notes_for_an_image_that_failed_since_is_not_bought_again(
    world: World, try_number: int
) -> None:
    """In the try in which it failed nothing is bought, so nothing takes its place either."""
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)
    again = (Intended(keys=("image",)), Submitted(key="image", prediction_id="pred-9"))
    failed = Failed(key="image", failure=Failure.FAILED, reason="no GPU")
    process.journal.append(world.clock.now, Lost(key="image", reason="x"), *again, failed)
    replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
    later = world.context(try_number=try_number, is_batch=True)
    outcome = run(run_job(later, [a_wanted()]))
    assert isinstance(outcome, Finished)
    assert [image["prediction_id"] for image in outcome.results] == [made.id] * (try_number - 1)
    assert (world.api.posts, world.api.billed) == ([], 1)


def test_a_note_of_what_another_image_has_taken_for_its_own_is_left_alone(world: World) -> None:
    replaced, process = left_open(world, "image", "other"), world.context()
    found = Submitted(key="other", prediction_id="pred-1", found=True)
    process.journal.claim(world.clock.now + 600, world.clock.now, Lost(key="image", reason="x"), found)
    replaced.journal.note(world.clock.now, key="image", prediction_id="pred-1", intent=1)
    process.journal.read_notes()
    assert run(recover_noted(process)) == []


def test_a_note_that_cannot_be_taken_ends_the_buying(world: World) -> None:
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    process.journal.append(world.clock.now, Lost(key="image", reason="x"))
    replaced.journal.note(world.clock.now, key="image", prediction_id=world.api.create(SENT).id, intent=1)

    def full(step: str) -> None:
        if step == "before create 000004":
            raise StorageError("full")

    with pytest.raises(StorageError, match="full"):
        run(run_job(world.context(step=full), [a_wanted()]))
    assert world.api.posts == []


def test_notes_that_cannot_be_listed_for_a_moment_are_listed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced, process = left_open(world), world.context()
    process.journal.claim(world.clock.now + 600, world.clock.now)
    made = world.api.create(SENT)
    replaced.journal.note(world.clock.now, key="image", prediction_id=made.id, intent=1)
    names, failures = process.records.names, [StorageError("503")] * len(READING_PAUSES)

    def flaky(below: str) -> list[str]:
        if failures and below.endswith("/notes"):
            raise failures.pop()
        return names(below)

    monkeypatch.setattr(process.records, "names", flaky)
    assert resolved(world, process) == ["submitted"]
    assert world.api.histories == []


def test_a_note_of_an_earlier_intent_is_no_response_to_the_open_one(world: World) -> None:
    process = left_open(world)
    process.journal.append(world.clock.now, Lost(key="image", reason="x"), Intended(keys=("image",)))
    process.journal.note(world.clock.now, key="image", prediction_id="pred-early", intent=1)
    after = world.context()
    after.journal.claim(world.clock.now + 600, world.clock.now)
    assert resolved(world, after) == ["lost"]


@pytest.mark.parametrize(
    ("changed", "doubtful"),
    [
        ({"seed": 8, "prompt": "another"}, 0),
        ({"seed": 8}, 1),
        ({"prompt": "another"}, 1),
    ],
)
def test_a_prediction_whose_prompt_and_seed_both_differ_is_not_ours_and_one_that_shares_either_is_in_doubt(
    world: World, changed: dict[str, Any], doubtful: int
) -> None:
    world.api.echo = "history"
    process = left_open(world)
    world.api.create(SENT | changed)
    assert resolved(world, process) == ["lost"]
    assert len(process.coordination.doubted) == doubtful


def test_a_prediction_that_shows_late_is_found(world: World) -> None:
    """It is in the history a moment after the response was lost, not at once."""
    world.api.echo = "history"
    process = left_open(world)
    world.api.on_history = [envelope({"page": 1, "items": []})] * 2
    world.api.create(SENT)
    assert resolved(world, process) == ["submitted"]
    assert world.clock.slept == list(SEARCH_PAUSES[:2])


def test_an_empty_history_proves_nothing_and_leaves_the_image_possibly_paid(world: World) -> None:
    process = left_open(world)
    assert resolved(world, process) == ["lost"]
    assert world.clock.slept == list(SEARCH_PAUSES)
    assert process.journal.state.images["image"].possibly_paid == 1
    assert "proves nothing" in world.events[-1]["reason"]


def test_what_was_made_before_the_intent_is_not_ours(world: World) -> None:
    world.api.echo = "history"
    world.api.create(SENT)
    world.clock.now += 60
    process = left_open(world)
    assert resolved(world, process) == ["lost"]
    assert not process.coordination.doubted


def test_what_the_job_has_bought_before_is_not_found_again(world: World) -> None:
    """It failed, and is bought anew at once, with the same prompt and seed."""
    world.api.echo = "history"
    process = left_open(world)
    process.journal.append(world.clock.now, Submitted(key="image", prediction_id=world.api.create(SENT).id))
    failed = Failed(key="image", failure=Failure.FAILED, reason="no luck")
    process.journal.append(world.clock.now, failed, Intended(keys=("image",)))
    assert resolved(world, process) == ["lost"]


@pytest.mark.parametrize("skew", [-3600.0, -30.0, 30.0, 3600.0])
@pytest.mark.parametrize(("made", "became"), [("after", "submitted"), ("before", "lost")])
def test_the_api_s_clock_may_be_wrong_by_an_hour(world: World, skew: float, made: str, became: str) -> None:
    world.api.echo, world.api.skew = "history", skew
    if made == "before":
        world.api.create(SENT)
        world.clock.now += 20
    process = left_open(world)
    if made == "after":
        world.clock.now += 1
        world.api.create(SENT)
    assert resolved(world, process) == [became]


def test_every_page_of_the_history_is_read(world: World) -> None:
    world.api.echo = "history"
    process = left_open(world)
    world.api.create(SENT)
    for seed in range(100, 100 + 200):
        world.api.create(SENT | {"seed": seed})
    assert resolved(world, process) == ["submitted"]
    assert [asked["page"] for asked in world.api.histories] == [1, 2, 3, 4]  # the last one has nothing new


def test_where_the_api_echoes_nothing_one_prediction_is_looked_at_and_no_more(world: World) -> None:
    process = left_open(world)
    for _ in range(5):
        world.api.create(SENT)
    assert resolved(world, process, keys={"image"}) == ["lost"]
    assert len(world.api.polls) == 1


def test_doubt_is_written_down_with_its_cost_and_the_log_names_what_it_may_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    process = left_open(world)
    world.api.create(SENT)
    with caplog.at_level(logging.WARNING):
        assert resolved(world, process) == ["lost"]
    assert "possibly paid, about $0.01" in caplog.text
    assert "pred-1" in caplog.text
    assert "pred-1" not in world.events[-1]["reason"], "a journal that names it seems to have bought it"
    assert process.journal.state.images["image"].possibly_paid == 1


def test_what_other_tasks_of_the_run_have_bought_is_not_in_doubt(world: World) -> None:
    process = left_open(world)
    sibling = world.context(job=a_job(map_index=3))
    plan = Planned(output=OUTPUT, images=(a_plan(),))
    made = world.api.create(SENT)
    sibling.journal.claim(world.clock.now + 600, world.clock.now, plan, Intended(keys=("image",)))
    sibling.journal.append(world.clock.now, Submitted(key="image", prediction_id=made.id))
    resolved(world, process)
    assert not process.coordination.doubted


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_another_task_of_the_run_has_bought_is_not_in_doubt_whatever_it_wrote_before_and_since(
    world: World, is_damaged: bool
) -> None:
    sibling = world.context(job=a_job(task_id="another"))
    plan = Planned(output=OUTPUT, images=(a_plan(),))
    sibling.journal.claim(world.clock.now + 600, world.clock.now, plan)
    world.clock.now += 3600
    process = left_open(world)
    sibling.journal.append(world.clock.now, Intended(keys=("image",)))
    sibling.journal.append(world.clock.now, Submitted(key="image", prediction_id=world.api.create(SENT).id))
    sibling.journal.append(world.clock.now + 5, Stored(key="image", receipt="mem://r"))
    if is_damaged:
        world.disk[f"{sibling.journal.uri}/000004.json"] = b"{"
    run(resolve_intents(process, process.journal))
    assert not process.coordination.doubted


@pytest.mark.parametrize("kind", ["deep", "a time before all times", "a pipe", "a link", "too large"])
def test_a_damaged_entry_of_another_task_does_not_end_the_search_and_is_said_once(
    world: World, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.echo = "history"
    process = replace(left_open(world), records=LocalFolder(tmp_path))
    for number in ("000001", "000002"):
        entry = tmp_path / a_job(task_id="other").folder / f"{number}.json"
        entry.parent.mkdir(parents=True, exist_ok=True)
        PLANTED[kind](entry)
    world.api.create(SENT)

    run(resolve_intents(process, process.journal))

    assert process.journal.state.images["image"].prediction_id == "pred-1"
    assert caplog.text.count("without the record of another task") == (
        kind in ("a pipe", "a link", "too large")
    )


def test_what_a_replaced_process_of_another_task_notes_is_not_ours_whatever_it_noted_before(
    world: World,
) -> None:
    world.api.echo = "history"
    sibling = world.context(job=a_job(map_index=3))
    sibling.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(a_plan(),)))
    sibling.journal.note(world.clock.now, key="image", prediction_id="pred-9", intent=1)
    world.clock.now += 3600
    process = left_open(world)
    sibling.journal.note(world.clock.now, key="image", prediction_id=world.api.create(SENT).id, intent=2)
    run(resolve_intents(process, process.journal))
    image = process.journal.state.images["image"]
    assert (image.status, image.prediction_id) == (Status.PLANNED, "")


def test_of_two_intents_of_one_request_each_gets_a_prediction_of_its_own(world: World) -> None:
    world.api.echo = "history"
    process = left_open(world, "a", "b")
    world.api.create(SENT)
    world.api.create(SENT)
    assert resolved(world, process) == ["submitted", "submitted"]
    assert {image.prediction_id for image in process.journal.state.images.values()} == {"pred-1", "pred-2"}


@pytest.mark.parametrize(
    ("intents", "made", "lost"), [("a", 3, 1), ("ab", 1, 1), ("abc", 2, 2), ("ab", 2, 2)]
)
def test_no_more_stay_possibly_paid_than_there_are_predictions_that_could_be_ours(
    world: World, intents: str, made: int, lost: int
) -> None:
    process = left_open(world, *intents)
    for _ in range(made):
        world.api.create(SENT)
    assert resolved(world, process) == ["lost"] * len(intents)
    bought_later(world)
    assert settled(process) == len(intents) - lost
    assert sum(image.possibly_paid for image in process.journal.state.images.values()) == lost


def a_minute_apart(world: World) -> JobContext:
    """Return a process with two open intents, of images of one request."""
    process = world.context()
    plan = Planned(output=OUTPUT, images=(a_plan("early", stem="a"), a_plan("late", stem="b")))
    process.journal.claim(world.clock.now + 600, world.clock.now, plan, Intended(keys=("early",)))
    world.clock.now += 60
    process.journal.append(world.clock.now, Intended(keys=("late",)))
    return process


def test_of_two_intents_a_minute_apart_the_one_that_was_open_then_is_possibly_paid(world: World) -> None:
    process = a_minute_apart(world)
    world.api.create(SENT)
    resolved(world, process)
    bought_later(world)
    settled(process)
    images = process.journal.state.images
    assert {key: image.possibly_paid for key, image in images.items()} == {"early": 0, "late": 1}


def test_the_history_is_read_since_the_first_of_several_intents(world: World) -> None:
    world.api.echo = "history"
    world.api.create(SENT)
    process = a_minute_apart(world)
    assert resolved(world, process) == ["submitted", "lost"]
    assert process.journal.state.images["early"].prediction_id == "pred-1"


def test_a_prediction_of_which_the_history_says_no_time_leaves_doubt(world: World) -> None:
    process = left_open(world)
    made = world.api.create(SENT)
    timeless = envelope({"page": 1, "items": [{"id": made.id, "status": "completed"}]})
    world.api.on_history = [timeless] * (len(SEARCH_PAUSES) + 1)
    assert resolved(world, process) == ["lost"]


def test_of_another_tasks_journal_only_the_entries_of_that_time_are_read(world: World) -> None:
    sibling = world.context(job=a_job(map_index=3))
    sibling.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(a_plan(),)))
    for _ in range(30):
        sibling.journal.claim(world.clock.now + 600, world.clock.now)
    world.clock.now += 3600
    process = left_open(world)
    world.api.create(SENT)
    read: list[str] = []
    original = process.records.read

    def reading(name: str) -> bytes | None:
        read.append(name)
        return original(name)

    process.records.read = reading  # type: ignore[method-assign]
    resolved(world, process, keys={"image"})
    assert len([name for name in read if "map=3" in name]) == 1


def test_several_intents_each_get_their_own_prediction(world: World) -> None:
    world.api.echo = "history"
    process = left_open(world, "a", "b", "c", seeds=(1, 2, 3))
    for seed in (3, 1):
        world.api.create(SENT | {"seed": seed})
    assert sorted(resolved(world, process)) == ["lost", "submitted", "submitted"]
    images = process.journal.state.images
    assert [images[key].prediction_id for key in "abc"] == ["pred-2", "", "pred-1"]


def test_the_same_request_twice_in_the_history_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.echo = "history"
    process = left_open(world)
    world.api.create(SENT)
    world.api.create(SENT)
    with caplog.at_level(logging.WARNING):
        assert resolved(world, process) == ["submitted"]
    assert "more than once; also collectable: pred-2" in caplog.text


def test_a_loss_is_not_explained_by_a_prediction_that_a_later_intent_may_need(world: World) -> None:
    """Each prediction stands for one loss: the oldest first, for only an early intent can have made it."""
    process = left_open(world, "early", "late")
    process.journal.append(world.clock.now, NotCreated(key="late", reason="429"))
    world.api.create(SENT)  # for the early one
    world.clock.now += 60
    process.journal.append(world.clock.now, Intended(keys=("late",)))
    world.api.create(SENT)  # for the late one
    run(resolve_intents(process, process.journal, {"early"}))
    run(resolve_intents(process, process.journal, {"late"}))
    images = process.journal.state.images
    assert {key: image.possibly_paid for key, image in images.items()} == {"early": 1, "late": 1}


# What a later listing settles


def lost(world: World, *keys: str, **options: Any) -> JobContext:
    """Return a process with purchases that are recorded as lost, and of which the history shows nothing."""
    process = left_open(world, *keys, **options)
    assert set(resolved(world, process)) == {"lost"}
    return process


def test_a_purchase_of_a_fast_clock_stays_counted_when_the_clock_is_right_again(world: World) -> None:
    fast = 120.0
    world.clock.now += fast
    world.api.skew = -fast

    def lose(request: httpx.Request) -> None:
        world.api.create(json.loads(request.content))
        world.clock.now -= fast
        world.api.skew = 0
        raise httpx.ReadTimeout("lost")

    world.api.on_post.append(lose)
    run(run_job(world.context(timeout=3600), [a_wanted()]))
    assert world.unconfirmed == 1

    assert world.settle() == 1


def test_a_loss_that_is_not_in_a_listing_with_a_later_purchase_was_not_made(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    process = lost(world)
    bought_later(world)
    with caplog.at_level(logging.INFO):
        assert settled(process) == 1
    assert process.journal.state.images["image"].possibly_paid == 0
    assert process.journal.state.spent_usd == 0
    assert "1 never led to a purchase" in caplog.text


def test_a_purchase_of_the_job_itself_serves_as_well(world: World) -> None:
    process = lost(world)
    process.journal.append(world.clock.now, Intended(keys=("image",)))
    process.journal.append(world.clock.now, Submitted(key="image", prediction_id=world.api.create(SENT).id))
    world.clock.now += 100
    assert settled(process) == 1


def test_a_loss_that_a_replaced_process_has_noted_does_not_account_for_another_one(world: World) -> None:
    process = left_open(world, "lost")
    world.api.create(SENT)
    resolved(world, process)
    world.clock.now += 1
    process.journal.append(world.clock.now, Intended(keys=("lost",)))
    noted, after = world.api.create(SENT | {"seed": 8}), world.context()
    after.journal.claim(world.clock.now + 600, world.clock.now)

    def late(_: httpx.Request) -> httpx.Response:
        """Answer the last search, during which the note comes."""
        process.journal.note(world.clock.now, key="lost", prediction_id=noted.id, intent=2)
        return envelope({"page": 1, "items": []})

    world.api.on_history = [envelope({"page": 1, "items": []})] * len(SEARCH_PAUSES) + [late]
    assert resolved(world, after) == ["lost"]
    bought_later(world)
    assert settled(after) == 0


def test_what_the_history_shows_of_others_says_nothing_of_ours(world: World) -> None:
    process = lost(world)
    world.clock.now += 70
    world.api.echo = "history"
    world.api.create({"prompt": "another", "seed": 99})
    world.clock.now += 100
    assert settled(process) == 0


@pytest.mark.parametrize(
    ("after", "age"), [(59.0, 1000.0), (70.0, 80.0)], ids=["a late request may be later", "too young"]
)
def test_a_purchase_that_was_made_too_soon_or_only_now_says_nothing(
    world: World, after: float, age: float
) -> None:
    process = left_open(world)
    process.journal.append(world.clock.now, Lost(key="image", reason="x", given_up_at=world.clock.now))
    bought_later(world, after=after, age=age)
    assert settled(process) == 0


def test_a_row_that_cannot_be_read_may_be_ours(world: World) -> None:
    process = lost(world)
    later = bought_later(world)
    when = datetime.fromtimestamp(world.api.made[later].created, UTC).isoformat()
    rows = [{"id": later, "created_at": when, "status": "completed"}, {"id": None}]
    world.api.on_history = [envelope({"page": 1, "items": rows})] * 2
    assert settled(process) == 0


def hidden(world: World, body: dict[str, Any]) -> str:
    """Let the API make something that its history never shows."""
    made = world.api.create(body)
    world.api.hidden.add(made.id)
    return made.id


def test_a_charge_that_the_history_does_not_show_may_be_ours(world: World) -> None:
    process = lost(world)
    hidden(world, SENT)
    bought_later(world)
    assert settled(process) == 0


def test_a_charge_that_is_proven_to_be_another_s_or_of_another_model_is_not_ours(world: World) -> None:
    process = lost(world)
    world.api.echo = "poll"
    hidden(world, {"prompt": "another", "seed": 99})
    of_another_model = hidden(world, SENT)
    later = bought_later(world)
    world.api.on_poll = [envelope({"id": of_another_model, "model": "wavespeed-ai/flux-dev"})]
    assert settled(process) == 1
    assert later not in [asked for asked, _ in world.api.polls]


def test_a_purchase_that_is_not_on_the_bill_does_not_show_that_the_bill_is_up(world: World) -> None:
    process = lost(world)
    bought_later(world)
    world.api.on_bill = [envelope({"page": 1, "items": []})]
    assert settled(process) == 0


@pytest.mark.parametrize(("status", "error"), [(503, ServerError), (403, AuthenticationError)])
def test_while_the_bill_cannot_be_read_nothing_is_settled(
    world: World, status: int, error: type[BitDanceError]
) -> None:
    """One refusal may pass. Where this key has no right to the bill, it is for reconcile."""
    process = lost(world)
    bought_later(world)
    world.api.on_bill = [refusal(status)]
    with pytest.raises(error):
        settled(process)
    assert process.journal.state.images["image"].possibly_paid == 1


def test_a_proven_purchase_that_shows_late_stays_possibly_paid(world: World) -> None:
    """It is paid, and the image was bought again meanwhile."""
    process = lost(world)
    world.api.echo = "history"
    world.api.create(SENT)
    bought_later(world)
    assert settled(process) == 0
    assert process.journal.state.images["image"].possibly_paid == 1


def test_nothing_is_listed_before_it_can_tell_and_nothing_without_a_loss(world: World) -> None:
    process = lost(world)
    asked = len(world.api.histories)
    bought_later(world, after=1.0, age=1.0)
    assert settled(process) == 0
    assert settled(world.context(job=a_job(task_id="lost nothing"))) == 0
    assert len(world.api.histories) == asked


# The size that the API echoes is another


def a_png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def made_of_size(world: World, size: str, pixels: tuple[int, int]) -> None:
    """Let the API make ours, echo another size, and make these pixels."""
    world.api.echo = "history"
    made = world.api.create(SENT | {"size": size})
    made.picture = a_png(*pixels)
    world.clock.now += 60


@pytest.mark.parametrize("after", [0.0, 30.0])
@pytest.mark.parametrize("offset", [-50.0, 50.0])
def test_workers_clocks_may_differ_by_most_of_a_minute(world: World, offset: float, after: float) -> None:
    """A purchase that was made is never settled for its time by another worker's clock."""
    world.api.echo = "history"
    made = world.clock.now + after
    world.clock.now += offset
    process = lost(world)
    world.api.create(SENT)
    world.api.made["pred-1"].created = made
    world.api.hidden.clear()
    bought_later(world, after=200.0, age=200.0)
    assert settled(process) == 0


def test_a_loss_is_compared_with_what_was_sent_and_not_with_what_the_image_became(world: World) -> None:
    process = lost(world)
    world.api.echo = "history"
    world.api.create(SENT | {"prompt": "a lighthouse at dawn, highly detailed"})
    request = a_request(seed=99)
    when = datetime.fromtimestamp(world.clock.now, UTC)
    other = a_job(task_id="other", run_id="another run")
    adopted = Adopted(key="image", request=request, prediction_id="x", submitted_at=when, bought_by=other)
    process.journal.append(world.clock.now, adopted)
    bought_later(world)
    assert settled(process) == 0


def test_of_one_prompt_and_seed_in_two_sizes_each_image_gets_its_own_pixels_where_no_size_is_echoed(
    world: World,
) -> None:
    world.api.echo = "history"
    process = world.context()
    wide = a_plan("wide", stem="wide")
    wide = wide.model_copy(update={"request": wide.request.model_copy(update={"size": "1280*720"})})
    plan = Planned(output=OUTPUT, images=(a_plan("square"), wide))
    process.journal.claim(
        world.clock.now + 600, world.clock.now, plan, Intended(keys=("square",)), Intended(keys=("wide",))
    )
    made = world.api.create({"prompt": SENT["prompt"], "seed": 7})
    made.picture = a_png(1280, 720)
    world.clock.now += 60
    resolved(world, process)
    images = process.journal.state.images
    assert (images["square"].prediction_id, images["wide"].prediction_id) == ("", "pred-1")


@pytest.mark.parametrize(("pixels", "event"), [((1024, 1024), "submitted"), ((512, 512), "lost")])
def test_the_only_candidate_is_ours_if_it_has_our_size_whatever_size_is_echoed(
    world: World, pixels: tuple[int, int], event: str
) -> None:
    process = left_open(world)
    made_of_size(world, "512*512", pixels)
    assert resolved(world, process) == [event]


@pytest.mark.parametrize(
    "failure",
    [refusal(503), refusal(429), httpx.ReadTimeout("slow")],
    ids=["503", "429", "time-out"],
)
def test_a_look_that_fails_in_passing_disproves_nothing(
    world: World, failure: httpx.Response | Exception
) -> None:
    process = left_open(world)
    made_of_size(world, "512*512", (1024, 1024))
    world.api.on_poll = [failure]
    assert resolved(world, process) == ["submitted"]


def test_a_search_that_fails_halfway_is_repeated_for_the_other_half_only(world: World) -> None:
    """Each would be decided twice, and the journal be called damaged."""
    process, hen = world.context(), {"prompt": "a hen", "seed": 8}
    other = a_plan("other", stem="other").model_copy(update={"request": a_request(**hen)})
    plan = Planned(output=OUTPUT, images=(a_plan(), other))
    deadline = world.clock.now + 600
    process.journal.claim(deadline, world.clock.now, plan, Intended(keys=("image", "other")))
    made_of_size(world, "512*512", (12, 12))
    world.api.create(hen | {"size": "512*512"}).picture = a_png(12, 12)
    world.api.on_poll = [world.api.polled, httpx.ReadTimeout("slow")]
    assert resolved(world, process) == ["lost", "lost"]


def test_what_another_request_of_ours_may_have_made_is_not_taken_for_its_pixels(world: World) -> None:
    process = world.context()
    small = a_plan("small", stem="small")
    small = small.model_copy(update={"request": small.request.model_copy(update={"size": "512*512"})})
    plan = Planned(output=OUTPUT, images=(a_plan("image"), small))
    process.journal.claim(world.clock.now + 600, world.clock.now, plan, Intended(keys=("image",)))
    made_of_size(world, "512*512", (1024, 1024))
    assert resolved(world, process) == ["lost"]


@pytest.mark.parametrize("is_first", [False, True])
def test_one_of_two_candidates_is_not_taken_for_its_pixels(world: World, is_first: bool) -> None:
    process = left_open(world)
    if not is_first:
        world.api.create(SENT | {"seed": 8})
    made_of_size(world, "512*512", (1024, 1024))
    if is_first:
        world.api.create(SENT | {"seed": 8})
    assert resolved(world, process) == ["lost"]


FLUX, RECRAFT = "wavespeed-ai/flux-dev", "recraft-ai/recraft-v4/text-to-image"
DEFAULTS = {"guidance_scale": 3.5, "output_format": "jpeg", "loras": []}
"""What the API adds to an echo."""


@pytest.mark.parametrize(
    ("echo", "proof"),
    [
        ({"guidance_scale": 5.0}, Proof.OURS),
        ({"guidance_scale": 5, "output_format": "png "}, Proof.OURS),
        (DEFAULTS, Proof.SIMILAR),
        (DEFAULTS | {"guidance_scale": 5, "output_format": "png"}, Proof.OURS),
        ({"guidance_scale": 5, "output_format": "webp"}, Proof.SIMILAR),
        ({"guidance_scale": None}, Proof.OURS),
        ({"guidance_scale": [5]}, Proof.OURS),
        ({}, Proof.OURS),
    ],
)
def test_another_value_of_an_input_that_was_sent_is_no_proof(echo: dict[str, Any], proof: Proof) -> None:
    request = a_request(model=FLUX, inputs={"guidance_scale": 5, "output_format": "png"})
    assert proof_of(echoed(**echo), request) is proof


def test_nothing_proves_an_image_of_a_model_without_a_seed() -> None:
    request = a_request(seed=-1, model=RECRAFT)
    same = Prediction(id="p-1", input=request.body())
    assert proof_of(same, request) is Proof.SIMILAR
    assert proof_of(echoed(prompt="another"), request) is Proof.SIMILAR
    assert proof_of(Prediction(id="p-1"), request) is Proof.NONE


def opened(world: World, **requests: ImageRequest) -> JobContext:
    """Return a process with open intents of these requests, by key."""
    plans = [(a_plan(key, stem=key), request) for key, request in requests.items()]
    images = tuple(plan.model_copy(update={"request": request}) for plan, request in plans)
    process = world.context()
    events = [Planned(output=OUTPUT, images=images), *(Intended(keys=(key,)) for key in requests)]
    process.journal.claim(world.clock.now + 600, world.clock.now, *events)
    world.api.echo = "history"
    return process


def adopted(process: JobContext) -> dict[str, str]:
    return {key: image.prediction_id for key, image in process.journal.state.images.items()}


@pytest.mark.parametrize("predictions", [1, 2])
def test_of_a_model_without_a_seed_nothing_is_adopted_and_each_is_possibly_paid(
    world: World, predictions: int
) -> None:
    request = a_request(seed=-1, model=RECRAFT)
    process = opened(world, one=request, other=request)
    for _ in range(predictions):
        world.api.create(request.body())
    assert resolved(world, process) == ["lost", "lost"]
    assert adopted(process) == {"one": "", "other": ""}
    assert [image.possibly_paid for image in process.journal.state.images.values()] == [1, 1]


def of_scale(scale: float | None) -> ImageRequest:
    return a_request(model=FLUX, inputs={} if scale is None else {"guidance_scale": scale})


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (5.0, 7.0, {"one": "pred-2", "other": "pred-1"}),
        # What is echoed may be the default, where an image has sent none.
        (None, 7.0, {"one": "pred-2", "other": ""}),
    ],
)
def test_of_one_prompt_and_seed_each_image_is_found_by_the_input_that_is_echoed(
    world: World, one: float | None, other: float | None, found: dict[str, str]
) -> None:
    process = opened(world, one=of_scale(one), other=of_scale(other))
    for request in (of_scale(other), of_scale(one)):
        world.api.create(DEFAULTS | request.body())
    resolved(world, process)
    assert adopted(process) == found


def test_of_one_prompt_and_seed_nothing_is_found_where_the_input_is_not_echoed(world: World) -> None:
    process = opened(world, one=of_scale(5.0), other=of_scale(7.0))
    for _ in range(2):
        world.api.create(SENT)
    assert resolved(world, process) == ["lost", "lost"]
    assert adopted(process) == {"one": "", "other": ""}


def test_what_another_image_of_this_job_has_sent_is_not_adopted_by_one_that_sends_less(world: World) -> None:
    process = opened(world, plain=of_scale(None))
    other = a_plan("other", stem="other").model_copy(update={"request": of_scale(7.0)})
    third = a_plan("third", stem="third").model_copy(update={"request": a_request("a third", model=FLUX)})
    state = process.journal.state
    images = {**state.images, **{plan.key: ImageState(plan) for plan in (other, third)}}
    process.journal.state = replace(state, images=images)
    world.api.create(DEFAULTS | of_scale(7.0).body())
    assert resolved(world, process) == ["lost"]


UNREADABLE: dict[str, httpx.Response | Exception] = {
    "503": refusal(503),
    "429": refusal(429),
    "no connection": httpx.ConnectError("x"),
    "read time-out": httpx.ReadTimeout("x"),
    "garbage": httpx.Response(200, content=b"<html>"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_while_the_history_cannot_be_read_the_intent_stays_open_and_nothing_is_bought(
    world: World, name: str
) -> None:
    process = left_open(world)
    world.api.on_history = [UNREADABLE[name]] * (len(READING_PAUSES) + 1)
    with pytest.raises(LostResponseError, match="history could not be read") as caught:
        resolved(world, process)
    assert (caught.value.retry_helps, caught.value.paid) == (True, Paid.POSSIBLY)
    assert process.journal.state.images["image"].status is Status.INTENDED
    assert process.journal.state.images["image"].unconfirmed == 1


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_history_that_cannot_be_read_for_a_moment_is_read_again(world: World, name: str) -> None:
    world.api.echo = "history"
    process = left_open(world)
    world.api.create(SENT)
    world.api.on_history = [UNREADABLE[name]] * len(READING_PAUSES)
    assert resolved(world, process) == ["submitted"]
    assert world.clock.slept == list(READING_PAUSES)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_history_that_is_refused_for_good_proves_nothing(world: World, status: int) -> None:
    process = left_open(world)
    world.api.on_history = [refusal(status)] * 2
    assert resolved(world, process) == ["lost"]
    assert f"got status {status}" in world.events[-1]["reason"]


def test_a_candidate_that_cannot_be_looked_at_is_in_doubt(world: World) -> None:
    process = left_open(world)
    world.api.create(SENT)
    world.api.on_poll = [refusal(404)] * (len(SEARCH_PAUSES) + 1)
    assert resolved(world, process) == ["lost"]
    assert process.coordination.doubted == {"pred-1"}


def test_a_job_without_open_intents_asks_nothing(world: World) -> None:
    process = world.context()
    run(resolve_intents(process, process.journal))
    assert world.api.histories == []


def test_another_process_that_takes_over_meanwhile_stops_this_one(world: World) -> None:
    process = left_open(world)

    def take_over(_: httpx.Request) -> httpx.Response:
        world.context().journal.claim(world.clock.now + 600, world.clock.now)
        return envelope({"page": 1, "items": []})

    world.api.on_history = [take_over]
    with pytest.raises(FencedError, match="taken over"):
        resolved(world, process)


def test_a_store_that_fails_is_not_taken_for_a_history_that_cannot_be_read(world: World) -> None:
    def fail(step: str) -> None:
        if step == "before create 000002":
            raise StorageError("The disk is full")

    process = left_open(world, step=fail)
    with pytest.raises(StorageError, match="The disk is full"):
        resolved(world, process)
    assert world.clock.slept == list(SEARCH_PAUSES)


def test_two_losses_that_are_searched_for_at_once_do_not_both_take_one_prediction(world: World) -> None:
    """As where a job takes over another's destination while a response of its own is lost."""
    world.api.echo = "history"
    left_open(world, job=a_job(map_index=3))
    process = left_open(world)
    other = Journal(process.records, process.journal.owner, job=a_job(map_index=3))
    other.load()
    other.claim(world.clock.now + 600, world.clock.now)
    world.api.create(SENT)
    both_read, names = threading.Barrier(2), process.records.names

    def names_at_the_same_time(below: str) -> list[str]:
        if below == "jobs/covers/run-1":
            with contextlib.suppress(threading.BrokenBarrierError):
                both_read.wait(timeout=0.5)
        return names(below)

    process.records.names = names_at_the_same_time  # type: ignore[method-assign]

    async def both() -> None:
        await asyncio.gather(*(resolve_intents(process, journal) for journal in (process.journal, other)))

    run(both())
    images = [journal.state.images["image"] for journal in (process.journal, other)]
    assert sorted(image.prediction_id for image in images) == ["", "pred-1"]


def test_what_proves_one_intent_at_last_leaves_no_doubt_about_another_of_its_prompt(world: World) -> None:
    world.api.echo = "history"
    process = world.context()
    plan = Planned(
        output=OUTPUT, images=(a_plan("early", seed=7, stem="a"), a_plan("late", seed=8, stem="b"))
    )
    process.journal.claim(world.clock.now + 600, world.clock.now, plan, Intended(keys=("early",)))
    world.clock.now += 1
    process.journal.append(world.clock.now, Intended(keys=("late",)))
    world.api.create(SENT)
    world.api.on_history = [envelope({"page": 1, "items": []})] * len(SEARCH_PAUSES)
    assert resolved(world, process) == ["submitted", "lost"]
    assert process.coordination.doubted == set()
