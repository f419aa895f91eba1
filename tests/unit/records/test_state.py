"""The fold of a journal: every (status, event) pair has a meaning or is refused."""

from __future__ import annotations

import copy
import itertools
from datetime import UTC, datetime
from typing import get_args

import pytest

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.records import (
    Adopted,
    Failed,
    Failure,
    Intended,
    JobState,
    Lost,
    NotCreated,
    Note,
    Owner,
    Planned,
    Status,
    Stored,
    Submitted,
    fold,
)
from airflow_provider_bitdance.records.events import Claimed, Entry, Event, ImageEvent, Orphaned
from airflow_provider_bitdance.records.state import NEXT, fold_all, fold_notes
from tests.unit.support import OUTPUT, START, a_job, a_plan, a_writer

US = a_writer(token="us")
THEM = a_writer(token="them")

CLAIM = Claimed(deadline=START + 600)
PLAN = Planned(output=OUTPUT, images=(a_plan(),))

EVENTS: dict[str, Event] = {
    "intended": Intended(keys=("image",)),
    "submitted": Submitted(key="image", prediction_id="pred-1"),
    "adopted": Adopted(
        key="image",
        request=a_plan(seed=99).request,
        prediction_id="pred-2",
        submitted_at=datetime.fromtimestamp(START, UTC),
        bought_by=a_job(generation=1),
    ),
    "not_created": NotCreated(key="image", reason="429"),
    "lost": Lost(key="image", reason="time-out"),
    "stored": Stored(key="image", receipt="mem://r"),
    "failed": Failed(key="image", failure=Failure.FAILED, reason="no GPU"),
}

REACHED_BY: dict[Status, tuple[str, ...]] = {
    Status.PLANNED: (),
    Status.INTENDED: ("intended",),
    Status.SUBMITTED: ("intended", "submitted"),
    Status.STORED: ("intended", "submitted", "stored"),
    Status.FAILED: ("intended", "submitted", "failed"),
}

MEANT = {
    (Status.PLANNED, "intended"): Status.INTENDED,
    (Status.PLANNED, "stored"): Status.STORED,
    (Status.PLANNED, "adopted"): Status.SUBMITTED,
    (Status.PLANNED, "failed"): Status.FAILED,
    (Status.INTENDED, "submitted"): Status.SUBMITTED,
    (Status.INTENDED, "not_created"): Status.PLANNED,
    (Status.INTENDED, "lost"): Status.PLANNED,
    (Status.SUBMITTED, "stored"): Status.STORED,
    (Status.SUBMITTED, "failed"): Status.FAILED,
    (Status.FAILED, "intended"): Status.INTENDED,
    (Status.FAILED, "adopted"): Status.SUBMITTED,
    (Status.FAILED, "stored"): Status.STORED,
}


def after(*events: Event, state: JobState | None = None, writer: Owner = US, number: int = 0) -> JobState:
    state = state or JobState()
    entry = Entry(
        number=number or state.number + 1,
        time=datetime.fromtimestamp(START, UTC),
        writer=writer,
        events=events,
    )
    return fold(state, entry)


def at_status(status: Status) -> JobState:
    return after(CLAIM, PLAN, *(EVENTS[name] for name in REACHED_BY[status]))


def test_the_table_of_this_test_is_the_one_of_the_code() -> None:
    assert NEXT == MEANT
    assert set(REACHED_BY) == set(Status)
    assert {type(event) for event in EVENTS.values()} == {Intended, *get_args(ImageEvent)}


@pytest.mark.parametrize(("status", "name"), list(itertools.product(Status, EVENTS)))
def test_every_event_has_a_meaning_at_every_status_or_is_refused(status: Status, name: str) -> None:
    state = at_status(status)
    assert state.images["image"].status is status
    expected = MEANT.get((status, name))
    if expected is None:
        with pytest.raises(RecordUnreadableError, match=f"Entry 2 .* says '{name}' of an image .* {status}"):
            after(EVENTS[name], state=state)
    else:
        assert after(EVENTS[name], state=state).images["image"].status is expected


def test_a_submission_brings_the_id_and_the_time() -> None:
    image = at_status(Status.SUBMITTED).images["image"]
    assert (image.prediction_id, image.submitted_at) == ("pred-1", START)


def test_every_lost_response_is_counted_and_a_refusal_is_not() -> None:
    again = (EVENTS["intended"], EVENTS["lost"], EVENTS["intended"], EVENTS["not_created"])
    assert after(CLAIM, PLAN, *again, *again).images["image"].possibly_paid == 2


NOTE = Note(
    time=datetime.fromtimestamp(START, UTC), owner=THEM, key="image", prediction_id="pred-9", intent=1
)


