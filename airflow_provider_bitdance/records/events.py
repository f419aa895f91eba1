"""The journal's format: entries and the events in them, as they are on disk.

Format 2. A change that an older reader would misread raises :data:`FORMAT`; readers stop at a format newer
than theirs and never write over it. Format 1, of 0.1.0, had two more events, which are read and never
written: ``snapshot``, which repeated what the entries before it say, and ``orphaned``, which is a note in a
file of its own now (``notes.py``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from airflow_provider_bitdance.records.codec import Strict, without
from airflow_provider_bitdance.records.fields import (
    Count,
    Extension,
    FileName,
    Key,
    Moment,
    Name,
    PredictionId,
    Reason,
    UnixTime,
    Uri,
    Usd,
)
from airflow_provider_bitdance.records.owner import Job, Owner
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

FORMAT = 2
"""Version of the entries' format. An entry of a newer one stops its reader."""


class Status(StrEnum):
    """How far an image is."""

    PLANNED = "planned"
    INTENDED = "intended"
    SUBMITTED = "submitted"
    STORED = "stored"
    FAILED = "failed"


class Claimed(Strict):
    """This process is the job's owner from here on.

    :param deadline: Unix time until which this try waits for its predictions; 0 where the task is over.
    """

    event: Literal["claimed"] = "claimed"
    deadline: UnixTime


class Rested(Strict):
    """The job has more to buy, and gives its worker back: the account takes nothing for a while.

    :param until: Unix time before which it takes no submission, as it has said; 0 where it has not.
    :param window: Predictions in flight that it takes at once, where a 429 has shown that.
    """

    event: Literal["rested"] = "rested"
    until: UnixTime
    window: Count | None


class Enhancement(Strict):
    """How the prompt that is sent was made: by WaveSpeed's Prompt Enhancer.

    :param prediction_id: Of the enhancer.
    :param estimated_cost_usd: What this job paid for it; 0 where another one did, or it is counted with
        another image of the same prompt.
    :param possibly_paid: How many other purchases of it this job made that gave no text: those whose response
        was lost, and failed ones, which WaveSpeed may refund.
    :param possibly_paid_usd: What these cost together at most.
    """

    style: Name
    prediction_id: PredictionId
    estimated_cost_usd: Usd
    possibly_paid: Count = 0
    possibly_paid_usd: Usd = 0.0

    @property
    def spent_usd(self) -> float:
        """What this job has spent on it at most."""
        return self.estimated_cost_usd + self.possibly_paid_usd


