"""The state of a job: the fold of its journal's entries. Pure; every (status, event) pair is defined."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.records.events import (
    Adopted,
    Claimed,
    Entry,
    Failed,
    Failure,
    ImageEvent,
    ImageSnapshot,
    Intended,
    Job,
    Lost,
    Orphaned,
    Owner,
    Planned,
    PlannedImage,
    Rested,
    Snapshot,
    Status,
    Stored,
    Submitted,
)

MILLION = 1_000_000
"""Money is counted in millionths of a dollar: a sum of floats depends on its order and on the Python."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """What the journal says of one image.

    :param intent: How many intents there were.
    :param intended_at: Unix time of the last one.
    :param is_request_of_other: An adoption has put the other job's request, with its seed, into the plan.
    :param bought_by: The other job that bought the prediction, where one did.
    :param failed_in_try: The number of the try in which it failed.
    :param purchases: Predictions that this job bought for it.
    :param unanswered: Intents of this job that may have been charged, and gave it no prediction.
    """

    plan: PlannedImage
    status: Status = Status.PLANNED
    intent: int = 0
    intended_at: float = 0.0
    prediction_id: str = ""
    submitted_at: float = 0.0
    bought_by: Job | None = None
    is_request_of_other: bool = False
    receipt: str = ""
    reused: bool = False
    failure: Failure | None = None
    failed_in_try: int = 0
    reason: str = ""
    purchases: int = 0
    unanswered: frozenset[int] = frozenset()

    @property
    def possibly_paid(self) -> int:
        """How many submissions may have been charged and gave no prediction, those before a clear too."""
        return self.plan.possibly_paid + len(self.unanswered)

    @property
    def unconfirmed(self) -> int:
        """How many of them this job made, the one that is under way among them."""
        return len(self.unanswered) + (self.status is Status.INTENDED)

    @property
    def spent(self) -> int:
        """What this job has spent on it at most. Failed predictions count: not each is refunded."""
        return (self.purchases + self.unconfirmed) * round(self.plan.estimated_cost_usd * MILLION)


@dataclass(frozen=True, slots=True)
class JobState:
    """What the journal says of the job: the fold of its entries.

    :param number: Of the last entry; 0 before the first.
    :param time: Of the last entry, Unix time.
    :param planned_at: Unix time of the plan; 0 before.
    :param is_batch: It was planned as a batch. Of several images it is one, whatever an older plan says.
    :param window: Predictions in flight that the account took at once, where a process before found out.
    :param blocked_until: Unix time before which the account takes no submission, after a 429; 0 without one.
    :param spent: What the job has spent at most: estimated, with what is possibly paid, in millionths of $1.
    """

    number: int = 0
    time: float = 0.0
    writer: Owner | None = None
    deadline: float = 0.0
    output: str = ""
    planned_at: float = 0.0
    is_batch: bool = False
    window: int | None = None
    blocked_until: float = 0.0
    images: dict[str, ImageState] = field(default_factory=dict)
    spent: int = 0

    @property
    def spent_usd(self) -> float:
        """What the job has spent at most, in dollars."""
        return self.spent / MILLION

    @property
    def is_stored(self) -> bool:
        """Whether there is a plan, and each of its images is stored."""
        return bool(self.images) and all(image.status is Status.STORED for image in self.images.values())

    @property
    def has_work(self) -> bool:
        """Whether it has images that have neither been stored nor failed."""
        return any(image.status not in (Status.STORED, Status.FAILED) for image in self.images.values())

    def having(self, *statuses: Status) -> list[ImageState]:
        """Return the images in one of these statuses, in the plan's order."""
        return [image for image in self.images.values() if image.status in statuses]


NEXT: dict[tuple[Status, str], Status] = {
    (Status.PLANNED, "intended"): Status.INTENDED,
    (Status.PLANNED, "stored"): Status.STORED,  # reused: there was nothing to buy
    (Status.PLANNED, "adopted"): Status.SUBMITTED,
    (Status.PLANNED, "failed"): Status.FAILED,  # what is stored there is not to be had, and not bought again
    (Status.INTENDED, "submitted"): Status.SUBMITTED,
    (Status.INTENDED, "not_created"): Status.PLANNED,
    (Status.INTENDED, "lost"): Status.PLANNED,
    (Status.SUBMITTED, "stored"): Status.STORED,
    (Status.SUBMITTED, "failed"): Status.FAILED,
    # A next try buys anew what failed without our fault, unless another task has it by then.
    (Status.FAILED, "intended"): Status.INTENDED,
    (Status.FAILED, "adopted"): Status.SUBMITTED,
    (Status.FAILED, "stored"): Status.STORED,
}
"""Every (status, event) pair that may happen to an image; any other is a damaged journal."""


