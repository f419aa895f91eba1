"""Reconcile: what was left behind is stored, without a purchase and without harm to others."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import Finished, Policy, Wanted, run_job
from airflow_provider_bitdance.engine.lost_responses import READING_PAUSES
from airflow_provider_bitdance.engine.saving import save_prediction
from airflow_provider_bitdance.exceptions import AuthenticationError, InputError, ServerError
from airflow_provider_bitdance.maintenance import reconcile
from airflow_provider_bitdance.maintenance.costs import explain
from airflow_provider_bitdance.maintenance.report import CollectStatus, OpenImage, Report, Verdict
from airflow_provider_bitdance.records import Journal, Status
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.unit.maintenance.support import DAY, Office
from tests.unit.support import (
    API_KEY,
    OUTPUT,
    RECORDS,
    Crash,
    Fuse,
    a_job,
    a_wanted,
    a_writer,
    no_lookup,
    refusal,
    run,
)
from tests.wire import httpx

AFTER_SUBMISSION = "before poll"


@pytest.fixture
def office() -> Office:
    """Return a world in which a worker died after its submission, an hour ago; nobody came back."""
    office = Office()
    office.task(dies=AFTER_SUBMISSION)
    office.wait(hours=1)
    return office


def a_later_purchase(office: Office) -> None:
    """Let another task buy, so late that no request before it can still arrive, and the history show it."""
    office.wait(minutes=2)
    office.task(job=a_job(task_id="later"), wanted=a_wanted("a later one", name="later"))
    office.wait(minutes=2)


def a_client_of_another_api(office: Office) -> AsyncClient:
    elsewhere = "http://127.0.0.1:10"
    transport = httpx.MockTransport(lambda request: office.api._answer(office.api._kind(request), request))
    return AsyncClient(
        ClientSettings(API_KEY, base_url=elsewhere),
        transport=transport,
        output_rule=OutputRule(elsewhere, resolve=no_lookup),
    )


def the_image(office: Office, **changes: Any) -> OpenImage:
    (image,) = office.reconcile(**changes).open_images
    return image


# What is paid for and not stored


def test_an_image_whose_worker_died_is_stored_where_its_plan_says_and_recorded(office: Office) -> None:
    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (CollectStatus.STORED, "pred-1")
    assert office.images == {"cover.png": office.api.made["pred-1"].picture}
    (record,) = office.records.jobs
    assert record.state.is_stored
    (receipt,) = office.records.receipts.values()
    assert (receipt.prediction_id, receipt.writer.job) == ("pred-1", a_job())
    assert image.detail == receipt.uri
    assert office.api.billed == len(office.api.posts) == 1


def test_a_try_that_comes_after_all_finds_the_image_and_buys_nothing(office: Office) -> None:
    office.reconcile()

    finished = run(run_job(office.context(try_number=2), [a_wanted()]))

    assert finished.results[0]["prediction_id"] == "pred-1"
    assert len(office.api.posts) == 1


def test_a_second_reconciliation_has_nothing_left_to_do(office: Office) -> None:
    office.reconcile()
    before = dict(office.disk)

    report = office.reconcile()

    assert report.open_images == ()
    assert not report.needs_attention
    assert office.disk == before


def test_a_dry_run_tells_what_is_due_and_for_how_long_and_changes_nothing(office: Office) -> None:
    office.wait(days=2)
    before = dict(office.disk)

    image = the_image(office, dry_run=True)

    assert image.outcome is CollectStatus.DUE
    assert image.days_left == pytest.approx(7 - 2 - 1 / 24, abs=0.01)
    assert office.disk == before
    assert office.api.polls == []


def test_a_job_whose_task_may_still_wait_is_left_alone_and_named() -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, timeout=600)
    before = dict(office.disk)

    report = office.reconcile()

    (image,) = report.open_images
    assert image.outcome is CollectStatus.RUNNING
    assert "task may still wait" in image.detail
    assert not report.needs_attention
    assert office.disk == before


def test_a_job_that_may_still_run_is_collected_where_that_is_asked_and_keeps_its_deadline() -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, timeout=600)
    deadline = office.records.jobs[0].state.deadline

    assert the_image(office, include_running=True).outcome is CollectStatus.STORED
    assert office.records.jobs[0].state.deadline == deadline


def test_a_prediction_that_failed_is_recorded_as_failed(office: Office) -> None:
    office.api.made["pred-1"].status = "failed"
    office.api.made["pred-1"].error = "out of memory"

    image = the_image(office)

    assert image.outcome is CollectStatus.FAILED
    assert "out of memory" in image.detail
    assert office.records.jobs[0].state.images["image"].status is Status.FAILED


def test_the_try_that_waited_for_a_prediction_that_failed_does_not_buy_it_anew_and_the_next_one_does() -> (
    None
):
    office = Office()
    job = a_job(generation=2)
    office.task(job=job, try_number=2, dies=AFTER_SUBMISSION)
    office.api.made["pred-1"].status = "failed"
    office.wait(hours=1)
    assert the_image(office).outcome is CollectStatus.FAILED

    office.task(job=job, try_number=2, timeout=60)
    assert office.api.billed == 1
    office.task(job=job, try_number=3, timeout=60)
    assert office.api.billed == 2


def test_an_output_older_than_its_seven_days_is_recorded_as_expired(office: Office) -> None:
    office.wait(days=7)
    office.api.on_download = [httpx.Response(404)] * 3

    image = the_image(office)

    assert (image.outcome, image.days_left) == (CollectStatus.FAILED, 0.0)
    assert "7 days" in image.detail
    assert office.records.jobs[0].state.images["image"].status is Status.FAILED


def test_a_download_that_fails_leaves_the_image_for_the_next_time(office: Office) -> None:
    office.api.on_download = [httpx.Response(503)] * 3

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.LEFT]
    assert report.needs_attention
    assert the_image(office).outcome is CollectStatus.STORED


def test_a_prediction_that_has_not_ended_is_left_for_the_next_time(office: Office) -> None:
    office.api.latency = 2 * 3600
    assert the_image(office).outcome is CollectStatus.LEFT

    office.wait(hours=2)
    assert the_image(office).outcome is CollectStatus.STORED


@pytest.mark.parametrize(
    ("nsfw", "outcome"), [("fail", CollectStatus.FAILED), ("allow", CollectStatus.STORED)]
)
def test_a_flagged_picture_is_stored_only_where_that_is_asked(
    office: Office, nsfw: Any, outcome: CollectStatus
) -> None:
    office.api.made["pred-1"].nsfw = True

    assert the_image(office, policy=Policy(nsfw=nsfw)).outcome is outcome
    assert bool(office.images) == (outcome is CollectStatus.STORED)


def test_nothing_is_ever_bought_or_lost_wherever_a_worker_dies() -> None:
    steps = Fuse()
    run(run_job(Office().context(step=steps), [a_wanted()]))
    for at, step in enumerate(steps.steps, start=1):
        office = Office()
        with pytest.raises(Crash):
            run(run_job(office.context(step=Fuse(at=at)), [a_wanted()]))
        office.wait(hours=1)
        office.api.echo = "history"
        bought = office.api.billed
        office.reconcile()
        a_later_purchase(office)
        posted = len(office.api.posts)

        first, report = office.reconcile(), office.reconcile()

        assert (office.api.billed, len(office.api.posts)) == (bought + 1, posted), step
        assert len(office.images) == bought + 1, step
        assert {loss.verdict for loss in first.possibly_paid} <= {Verdict.NOT_CREATED}, step
        assert report.possibly_paid == (), step
        assert report.real_usd == report.estimated_usd == office.api.paid == 0.01 * (bought + 1), step
        assert not report.needs_attention, step


# Intents without a response


def test_an_open_intent_that_the_history_proves_is_stored() -> None:
    office = Office()
    office.task(dies="after POST")
    office.wait(hours=1)
    office.api.echo = "history"

    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (CollectStatus.STORED, "pred-1")
    assert list(office.images) == ["cover.png"]


def test_an_open_intent_of_which_the_history_has_nothing_is_possibly_paid() -> None:
    """An empty history proves nothing: it may be behind, and its filters may not match."""
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.POSSIBLY_PAID]
    assert [loss.verdict for loss in report.possibly_paid] == [Verdict.UNKNOWN]
    assert office.records.jobs[0].open_images == []


def test_an_intent_that_the_history_does_not_show_beside_a_later_purchase_was_not_bought() -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    a_later_purchase(office)

    planned, done, after = office.reconcile(dry_run=True), office.reconcile(), office.reconcile()

    for report in (planned, done):
        assert [loss.verdict for loss in report.possibly_paid] == [Verdict.NOT_CREATED]
    assert after.possibly_paid == ()
    assert [image.possibly_paid for image in office.records.jobs[0].state.images.values()] == [0]


def test_what_a_running_task_lost_is_written_down_by_that_task() -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    office.wait(minutes=1)
    office.task(try_number=2, dies=AFTER_SUBMISSION)
    office.wait(minutes=5)

    report = office.reconcile()

    assert [loss.verdict for loss in report.possibly_paid] == [Verdict.NOT_CREATED]
    assert len(office.records.jobs[0].losses) == 1
    assert office.reconcile(include_running=True).possibly_paid != office.reconcile().possibly_paid == ()


def test_a_loss_of_a_task_that_goes_on_meanwhile_is_written_down_by_that_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    a_later_purchase(office)

    def task_comes_back(*args: Any, **kwargs: Any) -> Any:
        journal = Journal(office.folder, a_writer(try_number=2))
        journal.load()
        journal.claim(office.clock.now + 600, office.clock.now)
        return explain(*args, **kwargs)

    monkeypatch.setattr(importlib.import_module(reconcile.__module__), "explain", task_comes_back)
    report = office.reconcile()

    assert [loss.verdict for loss in report.possibly_paid] == [Verdict.NOT_CREATED]
    (job,) = [record for record in office.records.jobs if record.losses]
    assert job.last_try == 2


def test_a_purchase_that_another_api_lost_is_no_matter_of_this_account() -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    a_later_purchase(office)

    assert office.reconcile(client=a_client_of_another_api(office)).possibly_paid == ()
    assert [loss.verdict for loss in office.reconcile().possibly_paid] == [Verdict.NOT_CREATED]


def test_an_open_intent_that_cannot_be_told_is_possibly_paid_and_its_candidate_is_listed() -> None:
    office = Office()
    office.task(dies="after POST")
    office.wait(hours=1)

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.POSSIBLY_PAID]
    assert [loss.verdict for loss in report.possibly_paid] == [Verdict.UNKNOWN]
    assert [item.prediction_id for item in report.untracked] == ["pred-1"]
    assert (report.unattributed.predictions, report.unattributed.real_usd) == (1, 0.01)


def test_a_lost_purchase_that_a_person_has_saved_was_bought_and_is_charged_to_its_receipt() -> None:
    """As docs/operations/maintenance.md says: the saved image's receipt has the charge, the loss no other."""
    office = Office()
    office.task(dies="after POST")
    office.wait(hours=1)
    office.reconcile()
    by_hand = office.context(job=a_job(dag_id="by hand", call="saved.pred-1"), step=lambda name: None)

    async def save() -> None:
        async with by_hand.client as client:
            prediction = await client.get_prediction("pred-1")
            await save_prediction(by_hand, a_wanted(name="saved"), prediction)

    run(save())
    saved = office.reconcile()
    a_later_purchase(office)
    after = office.reconcile()

    for report in (saved, after):
        assert [(loss.verdict, loss.prediction_id) for loss in report.possibly_paid] == [
            (Verdict.BOUGHT, "pred-1")
        ]
        assert report.unattributed.real_usd == 0
    assert after.real_usd == office.api.paid == 0.02


