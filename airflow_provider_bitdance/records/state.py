"""The state of a job: the fold of its journal's entries, and of the notes beside it.

Pure; every (status, event) pair is defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.records.events import (
    Adopted,
    Claimed,
    Entry,
    Event,
    Failed,
    Failure,
    ImageEvent,
    Intended,
    Lost,
    NotCreated,
    Orphaned,
    Planned,
    PlannedImage,
    Rested,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.notes import Note
from airflow_provider_bitdance.records.owner import PRUNER, Job, Owner
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

LONGEST_LEASE = 7 * 24 * 3600.0 + 60.0
"""Seconds; no task waits longer than 7 days, for WaveSpeed keeps no output longer. The rest is for clocks."""
MILLION = 1_000_000
"""Money is counted in millionths of a dollar: a sum of floats depends on its order and on the Python."""


@dataclass(frozen=True, slots=True)
class LostPurchase:
    """A purchase whose response was lost; Unix times.

    :param request: What was sent. What the image is made of may have changed since: another job's seed.
    :param given_up_at: When it was given up, or its process replaced.
    """

    request: ImageRequest
    intended_at: float
    given_up_at: float


@dataclass(frozen=True, slots=True)
class ImageState:
    """What the journal says of one image.

    :param intent: How many intents there were.
    :param intended_at: Unix time of the last one.
    :param bought_by: The other job that bought the prediction, where one did.
    :param failed_in_try: The number of the try in which it failed.
    :param bought: The predictions that this job bought for it, by the number of their intent.
    :param lost: Purchases whose response was lost, by the number of their intent.
    :param notes: What processes of this job bought for it after they had been replaced.
    """

    plan: PlannedImage
    status: Status = Status.PLANNED
    intent: int = 0
    intended_at: float = 0.0
    prediction_id: str = ""
    submitted_at: float = 0.0
    bought_by: Job | None = None
    receipt: str = ""
    reused: bool = False
    failure: Failure | None = None
    failed_in_try: int = 0
    reason: str = ""
    bought: dict[int, str] = field(default_factory=dict)
    lost: dict[int, LostPurchase] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def purchases(self) -> int:
        """How many predictions this job bought for it."""
        return len(self.bought)

    @property
    def unanswered(self) -> frozenset[int]:
        """Intents of this job that may have been charged, and gave it no prediction."""
        if not self.notes:
            return frozenset(self.lost)
        # A note and a loss of one intent are one purchase. Where the account's history has shown the
        # noted prediction to be that of the intent, it is none at all.
        noted = {note.intent for note in self.notes if self.bought.get(note.intent) != note.prediction_id}
        return frozenset(self.lost) | noted

    @property
    def possibly_paid(self) -> int:
        """How many submissions may have been charged and gave no prediction, those before a clear too."""
        return self.plan.possibly_paid + len(self.unanswered)

    @property
    def unconfirmed(self) -> int:
        """How many of them this job made, the one that is under way among them."""
        open_intent = {self.intent} if self.status is Status.INTENDED else set()
        return len(self.unanswered | open_intent)

    @property
    def predictions(self) -> set[str]:
        """The ids of all predictions that the job knows as this image's."""
        current = {self.prediction_id} - {""}
        return current.union(self.bought.values(), (note.prediction_id for note in self.notes))

    @property
    def spent(self) -> int:
        """What this job has spent on it and its prompt at most. Failed predictions count: not each is
        refunded."""
        prompt = self.plan.enhancement.spent_usd if self.plan.enhancement else 0.0
        purchases = self.purchases + self.unconfirmed
        return purchases * round(self.plan.estimated_cost_usd * MILLION) + round(prompt * MILLION)


