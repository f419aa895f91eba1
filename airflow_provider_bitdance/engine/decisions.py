"""Decisions: what is bought, adopted, sent again or given up, as plain functions of facts and the time.

Money and truth are decided here and, where a response was lost, in ``lost_response_decisions.py``. Nothing
in them waits, reads or writes: the modules beside them fetch the facts and carry the commands out. Each
function is a table that a test enumerates (``tests/unit/engine/test_decisions.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.records import ImageState, Job, JobState, Status
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.reservations import Reservation
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome

CONNECTION_TRIES = 5
"""Submissions in a row that may fail to reach the API; then the try ends, and Airflow's retry goes on."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between them: doubled each time."""


class Refusal(StrEnum):
    """Why an image is neither bought nor taken from what is there."""

    EXISTS = "exists"  # if_exists="fail"
    NOT_ALLOWED = "not allowed"  # flagged, or of another size than was requested
    IN_USE = "in use"  # another task makes a different image there
    JUST_MADE = "just made"  # another task of this Dag run has made a different image there
    CLEARED = "cleared"  # the same iteration of a loop, begun again by a clear, has the destination


@dataclass(frozen=True, slots=True)
class Reuse:
    """The stored image is the result; nothing is paid for it."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Adopt:
    """What another job, or an earlier generation, has bought is this job's too; nothing is bought."""

    image: ImageState


@dataclass(frozen=True, slots=True)
class Buy:
    """Nothing that is there can be used; a destination that was asked for is this job's.

    :param leaves: An earlier purchase that stays collectable and is not used; empty without one.
    """

    leaves: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Neither bought nor taken.

    :param until: Unix time at which the destination is free at the latest; 0 if no time is known.
    """

    why: Refusal
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class WantedFacts:
    """What is known of an image before the plan is written.

    :param fingerprint: Identity of what is requested.
    :param exists: There is an image at the destination; checked for ``if_exists="fail"`` only.
    :param receipt: Of the image there, if its file is as it was recorded.
    :param earlier: The image in the task's earlier generations that planned it, the last one first.
    """

    fingerprint: str
    policy: Policy
    exists: bool = False
    receipt: Receipt | None = None
    earlier: tuple[ImageState, ...] = ()

    @property
    def bought(self) -> ImageState | None:
        """The image as the last generation knows it that bought this very request, else as the last one does.

        A row may have been removed, or have had another prompt, at one clear and be back at the next.
        """
        same = (
            image
            for image in self.earlier
            if image.prediction_id and image.plan.fingerprint == self.fingerprint
        )
        return next(same, self.earlier[0] if self.earlier else None)


def decide_wanted(facts: WantedFacts) -> Reuse | Adopt | Buy | Refuse:
    """Decide what to do for a wanted image, when its job is planned."""
    policy, receipt, earlier = facts.policy, facts.receipt, facts.bought
    if policy.if_exists == "fail" and facts.exists:
        return Refuse(Refusal.EXISTS)
    if policy.if_exists == "reuse" and receipt is not None and receipt.fingerprint == facts.fingerprint:
        return Reuse(receipt) if policy.allows(receipt) else Refuse(Refusal.NOT_ALLOWED)
    if earlier is None or not _is_collectable(earlier, policy):
        return Buy()
    is_same = policy.if_exists != "regenerate" and earlier.plan.fingerprint == facts.fingerprint
    return _adopted_or_left(earlier, is_same=is_same)


def _adopted_or_left(bought: ImageState, *, is_same: bool) -> Adopt | Buy:
    return Adopt(bought) if is_same else Buy(leaves=bought.prediction_id)


def _is_collectable(earlier: ImageState, policy: Policy) -> bool:
    """Whether an earlier purchase can still become the image: in flight, or allowed by now."""
    return earlier.status is Status.SUBMITTED or policy.allows_by_now(earlier)


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Another task makes the same image: wait for its receipt, at most until its lease ends (Unix time)."""

    moment: float


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The lease of the job that holds the destination has ended: claim its journal, then decide again."""


@dataclass(frozen=True, slots=True)
class DestinationFacts:
    """What is known of a destination that two jobs may want at once.

    :param job: Ours.
    :param fingerprint: Identity of what our job requests.
    :param run_started_at: Unix time at which our Dag run began, or was restarted when it was cleared.
    :param held: The last reservation of the destination.
    :param holder: State of the job that made it; ``None`` if its journal is gone.
    :param is_stopped: This process has claimed that job's journal, so the job buys nothing more.
    :param receipt: Of the image that is there, if its file is as it was recorded.
    """

    job: Job
    fingerprint: str
    policy: Policy
    now: float
    run_started_at: float
    held: Reservation | None = None
    holder: JobState | None = None
    is_stopped: bool = False
    receipt: Receipt | None = None

    @property
    def is_same(self) -> bool:
        """Whether the holder requests the same image, and this job may use it."""
        of_same = self.held is not None and self.held.fingerprint == self.fingerprint
        return of_same and self.policy.if_exists == "reuse"


def decide_destination(facts: DestinationFacts) -> Adopt | Buy | WaitUntil | Reuse | TakeOver | Refuse:
    """Decide whose destination it is: a reservation is a lease that ends with its job's deadline."""
    held, holder, receipt = facts.held, facts.holder, facts.receipt
    if receipt is not None and receipt.fingerprint == facts.fingerprint and facts.policy.if_exists == "reuse":
        return Reuse(receipt)
    if held is None or held.writer.job.same_task(facts.job):
        return Buy()
    if held.writer.job.replaces(facts.job):
        return Refuse(Refusal.CLEARED)
    if holder is None or held.key not in holder.images:
        return Buy()
    return _decide_held(facts, held, holder)