def test_an_intent_after_a_failed_prediction_does_not_pass_for_that_prediction() -> None:
    office = Office()
    office.api.next_changes = {"status": "failed", "error": "no luck"}
    office.task(timeout=60)
    office.task(try_number=2, dies="before POST")
    office.wait(hours=1)

    due = the_image(office, dry_run=True)
    done = the_image(office)

    assert (due.outcome, due.prediction_id) == (CollectStatus.DUE, "")
    assert (done.outcome, done.prediction_id) == (CollectStatus.POSSIBLY_PAID, "")


def test_an_intent_stays_open_while_the_history_cannot_be_read() -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.api.on_history = [refusal(503)] * (len(READING_PAUSES) + 1)

    (image,) = office.reconcile().open_images

    assert image.outcome is CollectStatus.LEFT
    assert "history could not be read" in image.detail
    assert the_image(office).outcome is CollectStatus.POSSIBLY_PAID


def test_a_purchase_that_did_not_happen_is_not_called_possibly_paid_for_a_loss_before_it() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task(on_lost_response="fail")
    office.wait(minutes=1)
    office.task(try_number=2, dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    a_later_purchase(office)

    report = office.reconcile()

    verdicts = [loss.verdict for loss in sorted(report.possibly_paid, key=lambda loss: loss.at)]
    assert verdicts == [Verdict.UNKNOWN, Verdict.NOT_CREATED]


# What must not be collected


def test_an_old_image_does_not_replace_the_one_that_was_asked_for_after_a_clear(office: Office) -> None:
    office.task(job=a_job(generation=2), try_number=2, wanted=a_wanted("a fox"))
    new = dict(office.images)

    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (CollectStatus.SUPERSEDED, "pred-1")
    assert "cleared and planned again afterwards" in image.detail
    assert office.images == new == {"cover.png": office.api.made["pred-2"].picture}


def test_the_last_generation_is_the_one_of_the_latest_try_whatever_its_number() -> None:
    office = Office()
    office.task(job=a_job(generation=3), dies=AFTER_SUBMISSION)
    office.task(job=a_job(generation=2), try_number=2, wanted=a_wanted("a fox"), dies=AFTER_SUBMISSION)
    office.wait(hours=1)

    report = office.reconcile()

    assert [(image.job.generation, image.outcome) for image in report.open_images] == [
        (2, CollectStatus.STORED),
        (3, CollectStatus.SUPERSEDED),
    ]


def test_a_loops_iteration_that_a_clear_began_again_is_superseded_though_the_new_one_has_bought_nothing() -> (
    None
):
    office = Office(latency=60)
    first, again = a_job(iteration=f"1.{'a' * 32}"), a_job(iteration=f"1.{'b' * 32}")
    office.task(job=first, wanted=a_wanted("a fox", name="s"), defer_after=0)
    office.wait(minutes=1)
    office.api.on_post = [refusal(400)]
    office.task(job=again, wanted=a_wanted("a hen", name="s"), is_batch=False)
    office.wait(hours=2)

    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (CollectStatus.SUPERSEDED, "pred-1")


def test_what_was_asked_for_after_a_clear_is_collected(office: Office) -> None:
    office.task(job=a_job(generation=2), try_number=2, wanted=a_wanted("a fox"), dies=AFTER_SUBMISSION)
    office.wait(hours=1)

    outcomes = {image.prediction_id: image.outcome for image in office.reconcile().open_images}

    assert outcomes == {"pred-1": CollectStatus.SUPERSEDED, "pred-2": CollectStatus.STORED}
    assert office.images == {"cover.png": office.api.made["pred-2"].picture}


def cleared(*rows: Wanted, wanted: Sequence[Wanted]) -> Office:
    """Return an office in which a batch bought rows, and was cleared while it waited; then it made others."""
    office = Office(latency=60)
    run(run_job(office.context(is_batch=True, defer_after=0), list(rows)))
    office.wait(minutes=1)
    again = office.context(job=a_job(generation=2), try_number=2, is_batch=True)
    run(run_job(again, list(wanted)))
    office.wait(hours=1)
    return office


FOX, HEN = (a_wanted(f"a {name}", key=name, name=name) for name in ("fox", "hen"))


def test_an_image_whose_row_was_removed_at_a_clear_is_collected() -> None:
    """Nothing newer has its destination: it would be lost after 7 days."""
    office = cleared(FOX, HEN, wanted=[HEN])

    (image,) = office.reconcile().open_images

    assert (image.key, image.outcome) == ("fox", CollectStatus.STORED)
    assert set(office.images) == {"fox.png", "hen.png"}
    assert office.api.billed == 2


def test_only_those_images_are_collected_whose_destinations_have_no_newer_plan() -> None:
    office = cleared(FOX, HEN, wanted=[a_wanted("a red hen", key="hen", name="hen")])
    hen = office.images["hen.png"]

    outcomes = {image.key: image.outcome for image in office.reconcile().open_images}

    assert outcomes == {"fox": CollectStatus.STORED, "hen": CollectStatus.SUPERSEDED}
    assert office.images["hen.png"] == hen


def test_an_image_that_a_cleared_task_has_adopted_for_another_destination_is_stored_once() -> None:
    office = cleared(FOX, HEN, wanted=[a_wanted("a fox", key="fox", name="reynard"), HEN])

    assert office.reconcile().open_images == ()
    assert set(office.images) == {"reynard.png", "hen.png"}


def test_an_old_image_that_nobody_can_have_any_more_is_not_told_for_ever(office: Office) -> None:
    office.task(job=a_job(generation=2), try_number=2, wanted=a_wanted("a fox"))
    office.wait(days=7)

    assert office.reconcile().open_images == ()


def test_a_prediction_that_the_cleared_task_has_adopted_is_no_matter_any_more(office: Office) -> None:
    office.task(job=a_job(generation=2), try_number=2)

    report = office.reconcile()

    assert office.api.billed == 1
    assert report.open_images == ()
    assert not report.needs_attention


def test_an_image_does_not_replace_a_newer_one_of_another_task_at_its_address() -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, wanted=a_wanted("a fox", named=True))
    office.wait(hours=1)
    office.task(job=a_job(dag_id="later"), wanted=a_wanted("a crow", named=True))
    new = dict(office.images)

    (image,) = office.reconcile().open_images

    assert (image.outcome, image.prediction_id) == (CollectStatus.SUPERSEDED, "pred-1")
    assert "newer image" in image.detail
    assert office.images == new


