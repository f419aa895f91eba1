"""Records outlive the version that wrote them: today's code reads what each left, and goes on from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from airflow_provider_bitdance import __version__
from airflow_provider_bitdance.engine import Finished, Wanted, run_job
from airflow_provider_bitdance.exceptions import RecordNewerError
from airflow_provider_bitdance.maintenance.scan import read_records
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.validation import reason_of
from airflow_provider_bitdance.records import (
    Failed,
    Failure,
    Intended,
    Job,
    JobState,
    Journal,
    Lost,
    NotCreated,
    PlannedImage,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.enhanced_prompts import (
    EnhancedPrompt,
    EnhancedPrompts,
    PromptIntent,
    PromptKey,
    PromptOutcome,
)
from airflow_provider_bitdance.records.events import FORMAT, Enhancement, Event, Orphaned
from airflow_provider_bitdance.records.notes import is_note
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.reservations import Reservations
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import Destination
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from tests.unit.golden import GOLDEN, VERSIONS, kept
from tests.unit.golden.scenes import (
    COVER,
    DEADLINE,
    DISK,
    IMAGES,
    INPUTS,
    LOGO,
    MODEL,
    PICTURE,
    PROMPT,
    RECORDS,
    STYLE,
    job,
    receipt_uri,
    written_today,
)
from tests.unit.support import (
    API_HOST,
    API_URL,
    OUTPUT,
    START,
    FakeClock,
    FakePrediction,
    MemoryFolder,
    World,
    a_picture,
    a_writer,
    run,
)

ASKED = ImageRequest(prompt=PROMPT, size="1280*720")
A_NEW_FOLDER_IS_DUE = (
    f"What {__version__} writes is not what lies in tests/unit/golden/{VERSIONS[-1]}. What is released stays "
    "as it is: raise __version__, let scenes.py show what is new, and run python -m tests.unit.golden"
)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def world(version: str) -> World:
    """Return the disk as the version left it."""
    world = World()
    world.disk = {f"{DISK}{name}": data for name, data in kept(version).items()}
    return world


def journal_of(world: World, of: Job, *, try_number: int = 9) -> Journal:
    journal = Journal(MemoryFolder(world.disk, RECORDS), a_writer(try_number=try_number, job=of))
    journal.load()
    return journal


def image_of(state: JobState, key: str = "image") -> dict[str, Any]:
    """Return what the state says of an image, in the words of this test."""
    image = state.images[key]
    return {
        "status": image.status,
        "id": image.prediction_id,
        "seed": image.plan.request.seed,
        "possibly_paid": image.possibly_paid,
        "purchases": image.purchases,
        "intents": image.intent,
    }


def go_on(world: World, of: Job, *, address: Destination, in_flight: str = "") -> list[dict[str, Any]]:
    """Enter a job as today's code does, with a prediction that WaveSpeed has ended by now."""
    if in_flight:
        picture = a_picture(text=in_flight)
        made = FakePrediction(in_flight, {}, START, picture, outputs=[f"{API_URL}/outputs/{in_flight}"])
        world.api.made[in_flight] = made
    world.clock.now = DEADLINE
    context = world.context(job=of, try_number=4, records=RECORDS)
    outcome = run(run_job(context, [Wanted(key="image", request=ASKED, destination=address)]))
    assert isinstance(outcome, Finished)
    return outcome.results


# What lies there


def test_the_newest_folder_is_what_todays_code_writes() -> None:
    written, newest = written_today(), kept(VERSIONS[-1])
    assert written.keys() == newest.keys(), A_NEW_FOLDER_IS_DUE
    for name, data in written.items():
        read = json.loads if name.endswith(".json") else bytes
        assert read(data) == read(newest[name]), f"{name}: {A_NEW_FOLDER_IS_DUE}"


def test_every_event_that_there_is_occurs_in_todays_format_but_the_one_of_format_1() -> None:
    entries = [json.loads(data) for name, data in kept(VERSIONS[-1]).items() if is_entry(name)]
    events = {event["event"] for entry in entries for event in entry["events"]}
    known = {kind.model_fields["event"].default for kind in get_args(get_args(Event)[0])}
    assert events == known - {Orphaned.model_fields["event"].default}, A_NEW_FOLDER_IS_DUE
    assert {entry["format"] for entry in entries} == {FORMAT}