@pytest.mark.parametrize("status", Status)
def test_a_note_adds_what_a_replaced_process_bought_and_changes_nothing_else(status: Status) -> None:
    before = at_status(status)
    state = fold_notes(before, [NOTE])
    assert state.images["image"].status is status
    assert (state.owner, state.time, state.number) == (US, START, before.number)
    assert state.images["image"].possibly_paid == 1
    assert before.images["image"].notes == ()


def noted_or(name: str, state: JobState) -> JobState:
    return fold_notes(state, [NOTE]) if name == "noted" else after(EVENTS[name], state=state)


@pytest.mark.parametrize("order", [("lost", "noted"), ("noted", "lost"), ("noted", "noted", "lost")])
def test_an_answer_that_was_lost_and_came_to_a_replaced_process_is_counted_once(
    order: tuple[str, ...],
) -> None:
    state = at_status(Status.INTENDED)
    for name in order:
        state = noted_or(name, state)
    assert (state.images["image"].possibly_paid, state.spent_usd) == (1, 0.01)


@pytest.mark.parametrize("order", [("submitted", "noted"), ("noted", "submitted")])
def test_an_answer_that_was_found_and_came_to_a_replaced_process_is_not_counted(
    order: tuple[str, ...],
) -> None:
    state = at_status(Status.INTENDED)
    found = Submitted(key="image", prediction_id="pred-9", found=True)
    for name in order:
        state = fold_notes(state, [NOTE]) if name == "noted" else after(found, state=state)
    assert (state.images["image"].possibly_paid, state.spent_usd) == (0, 0.01)


@pytest.mark.parametrize("order", [("submitted", "noted"), ("noted", "submitted")])
def test_a_note_of_another_prediction_than_the_one_that_was_found_is_a_purchase_more(
    order: tuple[str, ...],
) -> None:
    state = at_status(Status.INTENDED)
    for name in order:
        state = noted_or(name, state)
    assert (state.images["image"].possibly_paid, state.spent_usd) == (1, 0.02)


RECOVERED = Submitted(key="image", prediction_id="pred-9", found=True, intent=1)


def test_what_is_noted_after_it_was_given_up_is_the_purchase_that_was_lost() -> None:
    state = after(CLAIM, PLAN, EVENTS["intended"], EVENTS["lost"])
    state = after(RECOVERED, state=fold_notes(state, [NOTE]))
    image = state.images["image"]
    assert (image.status, image.prediction_id, image.bought) == (Status.SUBMITTED, "pred-9", {1: "pred-9"})
    assert (image.possibly_paid, state.spent_usd) == (0, 0.01)


@pytest.mark.parametrize(("intent", "other"), [(1, 2), (2, 1)])
def test_of_two_losses_the_other_one_stays_possibly_paid(intent: int, other: int) -> None:
    lost = (EVENTS["intended"], EVENTS["lost"])
    recovered = RECOVERED.model_copy(update={"intent": intent})
    state = after(CLAIM, PLAN, *lost, *lost, recovered)
    image = state.images["image"]
    assert (image.bought, set(image.lost)) == ({intent: "pred-9"}, {other})
    assert (image.possibly_paid, state.spent_usd) == (1, 0.02)


@pytest.mark.parametrize(
    "names", [(), ("intended",), ("intended", "not_created"), ("intended", "lost", "intended")]
)
def test_only_what_is_lost_of_an_image_that_is_to_be_bought_is_recovered(names: tuple[str, ...]) -> None:
    state = after(CLAIM, PLAN, *(EVENTS[name] for name in names))
    with pytest.raises(RecordUnreadableError, match="says 'submitted' of intent 1, which is not lost"):
        after(RECOVERED, state=state)


def test_an_open_intent_and_its_note_are_one_purchase() -> None:
    state = fold_notes(at_status(Status.INTENDED), [NOTE])
    assert (state.images["image"].unconfirmed, state.spent_usd) == (1, 0.01)


def test_a_note_of_an_image_that_was_not_planned_is_refused() -> None:
    with pytest.raises(RecordUnreadableError, match=r"pred-9 .* 'other' that was not planned"):
        fold_notes(at_status(Status.PLANNED), [NOTE.model_copy(update={"key": "other"})])


@pytest.mark.parametrize(
    ("status", "by", "may"),
    [
        (Status.PLANNED, THEM, False),
        (Status.INTENDED, THEM, True),
        (Status.INTENDED, US, False),
        (Status.SUBMITTED, THEM, False),
    ],
)
def test_there_may_be_notes_once_another_process_claims_while_an_intent_is_open(
    status: Status, by: Owner, may: bool
) -> None:
    claimed = after(CLAIM, state=at_status(status), writer=by)
    assert claimed.may_have_notes is may
    assert after(CLAIM, state=claimed, writer=a_writer(token="third")).may_have_notes is (
        may or status is Status.INTENDED
    )