@pytest.mark.parametrize(
    ("left", "outcome"), [(None, CollectStatus.STORED), (b"retouched", CollectStatus.SUPERSEDED)]
)
def test_a_newer_image_whose_file_is_gone_keeps_no_paid_one_from_its_place(
    left: bytes | None, outcome: CollectStatus
) -> None:
    """One that was changed may be somebody's work, and stays."""
    office = Office()
    office.task(dies=AFTER_SUBMISSION, wanted=a_wanted("a fox", named=True))
    office.wait(hours=1)
    later = a_job(dag_id="later")
    office.task(job=later, wanted=a_wanted("a fox", named=True), if_exists="regenerate")
    folder = office.context().images
    folder.remove("cover.png")
    if left is not None:
        folder.replace("cover.png", left)

    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (outcome, "pred-1")
    assert office.images == {"cover.png": left or office.api.made["pred-1"].picture}


@pytest.mark.parametrize("is_batch", [False, True])
def test_an_image_that_reconcile_has_flagged_is_that_of_a_task_that_allows_it(is_batch: bool) -> None:
    """reconcile does not know what the task allows."""
    office = Office()
    office.api.next_changes = {"nsfw": True}
    office.task(dies=AFTER_SUBMISSION, is_batch=is_batch)
    office.wait(hours=1)
    assert the_image(office).outcome is CollectStatus.FAILED

    context = office.context(try_number=2, nsfw="allow", is_batch=is_batch)
    finished = run(run_job(context, [a_wanted()]))

    assert isinstance(finished, Finished)
    (image,) = finished.results
    assert (image["prediction_id"], image["nsfw"], image["reused"]) == ("pred-1", True, False)
    assert (office.api.billed, image["estimated_cost_usd"]) == (1, 0.01)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_an_image_is_stored_where_a_later_task_that_wanted_another_one_has_failed(is_pruned: bool) -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, wanted=a_wanted("a fox", named=True))
    office.wait(hours=1)
    later = a_job(run_id="later")
    office.api.on_post = [office.api.answer_failing(status="failed", error="no GPU")]
    office.task(job=later, wanted=a_wanted("a crow", named=True), retry_failed=False)
    office.wait(hours=1)
    if is_pruned:
        office.folder.remove_folder(later.folder)

    outcomes = [image.outcome for image in office.reconcile().open_images]

    assert outcomes == [CollectStatus.STORED]
    assert office.images == {"cover.png": office.api.made["pred-1"].picture}