def test_the_journals_of_0_1_0_hold_the_two_events_that_are_not_written_any_more() -> None:
    entries = [json.loads(data) for name, data in kept("0.1.0").items() if is_entry(name)]
    events = {event["event"] for entry in entries for event in entry["events"]}
    assert {"orphaned", "snapshot"} <= events
    assert {entry["format"] for entry in entries} == {1}


@pytest.mark.parametrize(
    "kind",
    [Receipt, PlannedImage, ImageRequest, Enhancement, PromptIntent, PromptOutcome, EnhancedPrompt],
)
def test_every_field_that_a_record_may_have_occurs(kind: type[BaseModel]) -> None:
    said = [json.loads(data) for name, data in kept(VERSIONS[-1]).items() if "records/" in name]
    found = [set(part) for part in objects_in(said)]
    # An outcome has a prediction, or the reason why there is none.
    fields = set(kind.model_fields) - ({"reason"} if kind is PromptOutcome else set())
    assert fields in found, A_NEW_FOLDER_IS_DUE


def is_entry(name: str) -> bool:
    return "/jobs/" in name and not is_note(name)


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object that there is at any depth."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects_in(part)


def test_maintenance_reads_all_of_it_and_finds_nothing_wrong(version: str) -> None:
    found = read_records(LocalFolder(GOLDEN / version / "records"))
    later = version != "0.1.0"
    assert found.findings == ()
    assert [receipt.prediction_id for receipt in found.receipts.values()] == [
        "pred-cover",
        *(["pred-logo"] if later else []),
    ]
    items = [f"pred-item-{n:02}" for n in range(21)]
    assert {
        (record.job.task_id, record.job.generation): (
            [purchase.prediction_id for purchase in record.purchases],
            [loss.prediction_id for loss in record.losses],
        )
        for record in found.jobs
    } == {
        ("batch", 2): (["pred-failed", *items], [""]),
        ("cover", 2): (["pred-cover"], []),
        ("draft", 2): (["pred-draft"], []),
        **({("logo", 2): (["pred-logo"], [])} if later else {}),
        ("poster", 2): (["pred-orphan", "pred-poster"], ["", "pred-orphan"]),
        ("poster", 3): ([], []),
    }


# What it means


def test_a_stored_image_is_known_with_its_plan(world: World) -> None:
    state = journal_of(world, job("cover")).state
    assert image_of(state) == {
        "status": "stored",
        "id": "pred-cover",
        "seed": 4242,
        "possibly_paid": 0,
        "purchases": 1,
        "intents": 1,
    }
    assert (state.number, state.output, state.is_batch, state.deadline) == (3, IMAGES, False, DEADLINE)
    assert state.spent_usd == 0.01
    image = state.images["image"]
    assert (image.plan.request, image.plan.seed_asked) == (ASKED.model_copy(update={"seed": 4242}), -1)
    assert (image.plan.stem, image.plan.extension, image.plan.named) == ("cover", ".png", True)
    assert (image.intended_at, image.submitted_at) == (START, START + 1.25)
    assert image.receipt == Receipts(MemoryFolder(world.disk, RECORDS)).uri(COVER)


def test_a_receipt_and_a_reservation_are_found_at_the_image_s_address(world: World) -> None:
    folder = MemoryFolder(world.disk, RECORDS)
    receipt, held = Receipts(folder).find(COVER), Reservations(folder).last(COVER)
    assert receipt is not None
    assert held is not None
    assert (receipt.prediction_id, receipt.request.seed, receipt.seed_asked) == ("pred-cover", 4242, -1)
    assert (receipt.file, receipt.bytes, receipt.width, receipt.possibly_paid) == ("cover.png", 70, 1, 1)
    assert (receipt.reservation, held.number, held.key) == (1, 1, "image")
    assert receipt.fingerprint == held.fingerprint == ASKED.fingerprint(API_HOST)
    assert receipt.writer == held.writer
    assert (receipt.writer.job, receipt.writer.try_number) == (job("cover"), 1)
    assert (receipt.submitted_at.timestamp(), receipt.stored_at.timestamp()) == (START + 1.25, START + 5)