class PlannedImage(Strict):
    """One image as it will be bought: what is requested, with the real seed, and where it goes.

    :param key: Its name within the job.
    :param request: What is sent; its seed is never -1.
    :param seed_asked: The seed as the user requested it, -1 for any; ``None`` for a model that takes none.
    :param fingerprint: Identity of what was requested.
    :param stem: The image's file name below the output folder, without extension.
    :param extension: The extension the user gave, with its dot, or nothing.
    :param named: Another job may want the same destination: the user named the file, or it is of a loop, in
        which a clear may begin the iteration again as another job.
    :param possibly_paid: Responses that were lost before the task was cleared.
    :param columns: The free columns of a batch's item, for its manifest.
    :param variant_of: The key of the item's row, where the row has several variants.
    :param prompt_asked: The prompt as the user requested it, where another one is sent.
    :param enhancement: How that one was made.
    """

    key: Key
    request: ImageRequest
    seed_asked: int | None
    fingerprint: Name
    stem: FileName
    extension: Extension = ""
    named: bool = False
    possibly_paid: Count = 0
    estimated_cost_usd: Usd
    columns: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    variant_of: FileName | None = None
    prompt_asked: str | None = None
    enhancement: Enhancement | None = None

    @property
    def asked(self) -> ImageRequest:
        """What the user requested: their own prompt and seed."""
        prompt = self.prompt_asked or self.request.prompt
        return self.request.model_copy(update={"prompt": prompt, "seed": self.seed_asked})

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the prompt as requested where it is the one that is sent, and how it was made."""
        return without(without(whole(self), "prompt_asked"), "enhancement")


class Planned(Strict):
    """What this job makes. Written once; no later event and no re-rendered template changes it.

    :param output: URI of the output folder.
    :param is_batch: The result is a manifest, though there may be one image.
    """

    event: Literal["planned"] = "planned"
    output: Uri
    is_batch: bool = False
    images: tuple[PlannedImage, ...] = Field(min_length=1)


class Intended(Strict):
    """About to buy these: from here on a response may be lost."""

    event: Literal["intended"] = "intended"
    keys: tuple[Key, ...] = Field(min_length=1)


class Submitted(Strict):
    """The API created a prediction: the image is paid for and collectable by its id.

    :param found: Its response was lost; the account's history proved that it is ours, or the replaced process
        that had the response left a note.
    :param intent: An earlier one, counted from 1, that is recorded as lost, and was noted later; ``None`` for
        the one that is open.
    """

    event: Literal["submitted"] = "submitted"
    key: Key
    prediction_id: PredictionId
    found: bool = False
    intent: Count | None = None

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(whole(self), "intent")


class Adopted(Strict):
    """A prediction that another job bought, the same request for the same destination, is this job's too.

    :param request: What was sent for it: with the seed that the other job drew.
    :param bought_by: That job: an earlier generation of this task, or another task.
    """

    event: Literal["adopted"] = "adopted"
    key: Key
    request: ImageRequest
    prediction_id: PredictionId
    submitted_at: Moment
    bought_by: Job


class NotCreated(Strict):
    """The intended purchase certainly did not happen.

    :param intent: An earlier one, counted from 1, that is recorded as lost and is not possibly paid after
        all; ``None`` for the one that is open.
    """

    event: Literal["not_created"] = "not_created"
    key: Key
    reason: Reason
    intent: Count | None = None

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(whole(self), "intent")


class Lost(Strict):
    """The response to the purchase was lost: it is possibly paid, and not collectable.

    :param given_up_at: When it was given up, or its process replaced (Unix time); ``None`` in older entries.
    """

    event: Literal["lost"] = "lost"
    key: Key
    reason: Reason
    given_up_at: UnixTime | None = None

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(whole(self), "given_up_at")


class Orphaned(Strict):
    """Of format 1: a process that had been replaced bought this all the same. Alone in its entry; a note now.

    :param intent: Which intent of the image it was, counted from 1.
    """

    event: Literal["orphaned"] = "orphaned"
    key: Key
    prediction_id: PredictionId
    intent: Count


class Stored(Strict):
    """The image is at its destination and its receipt is written, or both were there before (``reused``)."""

    event: Literal["stored"] = "stored"
    key: Key
    receipt: Uri
    reused: bool = False


class Failure(StrEnum):
    """Why a prediction gave no image that can be the result."""

    FAILED = "failed"
    REFUSED = "refused"
    MODERATED = "moderated"
    NSFW = "nsfw"
    GONE = "gone"
    EXPIRED = "expired"
    UNSAFE = "unsafe"
    SIZE = "size"


class Failed(Strict):
    """The prediction ended and there is no image to store."""

    event: Literal["failed"] = "failed"
    key: Key
    failure: Failure
    reason: Reason


ImageEvent = Submitted | Adopted | NotCreated | Lost | Stored | Failed
Event = Annotated[Claimed | Rested | Planned | Intended | Orphaned | ImageEvent, Field(discriminator="event")]


class Entry(Strict):
    """One file of the journal."""

    may_be_large: ClassVar[bool] = True
    format: int = FORMAT
    number: Count
    time: Moment
    writer: Owner
    events: tuple[Event, ...] = Field(min_length=1)

    @field_validator("events", mode="before")
    @classmethod
    def _without_snapshot(cls, events: object, info: ValidationInfo) -> object:
        """Skip the snapshot of an entry of format 1: all entries are read, and it says nothing else."""
        if info.data.get("format") == 1 and isinstance(events, list):
            return [
                event
                for event in events
                if not (isinstance(event, dict) and event.get("event") == "snapshot")
            ]
        return events