def test_a_retry_stores_its_image_where_a_later_task_that_wanted_another_one_has_failed() -> None:
    office = Office()
    wanted = a_wanted("a fox", named=True)
    office.task(dies=AFTER_SUBMISSION, wanted=wanted)
    office.wait(hours=1)
    office.api.on_post = [office.api.answer_failing(status="failed", error="no GPU")]
    office.task(job=a_job(run_id="later"), wanted=a_wanted("a crow", named=True), retry_failed=False)
    office.wait(hours=1)

    finished = run(run_job(office.context(try_number=2), [wanted]))

    assert isinstance(finished, Finished)
    assert [image["prediction_id"] for image in finished.results] == ["pred-1"]
    assert office.images == {"cover.png": office.api.made["pred-1"].picture}


def test_an_image_makes_way_for_what_a_later_task_has_bought_at_its_address() -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, wanted=a_wanted("a fox", named=True))
    office.wait(hours=1)
    later = a_job(run_id="later")
    office.task(job=later, dies=AFTER_SUBMISSION, wanted=a_wanted("a crow", named=True))
    office.wait(hours=1)

    reports = [office.reconcile() for _ in range(2)]
    outcomes = {image.prediction_id: image.outcome for report in reports for image in report.open_images}

    assert office.images == {"cover.png": office.api.made["pred-2"].picture}
    assert outcomes == {"pred-1": CollectStatus.SUPERSEDED, "pred-2": CollectStatus.STORED}