def test_an_image_in_flight_is_known_by_its_prediction(world: World) -> None:
    state = journal_of(world, job("draft")).state
    assert image_of(state)["status"] == "submitted"
    assert (image_of(state)["id"], state.images["image"].submitted_at) == ("pred-draft", START + 1.25)


def test_what_was_lost_and_what_a_replaced_process_bought_is_counted(world: World) -> None:
    before = journal_of(world, job("poster")).state
    assert image_of(before) == {
        "status": "submitted",
        "id": "pred-poster",
        "seed": 4242,
        "possibly_paid": 2,
        "purchases": 1,
        "intents": 3,
    }
    assert before.spent_usd == 0.03
    assert before.owner is not None
    assert before.owner.job == job("poster", generation=3)


def test_what_a_clear_adopted_is_known_with_the_request_it_was_bought_for(world: World) -> None:
    after = journal_of(world, job("poster", generation=3)).state
    assert image_of(after) == {
        "status": "submitted",
        "id": "pred-poster",
        "seed": 4242,
        "possibly_paid": 2,
        "purchases": 0,
        "intents": 0,
    }
    assert after.images["image"].bought_by == job("poster")
    assert after.images["image"].submitted_at == START + 303


def test_each_image_of_a_batch_is_known(world: World) -> None:
    state = journal_of(world, job("batch")).state
    by_status = {status: [image.plan.key for image in state.having(status)] for status in Status}
    items = [f"item-{n:02}" for n in range(45)]
    assert by_status == {
        "planned": ["lost", "delayed", *items[22:]],
        "intended": ["item-21"],
        "submitted": ["adopted", "item-20"],
        "stored": ["reused", *items[:20]],
        "failed": ["failed"],
    }
    assert (state.number, state.is_batch, state.deadline) == (66, True, DEADLINE + 400)
    assert (state.window, state.blocked_until, state.spent_usd) == (8, START + 63, 0.24)
    assert (state.images["lost"].possibly_paid, state.images["lost"].reason) == (1, "ReadTimeout: lost")
    assert (state.images["reused"].reused, state.images["item-00"].reused) == (True, False)
    assert state.images["item-19"].receipt == receipt_uri("item-19")
    failed = state.images["failed"]
    assert (failed.failure, failed.failed_in_try, failed.reason) == (
        Failure.MODERATED,
        1,
        "content moderation",
    )
    adopted = state.images["adopted"]
    assert (adopted.plan.request.seed, adopted.bought_by) == (99, job("draft"))
    assert state.images["reused"].plan.columns == {"row": 0, "note": None}
    assert [state.images[key].plan.variant_of for key in ("reused", "item-02", "item-03")] == [
        None,
        "row-0",
        "row-1",
    ]


def test_what_the_notes_of_a_job_say_is_known_in_every_version(world: World) -> None:
    (note,) = journal_of(world, job("poster")).state.images["image"].notes
    assert (note.prediction_id, note.intent, note.time.timestamp()) == ("pred-orphan", 2, START + 301)
    assert (note.owner.job, note.owner.try_number) == (job("poster"), 1)


def test_a_model_without_a_seed_and_with_inputs_of_its_own_is_known() -> None:
    world = World()
    world.disk = {f"{DISK}{name}": data for name, data in kept("0.2.0").items()}
    image = journal_of(world, job("logo")).state.images["image"].plan
    receipt = Receipts(MemoryFolder(world.disk, RECORDS)).find(LOGO)
    assert receipt is not None
    for record in (image, receipt):
        assert (record.request.seed, record.seed_asked) == (None, None)
        assert (record.request.model, record.request.inputs) == (MODEL, INPUTS)
        assert (record.prompt_asked, record.request.prompt) == (PROMPT, f"{PROMPT}, enhanced")
        assert record.enhancement is not None
        assert (record.enhancement.style, record.enhancement.prediction_id) == (STYLE, "pred-text")
        assert (record.enhancement.possibly_paid, record.enhancement.spent_usd) == (1, 0.002)
    assert (receipt.size_differs, receipt.width) == (True, 1)
    assert receipt.sha256_received != receipt.sha256