def _decide_held(
    facts: DestinationFacts, held: Reservation, holder: JobState
) -> Adopt | Buy | WaitUntil | TakeOver | Refuse:
    """Decide it where another task holds the destination, by how far that has come with its image."""
    theirs = holder.images[held.key]
    if theirs.status is Status.STORED:
        # With the same request its file is gone, or belongs to another task by now: it is bought again.
        return Refuse(Refusal.JUST_MADE) if _is_just_made(facts, held) else Buy()
    if facts.is_stopped:
        is_bought = theirs.status is Status.SUBMITTED
        return _adopted_or_left(theirs, is_same=facts.is_same) if is_bought else Buy()
    lease_end = holder.lease_end(facts.now)
    if facts.now >= lease_end or not holder.has_work or facts.job.replaces(held.writer.job):
        return TakeOver()
    return WaitUntil(lease_end) if facts.is_same else Refuse(Refusal.IN_USE, until=lease_end)


def _is_just_made(facts: DestinationFacts, held: Reservation) -> bool:
    """Whether another task of this Dag run has made a different image there since the run began.

    Mapped tasks with one file's name would each buy an image, and keep one.
    """
    other, ours = held.writer.job, facts.job
    is_of_this_run = (other.dag_id, other.run_id) == (ours.dag_id, ours.run_id)
    is_old = held.time.timestamp() < facts.run_started_at or ours.replaces(other)
    return is_of_this_run and not is_old and held.fingerprint != facts.fingerprint


@dataclass(frozen=True, slots=True)
class Record:
    """The API created a prediction: write down its id."""


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Nothing was created: the same submission is sent again after some seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Postpone:
    """Nothing was created, and the account takes nothing for so long that the image is planned again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """A prediction may exist: search the account's history before anything else is sent."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing was created, and this try does not send it again."""


@dataclass(frozen=True, slots=True)
class SubmissionFacts:
    """What is known after a submission.

    :param not_sent: Submissions in a row, this one among them, that did not reach the API.
    :param blocked: Seconds for which the rate limiter sends nothing, after a 429.
    :param break_even: Seconds from which on it is cheaper to wait elsewhere.
    :param now: Unix time.
    :param deadline: Unix time at which this try ends.
    """

    outcome: SubmissionOutcome
    break_even: float
    now: float
    deadline: float
    not_sent: int = 0
    blocked: float = 0.0


def decide_submission(facts: SubmissionFacts) -> Record | SendAgain | Postpone | Resolve | Fail:
    """Decide what follows a submission. A POST is repeated only if certainly nothing was created."""
    if facts.outcome is SubmissionOutcome.CREATED:
        return Record()
    if facts.outcome is SubmissionOutcome.UNKNOWN:
        return Resolve()
    if facts.outcome is SubmissionOutcome.REFUSED or facts.not_sent >= CONNECTION_TRIES:
        return Fail()
    pause = facts.blocked
    if facts.not_sent:
        pause = max(pause, min(FIRST_PAUSE * 2.0 ** (facts.not_sent - 1), LONGEST_PAUSE))
    if facts.now + pause >= facts.deadline:
        return Fail()
    return Postpone(pause) if facts.blocked >= facts.break_even else SendAgain(pause)