def test_an_image_replaces_the_older_one_at_its_address_for_which_it_was_bought() -> None:
    office = Office()
    office.task(wanted=a_wanted("a fox", named=True))
    office.wait(hours=1)
    office.task(job=a_job(run_id="later"), dies=AFTER_SUBMISSION, wanted=a_wanted("a crow", named=True))
    office.wait(hours=1)

    image = the_image(office)

    assert (image.outcome, image.prediction_id) == (CollectStatus.STORED, "pred-2")
    assert office.images == {"cover.png": office.api.made["pred-2"].picture}


def test_two_jobs_that_wait_for_one_prediction_store_it_once() -> None:
    office = Office()
    wanted = a_wanted(named=True)
    office.task(dies=AFTER_SUBMISSION, wanted=wanted)
    office.wait(hours=1)
    office.task(job=a_job(dag_id="other"), dies=AFTER_SUBMISSION, wanted=wanted)  # takes over
    office.wait(hours=1)

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.STORED] * 2
    assert {image.prediction_id for image in report.open_images} == {"pred-1"}
    assert len(office.api.downloads) == office.api.billed == 1
    assert (report.estimated_usd, report.real_usd) == (0.01, 0.01)


def test_an_image_that_was_bought_from_another_api_is_left(office: Office) -> None:
    client = a_client_of_another_api(office)
    before = dict(office.disk)

    image = the_image(office, client=client)

    assert image.outcome is CollectStatus.ANOTHER_API
    assert office.disk == before