def test_an_enhanced_prompt_and_its_purchases_are_known() -> None:
    disk = {f"{DISK}{name}": data for name, data in kept("0.2.0").items()}
    records, key = EnhancedPrompts(MemoryFolder(disk, RECORDS)), PromptKey(PROMPT, STYLE, API_HOST)
    found = records.find(key)
    assert found is not None
    assert (found.enhanced, found.prediction_id) == (f"{PROMPT}, enhanced", "pred-text")
    assert [(one.number, one.prediction_id, one.is_lost) for one in records.attempts(key)] == [
        (1, "", False),
        (2, "", True),
        (3, "pred-text", False),
    ]


def test_a_receipt_says_nothing_of_what_its_version_did_not_know(world: World) -> None:
    receipt = Receipts(MemoryFolder(world.disk, RECORDS)).find(COVER)
    assert receipt is not None
    assert (receipt.prompt_asked, receipt.size_differs, receipt.request.inputs) == (None, False, {})
    assert receipt.sha256_received is None


def test_a_manifest_is_read(version: str) -> None:
    stored, failed, missing = read_manifest(str(GOLDEN / version / "images" / "manifest.jsonl"))
    free = {"product_id": 7, "name": "Größe 38", "weight": 0.5, "is_new": True, "note": None}
    assert stored.columns == failed.columns == missing.columns == free
    assert (stored.key, stored.variant_of, stored.status) == ("p7-0", "p7", "stored")
    assert (stored.uri, stored.prediction_id) == (f"{IMAGES}/cover.png", "pred-cover")
    assert (stored.seed, stored.width, stored.bytes, stored.reused) == (4242, 1, 70, False)
    assert (stored.estimated_cost_usd, stored.inference_ms, stored.possibly_paid) == (0.01, 1234.5, 1)
    assert (failed.status, failed.error, failed.possibly_paid, failed.uri) == ("failed", "no GPU", 2, None)
    assert (missing.key, missing.status, missing.variant_of) == ("p8", "missing", None)


@pytest.mark.parametrize(
    "pin",
    [pin for version in VERSIONS for pin in json.loads(kept(version)["fingerprints.json"])],
    ids=lambda pin: " ".join([*pin["request"], pin["api_host"], pin.get("enhance_prompt", "")]),
)
def test_the_same_request_has_the_fingerprint_that_it_had_in_every_version(pin: dict[str, Any]) -> None:
    style = pin.get("enhance_prompt")
    now = ImageRequest(**pin["request"]).fingerprint(pin["api_host"], enhance_prompt=style)
    assert now == pin["fingerprint"], (
        "An image that was asked for before would not be found by its receipt: every image of every user "
        "would be bought again. Leave a new field out of the fingerprint where it has its default"
    )


def test_each_field_of_a_request_is_set_in_a_pinned_fingerprint() -> None:
    pins = [pin for version in VERSIONS for pin in json.loads(kept(version)["fingerprints.json"])]
    assert set().union(*(pin["request"] for pin in pins)) == set(ImageRequest.model_fields), (
        A_NEW_FOLDER_IS_DUE
    )


# How it goes on


def test_an_image_in_flight_is_stored_and_nothing_is_bought(world: World) -> None:
    address = Destination(IMAGES, "draft")
    (result,) = go_on(world, job("draft"), address=address, in_flight="pred-draft")
    assert (result["prediction_id"], result["seed"], result["reused"]) == ("pred-draft", 4242, False)
    assert world.images["draft.png"] == world.api.made["pred-draft"].picture
    assert world.api.posts == []


def test_what_a_clear_adopted_is_stored_and_still_says_what_was_possibly_paid(world: World) -> None:
    address = Destination(IMAGES, "poster")
    (result,) = go_on(world, job("poster", generation=3), address=address, in_flight="pred-poster")
    assert (result["prediction_id"], result["possibly_paid"]) == ("pred-poster", 2)
    assert world.api.posts == []


