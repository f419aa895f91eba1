"""Each decision is a table: its rows here, and what holds for all facts by hypothesis. No I/O, no clock."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.decisions import (
    CONNECTION_TRIES,
    Adopt,
    Buy,
    DestinationFacts,
    Fail,
    Postpone,
    Record,
    Refusal,
    Refuse,
    Resolve,
    Reuse,
    SendAgain,
    SubmissionFacts,
    TakeOver,
    WaitUntil,
    WantedFacts,
    decide_destination,
    decide_submission,
    decide_wanted,
)
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.records import Failure, ImageState, JobState, Status
from airflow_provider_bitdance.records.reservations import Reservation
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome
from tests.unit.support import a_job, a_plan, a_receipt, a_writer

SAME, OTHER = "same", "other"
NOW = 1_000.0


def bought(status: Status = Status.SUBMITTED, *, fingerprint: str = SAME, **changes: Any) -> ImageState:
    plan = a_plan("image").model_copy(update={"fingerprint": fingerprint})
    return ImageState(plan, status, prediction_id="pred-9", **changes)


# What to do for a wanted image

OF_SIZE: dict[str, Any] = {"fingerprint": SAME, "width": 1024, "height": 1024}
STORED = a_receipt(**OF_SIZE)
FLAGGED = a_receipt(**OF_SIZE, nsfw=True)
OTHER_SIZE = a_receipt(fingerprint=SAME)
ANOTHER = a_receipt(fingerprint=OTHER)
WANTED: list[tuple[str, dict[str, Any], dict[str, Any], object]] = [
    ("nothing is there", {}, {}, Buy()),
    ("the same is stored", {"receipt": STORED}, {}, Reuse(STORED)),
    ("another is stored", {"receipt": ANOTHER}, {}, Buy()),
    ("the same is stored, flagged", {"receipt": FLAGGED}, {}, Refuse(Refusal.NOT_ALLOWED)),
    ("the same is stored, flagged and allowed", {"receipt": FLAGGED}, {"nsfw": "allow"}, Reuse(FLAGGED)),
    ("the same is stored, of another size", {"receipt": OTHER_SIZE}, {}, Reuse(OTHER_SIZE)),
    (
        "the same is stored, of another size, and refused",
        {"receipt": OTHER_SIZE},
        {"on_size_mismatch": "fail"},
        Refuse(Refusal.NOT_ALLOWED),
    ),
    ("the same is stored, of its size", {"receipt": STORED}, {"on_size_mismatch": "fail"}, Reuse(STORED)),
    ("stored, and bought anew", {"receipt": STORED}, {"if_exists": "regenerate"}, Buy()),
    ("something is there, and may not", {"exists": True}, {"if_exists": "fail"}, Refuse(Refusal.EXISTS)),
    ("something is there, and may", {"exists": True}, {}, Buy()),
    ("something may not be there, and is not", {}, {"if_exists": "fail"}, Buy()),
    ("in flight since before a clear", {"earlier": (bought(),)}, {}, Adopt(bought())),
    ("stored and in flight", {"earlier": (bought(),), "receipt": STORED}, {}, Reuse(STORED)),
    (
        "another in flight",
        {"earlier": (bought(fingerprint=OTHER),)},
        {},
        Buy(leaves="pred-9"),
    ),
    ("in flight, bought anew", {"earlier": (bought(),)}, {"if_exists": "regenerate"}, Buy(leaves="pred-9")),
    ("planned before a clear", {"earlier": (bought(Status.PLANNED),)}, {}, Buy()),
    ("failed before a clear", {"earlier": (bought(Status.FAILED, failure=Failure.FAILED),)}, {}, Buy()),
    ("flagged before a clear", {"earlier": (bought(Status.FAILED, failure=Failure.NSFW),)}, {}, Buy()),
    (
        "failed before a clear, flagged ones allowed",
        {"earlier": (bought(Status.FAILED, failure=Failure.FAILED),)},
        {"nsfw": "allow"},
        Buy(),
    ),
    (
        "flagged before a clear, allowed by now",
        {"earlier": (bought(Status.FAILED, failure=Failure.NSFW),)},
        {"nsfw": "allow"},
        Adopt(bought(Status.FAILED, failure=Failure.NSFW)),
    ),
    (
        "of another size before a clear, and gone",
        {"earlier": (bought(Status.FAILED, failure=Failure.SIZE),)},
        {"on_size_mismatch": "fail"},
        Buy(),
    ),
    (
        "of another size before a clear, allowed by now, and gone",
        {"earlier": (bought(Status.FAILED, failure=Failure.SIZE),)},
        {},
        Adopt(bought(Status.FAILED, failure=Failure.SIZE)),
    ),
    (
        "in flight, and not wanted at the last clear",
        {"earlier": (bought(fingerprint=OTHER), bought())},
        {},
        Adopt(bought()),
    ),
    (
        "in flight before a generation that bought nothing",
        {"earlier": (replace(bought(Status.PLANNED), prediction_id=""), bought())},
        {},
        Adopt(bought()),
    ),
    (
        "failed after a clear, in flight before it",
        {"earlier": (bought(Status.FAILED, failure=Failure.FAILED), bought())},
        {},
        Buy(),
    ),
]


@pytest.mark.parametrize(
    ("facts", "policy", "command"), [row[1:] for row in WANTED], ids=[row[0] for row in WANTED]
)
def test_what_to_do_for_a_wanted_image(facts: Any, policy: Any, command: object) -> None:
    assert decide_wanted(WantedFacts(fingerprint=SAME, policy=Policy(**policy), **facts)) == command


def test_what_is_reused_is_of_the_same_request_and_what_is_adopted_was_bought() -> None:
    for facts in product(
        [False, True],
        [None, STORED, FLAGGED, OTHER_SIZE, ANOTHER],
        [(), *((bought(status),) for status in Status)],
    ):
        for if_exists, nsfw, size in product(
            ("reuse", "regenerate", "fail"), ("fail", "skip", "allow"), ("warn", "fail")
        ):
            policy = Policy(if_exists=if_exists, nsfw=nsfw, on_size_mismatch=size)
            command = decide_wanted(WantedFacts(SAME, policy, *facts))
            if isinstance(command, Reuse):
                assert command.receipt.fingerprint == SAME
                assert if_exists == "reuse"
                assert nsfw == "allow" or not command.receipt.nsfw
                assert size == "warn" or not command.receipt.is_other_size
            if isinstance(command, Adopt):
                assert command.image.prediction_id
                assert if_exists != "regenerate"


# Whose destination is it

OURS, THEIRS = a_job(task_id="ours"), a_job(dag_id="other", task_id="theirs")


def reservation(job: Any = THEIRS, *, fingerprint: str = SAME, at: float = 500.0) -> Reservation:
    return Reservation(
        number=1,
        time=datetime.fromtimestamp(at, UTC),
        writer=a_writer(job=job),
        key="image",
        fingerprint=fingerprint,
    )


def holder(status: Status = Status.SUBMITTED, *, deadline: float = NOW + 60) -> JobState:
    return JobState(deadline=deadline, images={"image": bought(status)})


SIBLING = OURS.model_copy(update={"map_index": 3})
EARLIER, LATER = (a_job(task_id="ours", iteration=f"1.019{region}") for region in "ac")
IN_LOOP = a_job(task_id="ours", iteration="1.019b")
OF_ANOTHER_RUN = SIBLING.model_copy(update={"run_id": "run-0"})
DESTINATION: list[tuple[str, dict[str, Any], object]] = [
    ("nobody holds it", {}, Buy()),
    ("an earlier generation holds it", {"held": reservation(OURS), "holder": holder()}, Buy()),
    ("another makes the same", {"held": reservation(), "holder": holder()}, WaitUntil(NOW + 60)),
    (
        "another is about to make the same",
        {"held": reservation(), "holder": holder(Status.PLANNED)},
        WaitUntil(NOW + 60),
    ),
    ("its lease has ended", {"held": reservation(), "holder": holder(deadline=NOW)}, TakeOver()),
    ("it failed for good", {"held": reservation(), "holder": holder(Status.FAILED)}, TakeOver()),
    (
        "it is stopped, bought",
        {"held": reservation(), "holder": holder(), "is_stopped": True},
        Adopt(bought()),
    ),
    (
        "it is stopped, not bought",
        {"held": reservation(), "holder": holder(Status.PLANNED), "is_stopped": True},
        Buy(),
    ),
    (
        "it is stopped, failed",
        {"held": reservation(), "holder": holder(Status.FAILED), "is_stopped": True},
        Buy(),
    ),
    ("it has stored the same", {"held": reservation(), "holder": holder(), "receipt": STORED}, Reuse(STORED)),
    ("stored, its file is gone", {"held": reservation(), "holder": holder(Status.STORED)}, Buy()),
    ("its journal is gone", {"held": reservation()}, Buy()),
    ("it died before its plan", {"held": reservation(), "holder": JobState(deadline=NOW + 60)}, Buy()),
    ("its journal is gone, stored", {"held": reservation(), "receipt": STORED}, Reuse(STORED)),
    ("its journal is gone, another's image", {"held": reservation(), "receipt": ANOTHER}, Buy()),
    (
        "another makes another",
        {"held": reservation(fingerprint=OTHER), "holder": holder()},
        Refuse(Refusal.IN_USE, NOW + 60),
    ),
    (
        "another image, its lease has ended",
        {"held": reservation(fingerprint=OTHER), "holder": holder(deadline=NOW)},
        TakeOver(),
    ),
    (
        "another image, stopped",
        {"held": reservation(fingerprint=OTHER), "holder": holder(), "is_stopped": True},
        Buy(leaves="pred-9"),
    ),
    (
        "a sibling of this run has just made another",
        {"held": reservation(SIBLING, fingerprint=OTHER), "holder": holder(Status.STORED)},
        Refuse(Refusal.JUST_MADE),
    ),
    (
        "a sibling made another before the run was cleared",
        {"held": reservation(SIBLING, fingerprint=OTHER, at=50.0), "holder": holder(Status.STORED)},
        Buy(),
    ),
    (
        "a sibling of this run has just made the same, and its file is gone",
        {"held": reservation(SIBLING), "holder": holder(Status.STORED)},
        Buy(),
    ),
    (
        "a sibling of another run of this Dag has made another",
        {"held": reservation(OF_ANOTHER_RUN, fingerprint=OTHER), "holder": holder(Status.STORED)},
        Buy(),
    ),
    *(
        (
            f"an earlier task instance of this iteration holds it, {status}",
            {"job": IN_LOOP, "held": reservation(EARLIER, fingerprint=OTHER), "holder": holder(status)},
            Buy() if status is Status.STORED else TakeOver(),
        )
        for status in Status
    ),
    (
        "an earlier task instance of this iteration makes the same",
        {"job": IN_LOOP, "held": reservation(EARLIER), "holder": holder()},
        TakeOver(),
    ),
    *(
        (
            f"a later task instance of this iteration holds it, {status}",
            {"job": IN_LOOP, "held": reservation(LATER, fingerprint=made), "holder": holder(status)},
            Refuse(Refusal.CLEARED),
        )
        for status in Status
        for made in (SAME, OTHER)
    ),
    (
        "another iteration makes another",
        {
            "job": IN_LOOP,
            "held": reservation(IN_LOOP.model_copy(update={"iteration": "2.019a"}), fingerprint=OTHER),
            "holder": holder(),
        },
        Refuse(Refusal.IN_USE, NOW + 60),
    ),
    (
        "another run has made another",
        {"held": reservation(fingerprint=OTHER), "holder": holder(Status.STORED)},
        Buy(),
    ),
]


@pytest.mark.parametrize(
    ("facts", "command"), [row[1:] for row in DESTINATION], ids=[row[0] for row in DESTINATION]
)
def test_whose_destination_it_is(facts: Any, command: object) -> None:
    known = DestinationFacts(OURS, SAME, Policy(), now=NOW, run_started_at=100.0)
    assert decide_destination(replace(known, **facts)) == command


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("deadline", [NOW - 1, NOW + 60])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_who_buys_anew_shares_nothing(status: Status, deadline: float, is_stopped: bool) -> None:
    facts = DestinationFacts(
        *(OURS, SAME, Policy(if_exists="regenerate")),
        now=NOW,
        run_started_at=100.0,
        held=reservation(),
        holder=holder(status, deadline=deadline),
        is_stopped=is_stopped,
        receipt=STORED,
    )
    command = decide_destination(facts)
    assert not isinstance(command, Reuse | WaitUntil)
    assert not (isinstance(command, Adopt))


# After a submission


def submitted(outcome: SubmissionOutcome, **changes: Any) -> object:
    facts = SubmissionFacts(outcome=outcome, break_even=14.0, now=NOW, deadline=NOW + 600)
    return decide_submission(replace(facts, **changes))


SUBMISSION: list[tuple[str, SubmissionOutcome, dict[str, Any], object]] = [
    ("created", SubmissionOutcome.CREATED, {}, Record()),
    ("nobody knows", SubmissionOutcome.UNKNOWN, {}, Resolve()),
    ("nobody knows, and it is late", SubmissionOutcome.UNKNOWN, {"deadline": NOW}, Resolve()),
    ("refused", SubmissionOutcome.REFUSED, {}, Fail()),
    ("429", SubmissionOutcome.NOT_CREATED, {"blocked": 3.0}, SendAgain(3.0)),
    ("429 for as long as a deferral", SubmissionOutcome.NOT_CREATED, {"blocked": 14.0}, Postpone(14.0)),
    ("429 beyond the deadline", SubmissionOutcome.NOT_CREATED, {"blocked": 600.0}, Fail()),
    (
        "429, and no deferral",
        SubmissionOutcome.NOT_CREATED,
        {"blocked": 99.0, "break_even": math.inf},
        SendAgain(99.0),
    ),
    ("not sent", SubmissionOutcome.NOT_CREATED, {"not_sent": 1}, SendAgain(1.0)),
    (
        "not sent, while others were refused",
        SubmissionOutcome.NOT_CREATED,
        {"not_sent": 1, "blocked": 5.0},
        SendAgain(5.0),
    ),
    ("not sent again", SubmissionOutcome.NOT_CREATED, {"not_sent": 3}, SendAgain(4.0)),
    (
        "not sent, for as long as a deferral",
        SubmissionOutcome.NOT_CREATED,
        {"not_sent": 3, "break_even": 4.0},
        SendAgain(4.0),
    ),
    ("not sent too often", SubmissionOutcome.NOT_CREATED, {"not_sent": CONNECTION_TRIES}, Fail()),
    ("not sent, and it is late", SubmissionOutcome.NOT_CREATED, {"not_sent": 1, "deadline": NOW + 1}, Fail()),
]


@pytest.mark.parametrize(
    ("outcome", "changes", "command"), [row[1:] for row in SUBMISSION], ids=[row[0] for row in SUBMISSION]
)
def test_what_follows_a_submission(outcome: SubmissionOutcome, changes: Any, command: object) -> None:
    assert submitted(outcome, **changes) == command


@given(
    st.sampled_from(SubmissionOutcome),
    st.integers(0, 9),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_a_submission_is_sent_again_only_if_certainly_nothing_was_created(
    outcome: SubmissionOutcome, not_sent: int, blocked: float, break_even: float, left: float
) -> None:
    facts = SubmissionFacts(outcome, break_even, NOW, NOW + left, not_sent, blocked)
    command = decide_submission(facts)
    if isinstance(command, SendAgain | Postpone):
        assert outcome is SubmissionOutcome.NOT_CREATED
    if isinstance(command, SendAgain):
        assert blocked <= command.after < left
    assert isinstance(command, Record) == (outcome is SubmissionOutcome.CREATED)
    assert isinstance(command, Resolve) == (outcome is SubmissionOutcome.UNKNOWN)