def test_a_prediction_that_this_account_does_not_know_is_not_written_off(office: Office) -> None:
    bought = office.api.made.pop("pred-1")

    image = the_image(office)

    assert image.outcome is CollectStatus.LEFT
    assert "the account does not show" in image.detail
    assert office.records.jobs[0].state.images["image"].status is Status.SUBMITTED
    office.api.made["pred-1"] = bought
    assert the_image(office).outcome is CollectStatus.STORED


def test_a_prediction_unknown_after_seven_days_is_written_off(office: Office) -> None:
    office.api.made.clear()
    office.wait(days=7)

    assert the_image(office).outcome is CollectStatus.FAILED
    assert office.reconcile().open_images == ()


def test_a_folder_that_this_machine_cannot_open_leaves_its_images_and_no_others(office: Office) -> None:
    other = a_wanted(name="b")
    office.task(job=a_job(dag_id="other"), dies=AFTER_SUBMISSION, wanted=other)
    office.wait(hours=1)
    opened: list[str] = []

    def open_folder(uri: str) -> Folder:
        opened.append(uri)
        if len(opened) == 1:
            raise InputError("no such kind of address")
        return office.open_folder(uri)

    report = office.reconcile(open_folder=open_folder)

    first, second = report.open_images
    assert (first.outcome, first.detail) == (CollectStatus.LEFT, "no such kind of address")
    assert second.outcome is CollectStatus.STORED


def test_a_job_that_its_own_task_goes_on_with_meanwhile_is_left_to_it(office: Office) -> None:
    def retry_comes_first(uri: str) -> Folder:
        journal = Journal(office.folder, a_writer(try_number=2))
        journal.load()
        journal.claim(office.clock.now + 600, office.clock.now)
        return office.open_folder(uri)

    report = office.reconcile(open_folder=retry_comes_first)

    assert [image.outcome for image in report.open_images] == [CollectStatus.RUNNING]
    assert not report.needs_attention
    assert office.images == {}


def test_a_job_that_its_own_task_goes_on_with_during_the_download_is_left_to_it(office: Office) -> None:
    def retry_comes_first(_: httpx.Request) -> httpx.Response:
        journal = Journal(office.folder, a_writer(try_number=2))
        journal.load()
        journal.claim(office.clock.now + 600, office.clock.now)
        return httpx.Response(200, content=office.api.made["pred-1"].picture)

    office.api.on_download = [retry_comes_first]

    image = the_image(office)

    assert image.outcome is CollectStatus.RUNNING
    assert office.images == {}


# Records and account


def test_what_was_made_before_the_time_that_was_asked_for_is_not_called_untracked(office: Office) -> None:
    office.api.create({"prompt": "somebody else's", "seed": 1})
    office.wait(days=2)
    day = datetime.fromtimestamp(office.clock.now - DAY, UTC)

    assert office.reconcile(since=day).untracked == ()
    assert [item.prediction_id for item in office.reconcile().untracked] == ["pred-2"]