def test_a_stored_image_is_the_result_of_a_retry_and_of_another_run(world: World) -> None:
    (again,) = go_on(world, job("cover"), address=COVER)
    other = job("cover").model_copy(update={"run_id": "another"})
    (reused,) = go_on(world, other, address=COVER)
    assert (again["uri"], again["reused"], reused["reused"]) == (f"{OUTPUT}/cover.png", False, True)
    assert again["sha256"] == reused["sha256"]
    assert world.images["cover.png"] == PICTURE
    assert world.api.posts == []


NEXT_EVENTS: dict[str, tuple[Event, ...]] = {
    "intended": (
        NotCreated(key="item-21", reason="the history has none"),
        Intended(keys=("item-21", "lost")),
    ),
    "planned": (Intended(keys=("delayed",)), Lost(key="delayed", reason="lost")),
    "submitted": (
        Stored(key="adopted", receipt="mem://r"),
        Failed(key="item-20", failure="failed", reason=""),
    ),
    "failed": (Intended(keys=("failed",)), Submitted(key="failed", prediction_id="pred-2")),
}
REACHED = {
    "intended": {"item-21": "intended", "lost": "intended"},
    "planned": {"delayed": "planned"},
    "submitted": {"adopted": "stored", "item-20": "failed"},
    "failed": {"failed": "submitted"},
}


@pytest.mark.parametrize("status", NEXT_EVENTS)
def test_a_claim_and_the_next_events_follow_and_no_old_file_changes(world: World, status: str) -> None:
    before = dict(world.disk)
    ours = journal_of(world, job("batch"))
    ours.claim(DEADLINE + 900, DEADLINE)
    ours.append(DEADLINE, *NEXT_EVENTS[status])
    read = journal_of(world, job("batch")).state
    assert read == ours.state
    assert read.number == 68
    assert {key: read.images[key].status for key in REACHED[status]} == REACHED[status]
    assert {path: world.disk[path] for path in before} == before


def test_a_trigger_is_made_again_from_its_arguments(version: str) -> None:
    waits, rests = (made_again(told) for told in json.loads(kept(version)["triggers.json"]))
    assert waits.pending == rests.pending == {"pred-draft": START + 1.25, "pred-item-20": START + 401}
    assert (waits.deadline, waits.not_before) == (DEADLINE, START + 11)
    assert (waits.poll_interval, waits.enough) == (3.0, 1)
    assert (rests.bitdance_conn_id, rests.enough) == ("bitdance_default", 0)


def test_a_trigger_that_rests_fires_at_its_time(version: str, clock: FakeClock) -> None:
    _, rests = (made_again(told) for told in json.loads(kept(version)["triggers.json"]))

    async def fired() -> list[dict[str, Any]]:
        return [event.payload async for event in rests.run()]

    assert run(fired()) == [{"reason": "rested", "ended": 0, "pending": 2}]
    assert clock.now == START + 63


def made_again(told: dict[str, Any]) -> Any:
    module, _, name = told["path"].rpartition(".")
    return getattr(import_module(module), name)(**told["arguments"])


def test_every_event_of_a_trigger_is_taken(version: str) -> None:
    reasons = [reason_of(event) for event in json.loads(kept(version)["events.json"])]
    assert reasons == ["ready", "rested", "deadline", "unreachable"]


# What a newer version has left


@pytest.mark.parametrize(
    ("below", "of"),
    [
        ("jobs", job("cover")),
        ("receipts", job("cover").model_copy(update={"run_id": "another"})),
        ("addresses", job("cover").model_copy(update={"run_id": "another"})),
    ],
)
def test_a_record_of_a_newer_version_stops_a_task_and_nothing_is_bought_or_written_over(
    world: World, below: str, of: Job
) -> None:
    folder = MemoryFolder(world.disk, RECORDS)
    if below == "addresses":
        Receipts(folder).withdraw(COVER)  # else there would be nothing to reserve
    for name in folder.names(below):
        said = json.loads(folder.read(name) or b"")
        folder.replace(name, json.dumps(said | {"of_a_newer_version": 1}).encode())
    before = dict(world.disk)
    with pytest.raises(RecordNewerError, match="does not understand of_a_newer_version"):
        go_on(world, of, address=COVER)
    assert world.api.posts == []
    assert {path: world.disk.get(path) for path in before} == before