@dataclass(frozen=True, slots=True)
class JobState:
    """What the journal says of the job: the fold of its entries.

    :param number: Of the last entry; 0 before the first.
    :param time: Of the last entry, Unix time.
    :param planned_at: Unix time of the plan; 0 before.
    :param is_batch: It was planned as a batch. Of several images it is one, whatever an older plan says.
    :param window: Predictions in flight that the account took at once, where a process before found out.
    :param blocked_until: Unix time before which the account takes no submission, after a 429; 0 without one.
    :param rested_in: Number of the try that found that out.
    :param key_of: By id, the image that a prediction was bought or adopted for. It is never that of two.
    :param noted: Ids of the predictions that notes speak of.
    :param spent: What the job has spent at most: estimated, with what is possibly paid, in millionths of $1.
    :param may_have_notes: A process was replaced while it had intents open: it may leave notes at any time.
    """

    number: int = 0
    time: float = 0.0
    owner: Owner | None = None
    deadline: float = 0.0
    output: str = ""
    planned_at: float = 0.0
    is_batch: bool = False
    window: int | None = None
    blocked_until: float = 0.0
    rested_in: int = 0
    images: dict[str, ImageState] = field(default_factory=dict)
    key_of: dict[str, str] = field(default_factory=dict)
    noted: frozenset[str] = frozenset()
    spent: int = 0
    may_have_notes: bool = False

    @property
    def spent_usd(self) -> float:
        """What the job has spent at most, in dollars."""
        return self.spent / MILLION

    def lease_end(self, now: float) -> float:
        """Return the Unix time until which the job may be at work; 0 where that is further away than any task
        waits: no task wrote it, and nobody is to wait for it.
        """
        return self.deadline if self.deadline <= now + LONGEST_LEASE else 0.0

    @property
    def is_owned_by_prune(self) -> bool:
        """Whether its last claim is that of a process that removes journals."""
        return self.owner is not None and self.owner.job == PRUNER

    @property
    def is_removed(self) -> bool:
        """Whether a process has begun to remove the journal: it has put its claim in the place of entry 1.

        That one goes last, so what is left of a journal is never taken for a new one.
        """
        return self.number == 1 and self.is_owned_by_prune

    @property
    def is_stored(self) -> bool:
        """Whether there is a plan, and each of its images is stored."""
        return bool(self.images) and all(image.status is Status.STORED for image in self.images.values())

    @property
    def has_work(self) -> bool:
        """Whether it has images that have neither been stored nor failed."""
        return any(image.status not in (Status.STORED, Status.FAILED) for image in self.images.values())

    @property
    def has_purchases_left(self) -> bool:
        """Whether it has images that are not bought, or may be bought again."""
        return bool(self.having(Status.PLANNED, Status.INTENDED, Status.FAILED))

    def knows(self, prediction_id: str) -> bool:
        """Whether an entry or a note speaks of a prediction."""
        return prediction_id in self.key_of or prediction_id in self.noted

    def having(self, *statuses: Status) -> list[ImageState]:
        """Return the images in one of these statuses, in the plan's order."""
        return [image for image in self.images.values() if image.status in statuses]


NEXT: dict[tuple[Status, str], Status] = {
    (Status.PLANNED, "intended"): Status.INTENDED,
    (Status.PLANNED, "stored"): Status.STORED,  # reused: there was nothing to buy
    (Status.PLANNED, "adopted"): Status.SUBMITTED,
    (Status.PLANNED, "failed"): Status.FAILED,  # the stored image is not available, and not bought again
    (Status.INTENDED, "submitted"): Status.SUBMITTED,
    (Status.INTENDED, "not_created"): Status.PLANNED,
    (Status.INTENDED, "lost"): Status.PLANNED,
    (Status.SUBMITTED, "stored"): Status.STORED,
    (Status.SUBMITTED, "failed"): Status.FAILED,
    # A next try buys again what failed without our fault, unless another task has it by then.
    (Status.FAILED, "intended"): Status.INTENDED,
    (Status.FAILED, "adopted"): Status.SUBMITTED,
    (Status.FAILED, "stored"): Status.STORED,
}
"""Every (status, event) pair that may happen to an image; any other is a damaged journal."""


def at_least(state: JobState, prices: Mapping[str, float]) -> JobState:
    """Return the state with each image at this price, by kind of request, where its plan has a lower one."""
    state = replace(state, images=dict(state.images))
    for image in list(state.images.values()):
        price = prices.get(image.plan.request.kind, 0.0)
        if image.plan.estimated_cost_usd < price:
            plan = image.plan.model_copy(update={"estimated_cost_usd": price})
            state = _put(state, replace(image, plan=plan))
    return state


def fold(state: JobState, entry: Entry) -> JobState:
    """Return the state after one more entry. Pure.

    :raises RecordUnreadableError: The entry breaks the format's rules.
    """
    return fold_all(state, (entry,))


def fold_all(state: JobState, entries: Iterable[Entry]) -> JobState:
    """Return the state after more entries. Pure, and quicker than one by one.

    :raises RecordUnreadableError: An entry breaks the format's rules.
    """
    # Dictionaries of its own, made once: thousands of entries may follow, of thousands of images.
    state = replace(state, images=dict(state.images), key_of=dict(state.key_of))
    for entry in entries:
        if entry.number != state.number + 1:
            raise _broken(entry, f"follows entry {state.number}")
        match entry.events:
            case (Orphaned() as orphan,):  # takes the journal from nobody
                note = Note(time=entry.time, owner=entry.writer, **orphan.model_dump(exclude={"event"}))
                state = _add_note(replace(state, number=entry.number), note)
            case _:
                state = _claimed_by(state, entry)
                for event in entry.events:
                    state = _apply(state, entry, event)
    return state


def fold_notes(state: JobState, notes: Iterable[Note]) -> JobState:
    """Return the state with what the notes beside the journal say. Pure; one that is known changes nothing.

    :raises RecordUnreadableError: A note speaks of an image that was not planned.
    """
    return reduce(_add_note, notes, replace(state, images=dict(state.images)))


def _put(state: JobState, image: ImageState) -> JobState:
    """Put a planned image into the fold's own dictionary, and count what is spent more."""
    before = state.images[image.plan.key]
    state.images[image.plan.key] = image
    more = image.spent - before.spent
    return replace(state, spent=state.spent + more) if more else state