def test_what_became_of_a_loss_is_not_known_when_the_history_goes_back_no_further() -> None:
    office = Office()
    office.task(dies="before POST")
    office.wait(hours=1)
    office.reconcile()
    office.wait(days=8)
    a_later_purchase(office)
    since = datetime.fromtimestamp(office.clock.now - 10 * DAY, UTC)

    (loss,) = office.reconcile(since=since).possibly_paid

    assert loss.verdict is Verdict.UNKNOWN


def test_the_history_is_read_of_each_model_that_the_records_speak_of() -> None:
    office = Office()
    other = a_wanted()
    other = replace(other, request=other.request.model_copy(update={"model": "other/model"}))
    office.task(wanted=other)
    office.api.histories.clear()

    office.reconcile()

    assert {asked["model"] for asked in office.api.histories} == {BITDANCE_14B, "other/model"}


def test_a_damaged_journal_is_told_and_the_rest_is_collected(office: Office) -> None:
    office.task(job=a_job(run_id="run-2"), wanted=a_wanted(name="b"))
    office.damage("run-2")

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.STORED]
    assert [finding.uri.split("/")[-4] for finding in report.findings] == ["run-2"]
    assert report.needs_attention


def test_a_key_without_a_right_to_the_bill_still_collects(office: Office) -> None:
    office.api.refuse_bill = refusal(403, "not your role")

    report = office.reconcile()

    assert [image.outcome for image in report.open_images] == [CollectStatus.STORED]
    (finding,) = report.findings
    assert "not your role" in finding.what
    assert [cost.unbilled for cost in report.costs] == [1]


def test_a_bill_that_cannot_be_read_just_now_ends_it_for_a_retry(office: Office) -> None:
    office.api.refuse_bill = refusal(503)

    with pytest.raises(ServerError):
        office.reconcile()
    assert list(office.images) == ["cover.png"]


def test_a_wrong_key_ends_it_and_writes_nothing_off(office: Office) -> None:
    office.api.on_poll = office.api.on_history = [refusal(401) for _ in range(100)]

    with pytest.raises(AuthenticationError):
        office.reconcile()
    assert office.records.jobs[0].state.images["image"].status is Status.SUBMITTED


def test_a_report_is_plain_json_without_key_or_output_address(office: Office) -> None:
    office.api.echo = "history"
    office.api.create({"prompt": "p" * 500, "size": "256*256", "seed": 1})
    office.wait(hours=1)

    shown = json.dumps(office.reconcile().as_json())

    assert json.loads(shown)["records"] == RECORDS
    assert "p" * 79 + "\\u2026" in shown
    assert API_KEY not in shown
    assert "/outputs/" not in shown
    assert "p" * 80 not in shown