def test_every_purchase_is_counted_those_of_others_are_not() -> None:
    events = ("intended", "submitted", "failed", "intended", "submitted", "failed", "adopted")
    assert after(CLAIM, PLAN, *(EVENTS[name] for name in events)).images["image"].purchases == 2


def test_thirty_times_a_cent_is_thirty_cents_whether_it_is_folded_one_by_one_or_at_once() -> None:
    images = tuple(a_plan(f"k{number}", stem=f"k{number}") for number in range(30))
    planned = state = after(CLAIM, Planned(output=OUTPUT, images=images))
    entries = []
    for number, image in enumerate(images, start=2):
        intent = Intended(keys=(image.key,))
        state = after(intent, state=state)
        moment = datetime.fromtimestamp(START, UTC)
        entries.append(Entry(number=number, time=moment, writer=US, events=(intent,)))
    assert state.spent_usd == 0.3
    assert fold_all(planned, entries) == state
    assert planned.spent_usd == 0


def test_what_was_possibly_paid_is_still_counted_when_the_image_is_stored() -> None:
    events = ("intended", "lost", "intended", "submitted", "stored")
    image = after(CLAIM, PLAN, *(EVENTS[name] for name in events)).images["image"]
    assert (image.status, image.possibly_paid, image.receipt) == (Status.STORED, 1, "mem://r")


def test_a_failure_keeps_its_kind_and_reason_until_the_image_is_bought_anew() -> None:
    failed = at_status(Status.FAILED)
    assert (failed.images["image"].failure, failed.images["image"].reason) == (Failure.FAILED, "no GPU")
    anew = after(EVENTS["intended"], Submitted(key="image", prediction_id="pred-2"), state=failed)
    assert (anew.images["image"].failure, anew.images["image"].prediction_id) == (None, "pred-2")


def test_what_was_possibly_paid_before_a_clear_is_counted_with_what_was_lost_since() -> None:
    plan = a_plan().model_copy(update={"possibly_paid": 2})
    state = after(CLAIM, Planned(output=OUTPUT, images=(plan,)), EVENTS["intended"], EVENTS["lost"])
    image = state.images["image"]
    assert (image.possibly_paid, image.unconfirmed, state.spent_usd) == (3, 1, 0.01)


def test_an_orphan_of_format_1_costs_as_much_of_the_budget_as_a_note() -> None:
    orphaned = Orphaned(key="image", prediction_id="pred-9", intent=1)
    state = after(orphaned, state=at_status(Status.PLANNED), writer=THEM)
    assert state.spent_usd == fold_notes(at_status(Status.PLANNED), [NOTE]).spent_usd == 0.01


def test_there_may_be_notes_still_when_the_intent_is_over_and_a_third_process_claims() -> None:
    state = after(CLAIM, state=at_status(Status.INTENDED), writer=THEM)
    state = after(EVENTS["not_created"], state=state, writer=THEM)
    assert after(CLAIM, state=state, writer=a_writer(token="a third")).may_have_notes


def test_the_time_of_the_plan_is_that_of_its_entry() -> None:
    assert (after(CLAIM).planned_at, after(CLAIM, PLAN).planned_at) == (0.0, START)


def test_an_adopted_prediction_keeps_its_own_seed_and_time() -> None:
    adopted = Adopted(**dict(EVENTS["adopted"]) | {"submitted_at": datetime.fromtimestamp(START - 60, UTC)})
    image = after(CLAIM, PLAN, adopted).images["image"]
    assert (image.plan.request.seed, image.submitted_at) == (99, START - 60)


@pytest.mark.parametrize("reused", [False, True])
def test_an_image_is_reused_where_its_event_says_so(reused: bool) -> None:
    stored = Stored(key="image", receipt="mem://r", reused=reused)
    assert after(CLAIM, PLAN, stored).images["image"].reused is reused


def test_a_failure_is_over_when_the_prediction_of_another_job_is_adopted() -> None:
    adopted = after(EVENTS["adopted"], state=at_status(Status.FAILED)).images["image"]
    assert (adopted.failure, adopted.prediction_id) == (None, "pred-2")


def test_an_image_that_is_bought_here_after_it_was_another_job_s_is_not_that_job_s_any_more() -> None:
    adopted = after(CLAIM, PLAN, EVENTS["adopted"], EVENTS["failed"])
    assert adopted.images["image"].bought_by == a_job(generation=1)
    anew = after(EVENTS["intended"], EVENTS["submitted"], state=adopted)
    assert anew.images["image"].bought_by is None


@pytest.mark.parametrize("status", Status)
def test_there_is_work_until_each_image_is_stored_or_has_failed(status: Status) -> None:
    assert at_status(status).has_work == (status not in (Status.STORED, Status.FAILED))


def test_a_job_without_a_plan_is_not_stored() -> None:
    assert not after(CLAIM).is_stored