def fold(state: JobState, entry: Entry) -> JobState:
    """Return the state after one more entry. Pure.

    :raises RecordUnreadableError: The entry breaks the format's rules.
    """
    if entry.number != state.number + 1:
        raise _broken(entry, f"follows entry {state.number}")
    claims = isinstance(entry.events[0], Claimed)
    if not entry.is_note:
        if not claims and (state.writer is None or state.writer.token != entry.writer.token):
            raise _broken(entry, "is of a writer that has not claimed the journal")
        state = replace(state, time=entry.time.timestamp(), writer=entry.writer)
    state = replace(state, number=entry.number)
    images = dict(state.images)
    spent = state.spent
    for event in entry.events:
        if isinstance(event, Claimed):
            state = replace(state, deadline=event.deadline)
        elif isinstance(event, Rested):
            state = replace(state, window=event.window, blocked_until=event.until)
        elif isinstance(event, Planned):
            if images:
                raise _broken(entry, "plans a second time")
            is_batch = event.is_batch or len(event.images) > 1
            planned_at = entry.time.timestamp()
            state = replace(state, output=event.output, is_batch=is_batch, planned_at=planned_at)
            images = {plan.key: ImageState(plan) for plan in event.images}
        elif not isinstance(event, Snapshot):
            for key in event.keys if isinstance(event, Intended) else (event.key,):
                if key not in images:
                    raise _broken(entry, f"speaks of an image {key!r} that was not planned")
                before = images[key]
                images[key] = _apply_to_image(before, entry, event)
                spent += images[key].spent - before.spent
    return replace(state, images=images, spent=spent)


def snapshot_of(state: JobState) -> Snapshot:
    """Return the event that holds a job's state, without its plan."""
    return Snapshot(
        deadline=state.deadline,
        window=state.window,
        blocked_until=state.blocked_until,
        images={key: _short(image) for key, image in state.images.items() if image != ImageState(image.plan)},
    )


def at_snapshot(planned: JobState, entry: Entry, snapshot: Snapshot) -> JobState:
    """Return the state after an entry with a snapshot, from any earlier state that has the plan."""
    images = {
        key: _whole(image.plan, snapshot.images[key]) if key in snapshot.images else ImageState(image.plan)
        for key, image in planned.images.items()
    }
    return replace(
        planned,
        number=entry.number,
        time=entry.time.timestamp(),
        writer=entry.writer,
        deadline=snapshot.deadline,
        window=snapshot.window,
        blocked_until=snapshot.blocked_until,
        images=images,
        spent=sum(image.spent for image in images.values()),
    )


def _short(image: ImageState) -> ImageSnapshot:
    fields = {name: getattr(image, name) for name in ImageSnapshot.model_fields if name != "request"}
    request = image.plan.request if image.is_request_of_other else None
    return ImageSnapshot(**{**fields, "unanswered": tuple(sorted(image.unanswered))}, request=request)


def _whole(plan: PlannedImage, short: ImageSnapshot) -> ImageState:
    fields = {name: getattr(short, name) for name in ImageSnapshot.model_fields if name != "request"}
    if short.request is not None:
        plan = plan.model_copy(update={"request": short.request})
    fields |= {"unanswered": frozenset(short.unanswered), "is_request_of_other": short.request is not None}
    return ImageState(plan, **fields)


def _apply_to_image(image: ImageState, entry: Entry, event: Intended | ImageEvent) -> ImageState:
    if isinstance(event, Orphaned):
        found_meanwhile = event.prediction_id == image.prediction_id
        return image if found_meanwhile else replace(image, unanswered=image.unanswered | {event.intent})
    status = NEXT.get((image.status, event.event))
    if status is None:
        raise _broken(entry, f"says {event.event!r} of an image that is {image.status}")
    image = replace(image, status=status)
    if isinstance(event, Intended):
        return replace(image, intent=image.intent + 1, intended_at=entry.time.timestamp())
    if isinstance(event, Submitted):
        return replace(
            image,
            prediction_id=event.prediction_id,
            submitted_at=entry.time.timestamp(),
            bought_by=None,
            purchases=image.purchases + 1,
            unanswered=image.unanswered - {image.intent},
            failure=None,
        )
    if isinstance(event, Adopted):
        return replace(
            image,
            plan=image.plan.model_copy(update={"request": event.request}),
            prediction_id=event.prediction_id,
            submitted_at=event.submitted_at.timestamp(),
            bought_by=event.bought_by,
            is_request_of_other=True,
            failure=None,
        )
    if isinstance(event, Lost):
        return replace(image, unanswered=image.unanswered | {image.intent}, reason=event.reason)
    if isinstance(event, Stored):
        return replace(image, receipt=event.receipt, reused=event.reused)
    if isinstance(event, Failed):
        return replace(
            image, failure=event.failure, reason=event.reason, failed_in_try=entry.writer.try_number
        )
    return image


def _broken(entry: Entry, how: str) -> RecordUnreadableError:
    return RecordUnreadableError(
        f"Entry {entry.number} of the journal {entry.writer.job.folder} {how}",
        fix="Keep the folder. To have what is not stored bought anew, move it away as a whole",
    )