# The options of the function


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what calls ``reconcile`` itself in a world: with its clock, its account and its disk."""
    module = importlib.import_module("airflow_provider_bitdance.maintenance.reconcile")

    def ask(office: Office, **options: Any) -> Report:
        def connection(conn_id: str) -> Any:
            assert conn_id == options.get("conn_id", "bitdance_default")
            return SimpleNamespace(
                extra=SimpleNamespace(records_path=RECORDS), new_async_client=office.api.client
            )

        def open_records(given: str, *, of_connection: str) -> Folder:
            assert (given, of_connection) == (options.get("records_path", ""), RECORDS)
            return office.folder

        monkeypatch.setattr(module, "BitDanceHook", connection)
        monkeypatch.setattr(module, "open_records", open_records)
        monkeypatch.setattr(module, "open_folder", office.open_folder)
        monkeypatch.setattr(Clock, "time", lambda _: office.clock.time())
        monkeypatch.setattr(Clock, "sleep", lambda _, seconds: office.clock.sleep(seconds))
        return reconcile(**{"outputs": [OUTPUT], **options})

    return ask


def outcomes(report: Report) -> list[CollectStatus]:
    return [image.outcome for image in report.open_images]


def test_without_options_it_collects_what_is_at_rest_and_looks_seven_days_back(
    asked: Any, office: Office
) -> None:
    report = asked(office)
    assert outcomes(report) == [CollectStatus.STORED]
    assert (report.until - report.since).total_seconds() == 7 * DAY


def test_what_is_collected_has_the_label_of_the_settings(
    asked: Any, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BITDANCE__LABEL", "iptc")
    asked(office)
    assert b"trainedAlgorithmicMedia" in office.images["cover.png"]


def test_the_connection_and_the_records_path_are_those_that_were_asked_for(
    asked: Any, office: Office
) -> None:
    report = asked(office, conn_id="another", records_path="mem://another/place")
    assert outcomes(report) == [CollectStatus.STORED]


def test_a_dry_run_that_was_asked_for_stores_nothing(asked: Any, office: Office) -> None:
    report = asked(office, dry_run=True)
    assert (outcomes(report), report.dry_run, office.images) == ([CollectStatus.DUE], True, {})


@pytest.mark.parametrize(
    ("options", "outcome"), [({}, CollectStatus.RUNNING), ({"include_running": True}, CollectStatus.STORED)]
)
def test_jobs_that_may_still_run_are_collected_only_where_that_was_asked_for(
    asked: Any, options: dict[str, Any], outcome: CollectStatus
) -> None:
    office = Office()
    office.task(dies=AFTER_SUBMISSION, timeout=600)
    assert outcomes(asked(office, **options)) == [outcome]


@pytest.mark.parametrize(
    ("options", "outcome"), [({}, CollectStatus.FAILED), ({"nsfw": "allow"}, CollectStatus.STORED)]
)
def test_flagged_pictures_are_stored_only_where_that_was_asked_for(
    asked: Any, office: Office, options: dict[str, Any], outcome: CollectStatus
) -> None:
    office.api.made["pred-1"].nsfw = True
    assert outcomes(asked(office, **options)) == [outcome]


@pytest.mark.parametrize(("hours_ago", "told"), [(2, 1), (0.5, 0)])
def test_lost_purchases_and_costs_are_told_from_the_time_on_that_was_asked_for(
    asked: Any, hours_ago: float, told: int
) -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task(timeout=60)
    office.wait(hours=1)
    since = datetime.fromtimestamp(office.clock.now - hours_ago * 3600, UTC)

    report = asked(office, since=since)

    assert report.since == since
    assert (len(report.possibly_paid), len(report.costs)) == (told, told)


@pytest.fixture
def in_tokyo() -> Iterator[None]:
    """Have a machine whose own time is not UTC."""
    with pytest.MonkeyPatch.context() as there:
        there.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_time_without_a_zone_is_utc(asked: Any, office: Office) -> None:
    assert asked(office, since=datetime(2026, 5, 1)).since == datetime(2026, 5, 1, tzinfo=UTC)


# What the records say is no order


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        ("mem://disk/image",),
        ("mem://disk/images/deeper",),
        ("mem://theirs@disk/images",),
        ("/disk/images",),
    ],
)
def test_nothing_is_stored_but_below_the_output_folders_that_are_given(
    office: Office, outputs: list[str]
) -> None:
    before = dict(office.disk)

    image = the_image(office, outputs=outputs)

    assert image.outcome is CollectStatus.LEFT
    assert f"--output {OUTPUT}" in image.detail
    assert office.disk == before
    assert the_image(office, outputs=outputs, dry_run=True).outcome is CollectStatus.LEFT


@pytest.mark.parametrize("output", ["mem://disk/images", "mem://disk/images/", "mem://disk", "MEM://disk/"])
def test_an_image_is_stored_in_a_folder_that_is_given_and_below(office: Office, output: str) -> None:
    assert the_image(office, outputs=("/elsewhere", output)).outcome is CollectStatus.STORED


@pytest.mark.parametrize(
    "folder", ["mem://disk/images/../secret", "s3://theirs@bucket/x", "file:///etc/cron.d"]
)
def test_a_plan_that_leads_elsewhere_is_left_alone(office: Office, folder: str) -> None:
    (name,) = (name for name in office.disk if name.endswith("generation=0/000001.json"))
    office.disk[name] = office.disk[name].replace(f'"{OUTPUT}"'.encode(), f'"{folder}"'.encode())

    assert the_image(office).outcome is CollectStatus.LEFT
    assert office.images == {}


def test_a_job_that_claims_to_be_at_work_until_2096_is_collected(office: Office) -> None:
    (name,) = (name for name in office.disk if name.endswith("generation=0/000001.json"))
    entry = json.loads(office.disk[name])
    entry["events"][0]["deadline"] = 3_976_000_000.0
    office.disk[name] = json.dumps(entry).encode()

    assert the_image(office).outcome is CollectStatus.STORED