@pytest.mark.parametrize(
    ("try_number", "generation", "has_more"), [(1, 0, False), (1, 1, True), (2, 1, False)]
)
def test_a_task_has_a_try_left_for_each_retry(try_number: int, generation: int, has_more: bool) -> None:
    owner = a_writer(job=a_job(generation=generation), try_number=try_number)
    assert owner.has_tries_left is has_more


def test_one_intent_may_speak_of_several_images_and_changes_no_other() -> None:
    plan = Planned(output=OUTPUT, images=(a_plan("a"), a_plan("b"), a_plan("c")))
    state = after(CLAIM, plan, Intended(keys=("a", "c")))
    assert [image.status for image in state.images.values()] == ["intended", "planned", "intended"]
    assert [image.plan.key for image in state.having(Status.INTENDED)] == ["a", "c"]


def test_a_plan_says_whether_it_is_a_batch_and_one_of_several_images_is() -> None:
    several = {"output": OUTPUT, "images": [a_plan(key).model_dump() for key in "ab"]}
    of_one = Planned(output=OUTPUT, images=(a_plan(),), is_batch=True)
    older = Planned.model_validate(several)  # as it was written before a plan said so
    assert [after(CLAIM, plan).is_batch for plan in (PLAN, of_one, older)] == [False, True, True]


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ((CLAIM, PLAN, PLAN), "plans a second time"),
        ((CLAIM, EVENTS["intended"]), "'image' that was not planned"),
        ((CLAIM, PLAN, Submitted(key="other", prediction_id="p")), "'other' that was not planned"),
        ((CLAIM, PLAN, Intended(keys=("image", "other"))), "'other' that was not planned"),
        ((CLAIM, PLAN, Intended(keys=("image", "image"))), "says 'intended' of an image"),
        ((PLAN,), "was written by a process that has not claimed"),
        ((PLAN, CLAIM), "was written by a process that has not claimed"),
    ],
)
def test_a_first_entry_that_breaks_the_rules_is_refused(events: tuple[Event, ...], complaint: str) -> None:
    with pytest.raises(RecordUnreadableError, match=complaint):
        after(*events)


@pytest.mark.parametrize("second", ["submitted", "adopted"])
def test_one_prediction_is_not_that_of_two_images(second: str) -> None:
    plan = Planned(output=OUTPUT, images=(a_plan("a"), a_plan("b")))
    state = after(CLAIM, plan, Intended(keys=("a", "b")), Submitted(key="a", prediction_id="pred-1"))
    repeated = EVENTS[second].model_copy(update={"key": "b", "prediction_id": "pred-1"})
    before = NotCreated(key="b", reason="429")
    with pytest.raises(RecordUnreadableError, match="has prediction 'pred-1' for a second image 'b'"):
        after(*([before] if second == "adopted" else []), repeated, state=state)


def test_a_prediction_may_be_adopted_again_for_the_image_that_it_is_of() -> None:
    state = after(CLAIM, PLAN, EVENTS["adopted"], EVENTS["failed"], EVENTS["adopted"])
    assert state.images["image"].prediction_id == "pred-2"


def test_a_plan_in_a_later_entry_is_refused_where_there_is_one() -> None:
    with pytest.raises(RecordUnreadableError, match="plans a second time"):
        after(CLAIM, PLAN, state=at_status(Status.PLANNED))


def test_an_entry_of_another_writer_is_refused_until_it_claims() -> None:
    state = at_status(Status.PLANNED)
    with pytest.raises(RecordUnreadableError, match="has not claimed"):
        after(EVENTS["intended"], state=state, writer=THEM)
    claimed = after(CLAIM, EVENTS["intended"], state=state, writer=THEM)
    assert claimed.owner == THEM
    with pytest.raises(RecordUnreadableError, match="has not claimed"):
        after(EVENTS["submitted"], state=claimed, writer=US)


@pytest.mark.parametrize("number", [1, 3, 99])
def test_a_gap_or_a_repeat_in_the_numbers_is_refused(number: int) -> None:
    with pytest.raises(RecordUnreadableError, match=f"Entry {number} .* follows entry 1"):
        after(EVENTS["intended"], state=at_status(Status.PLANNED), number=number)


def test_a_later_claim_brings_its_own_deadline_and_keeps_the_images() -> None:
    state = at_status(Status.SUBMITTED)
    claimed = after(Claimed(deadline=START + 9999), state=state, writer=THEM)
    assert (claimed.deadline, claimed.images) == (START + 9999, state.images)


@pytest.mark.parametrize(("status", "name"), list(MEANT))
def test_the_fold_changes_nothing_that_it_was_given(status: Status, name: str) -> None:
    state = at_status(status)
    before = copy.deepcopy(state)
    assert after(EVENTS[name], state=state) != before
    assert state == before