def _claimed_by(state: JobState, entry: Entry) -> JobState:
    """Return the state with the entry's number, time and owner, which has claimed the journal."""
    is_new = state.owner is None or state.owner.token != entry.writer.token
    if is_new and not isinstance(entry.events[0], Claimed):
        raise _broken(entry, "was written by a process that has not claimed the journal")
    # Where nothing was intended, the process before had nothing under way that it could leave a note of.
    may_have_notes = state.may_have_notes or (is_new and bool(state.having(Status.INTENDED)))
    return replace(
        state,
        number=entry.number,
        time=entry.time.timestamp(),
        owner=entry.writer,
        may_have_notes=may_have_notes,
    )


def _apply(state: JobState, entry: Entry, event: Event) -> JobState:
    if isinstance(event, Claimed):
        return replace(state, deadline=event.deadline)
    if isinstance(event, Rested):
        return replace(
            state, window=event.window, blocked_until=event.until, rested_in=entry.writer.try_number
        )
    if isinstance(event, Orphaned):
        raise _broken(entry, "has 'orphaned' among other events")
    if isinstance(event, Planned):
        if state.images:
            raise _broken(entry, "plans a second time")
        is_batch = event.is_batch or len(event.images) > 1
        images = {plan.key: ImageState(plan) for plan in event.images}
        if len(images) < len(event.images):
            raise _broken(entry, "plans an image twice")
        spent = sum(image.spent for image in images.values())
        planned = replace(state, output=event.output, is_batch=is_batch, planned_at=state.time, spent=spent)
        return replace(planned, images=images)
    for key in event.keys if isinstance(event, Intended) else (event.key,):
        if key not in state.images:
            raise _broken(entry, f"names an image {key!r} that was not planned")
        if isinstance(event, Submitted | Adopted):
            id_ = event.prediction_id
            # Two images of one prediction would be one picture under two names, and one of them false.
            if state.key_of.setdefault(id_, key) != key:
                raise _broken(entry, f"has prediction {id_!r} for a second image {key!r}")
        state = _put(state, _apply_to_image(state.images[key], entry, event))
    return state


def _add_note(state: JobState, note: Note) -> JobState:
    image = state.images.get(note.key)
    if image is None:
        raise RecordUnreadableError(
            f"The note of prediction {note.prediction_id} beside the journal "
            f"{note.owner.job.folder} names an image {note.key!r} that was not planned",
            fix="Keep the folder. To buy images again that are not stored, move the whole folder away",
        )
    if note in image.notes:
        return state
    state = replace(state, noted=state.noted | {note.prediction_id})
    return _put(state, replace(image, notes=(*image.notes, note)))


def _apply_to_image(image: ImageState, entry: Entry, event: Intended | ImageEvent) -> ImageState:
    if isinstance(event, NotCreated | Submitted) and event.intent is not None:
        return _settle(image, entry, event, event.intent)
    status = NEXT.get((image.status, event.event))
    if status is None:
        raise _broken(entry, f"says {event.event!r} of an image that is {image.status}")
    moved = partial(replace, image, status=status)
    if isinstance(event, Intended):
        return moved(intent=image.intent + 1, intended_at=entry.time.timestamp())
    if isinstance(event, Submitted):
        return _bought(image, entry, event, image.intent)
    if isinstance(event, Adopted):
        return moved(
            plan=image.plan.model_copy(update={"request": event.request}),
            prediction_id=event.prediction_id,
            submitted_at=event.submitted_at.timestamp(),
            bought_by=event.bought_by,
            failure=None,
        )
    if isinstance(event, Lost):
        time = entry.time.timestamp()
        given_up_at = time if event.given_up_at is None else event.given_up_at
        loss = LostPurchase(image.plan.request, image.intended_at, given_up_at)
        return moved(lost={**image.lost, image.intent: loss}, reason=event.reason)
    if isinstance(event, Stored):
        return moved(receipt=event.receipt, reused=event.reused)
    if isinstance(event, Failed):
        return moved(failure=event.failure, reason=event.reason, failed_in_try=entry.writer.try_number)
    return moved()


def _settle(image: ImageState, entry: Entry, event: NotCreated | Submitted, intent: int) -> ImageState:
    """Apply what became of an earlier purchase that is recorded as lost."""
    is_in_the_way = isinstance(event, Submitted) and image.status not in (Status.PLANNED, Status.FAILED)
    if intent not in image.lost or is_in_the_way:
        raise _broken(entry, f"says {event.event!r} of intent {intent}, which is not lost")
    left = replace(image, lost={number: loss for number, loss in image.lost.items() if number != intent})
    return _bought(left, entry, event, intent) if isinstance(event, Submitted) else left


def _bought(image: ImageState, entry: Entry, event: Submitted, intent: int) -> ImageState:
    return replace(
        image,
        status=Status.SUBMITTED,
        prediction_id=event.prediction_id,
        submitted_at=entry.time.timestamp(),
        bought_by=None,
        bought={**image.bought, intent: event.prediction_id},
        failure=None,
    )


def _broken(entry: Entry, how: str) -> RecordUnreadableError:
    return RecordUnreadableError(
        f"Entry {entry.number} of the journal {entry.writer.job.folder} {how}",
        fix="Keep the folder. To buy images again that are not stored, move the whole folder away",
    )
