"""What the engine works with: the handles, the policy and the clock, passed in ready by the operator."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from secrets import randbelow
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.coordination import Coordination
from airflow_provider_bitdance.engine.metrics import counts
from airflow_provider_bitdance.engine.notices import Log, Notices
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.engine.unanswered import Unanswered
from airflow_provider_bitdance.exceptions import BitDanceError, NsfwError, SizeMismatchError, StorageError
from airflow_provider_bitdance.preview.collector import Thumbnails
from airflow_provider_bitdance.records import ImageState, Journal, PlannedImage
from airflow_provider_bitdance.records.events import Enhancement, Event
from airflow_provider_bitdance.records.group_commit import GroupCommit
from airflow_provider_bitdance.records.integrity import is_intact
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.reservations import Reservations
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import Destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, MAX_SEED, MODELS, Model

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine.progress import JobProgress

FEW_IMAGES = 5
"""Up to this many images, each has its own lines in the log."""
KEEP_OTHER_SIZE = (
    'Request a size that the model supports, or set on_size_mismatch="warn" and clear the task: '
    "the result is then the stored image, and nothing is bought"
)
JUST_NOW = 0.5
"""Seconds since an entry began to be written, in which the journal is not read before money is spent. A read
takes as long where the store is far away. A process that was paused between the two reads it."""
RECORD_PAUSES = (1.0, 3.0, 10.0)
"""Seconds between tries to write down what a purchase hangs on."""
MANY = 20
"""Beyond this many images, receipts are found by one listing."""
MOST_READ = 1000
"""Stored files of up to this many images are compared by their content. To read thousands takes minutes."""

T = TypeVar("T")


def compares_by_size(images: int) -> bool:
    """Say whether the stored files of a plan of so many images are compared by their size only."""
    return images > MOST_READ


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image as the user requests it now.

    :param key: Its name within the job.
    :param columns: The free columns of a batch's item.
    :param variant_of: The key of the item's row, where the row has several variants.
    :param model: What is known of the model.
    :param style: Of the Prompt Enhancer, where the prompt is to be enhanced.
    :param asked: What the user requested, where another prompt is sent.
    :param enhancement: How that prompt was made.
    """

    key: str
    request: ImageRequest
    destination: Destination
    columns: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    variant_of: str | None = None
    model: Model = MODELS[BITDANCE_14B]
    style: str | None = None
    asked: ImageRequest | None = None
    enhancement: Enhancement | None = None

    def fingerprint(self, api_host: str) -> str:
        """Return the identity of what the user requested: of the original prompt, and the style."""
        return (self.asked or self.request).fingerprint(api_host, enhance_prompt=self.style)


@dataclass(frozen=True, slots=True)
class JobContext:
    """The engine's handles.

    :param journal: Of this job, loaded.
    :param records: The records path, where the journals, receipts and reservations are.
    :param images: The output folder.
    :param started_at: Unix time at which this process began with the job.
    :param run_started_at: Unix time at which the Dag run began, or was restarted when it was cleared.
    :param most_images: So many images the task requests now, where that is known: a plan with more is not
        bought.
    :param models: The models that the task requests now, where that is known: no other is bought.
    :param count: Takes metrics: a counter's name, and what is added.
    :param thumbnails: Takes small pictures of what is stored.
    :param show_progress: Takes how far a batch is, every 10 seconds at most and at the end. It is called on
        the event loop, and must not block it.
    :param coordination: What the job's coroutines share.
    :ivar unanswered: Held by each purchase from its intent to the record of its response.
    """

    client: AsyncClient
    journal: Journal
    records: Folder
    images: Folder
    policy: Policy
    log: Log
    started_at: float
    run_started_at: float = math.inf
    most_images: float = math.inf
    models: frozenset[str] | None = None
    clock: Clock = field(default_factory=Clock)
    draw_seed: Callable[[], int] = lambda: randbelow(MAX_SEED + 1)
    coordination: Coordination = field(default_factory=Coordination)
    count: Callable[[str, int], None] = lambda _name, _number: None
    thumbnails: Thumbnails = field(default_factory=Thumbnails)
    show_progress: Callable[[JobProgress], None] = lambda _progress: None
    notices: Notices = field(init=False, repr=False)
    unanswered: Unanswered = field(init=False, repr=False)
    _group_commit: GroupCommit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make what writes the journal and what many images say together; a frozen dataclass has no other
        way."""
        object.__setattr__(self, "notices", Notices(self.log))
        object.__setattr__(self, "unanswered", Unanswered(self.policy.max_unanswered))
        object.__setattr__(self, "_group_commit", GroupCommit(self.journal, self.clock))

    @property
    def receipts(self) -> Receipts:
        """The receipts below the records path."""
        return Receipts(self.records)

    @property
    def reservations(self) -> Reservations:
        """The reservations below the records path."""
        return Reservations(self.records)

    def log_image(self, message: str, *args: object) -> None:
        """Log what happens to one image: of many, only the totals are logged."""
        log = self.log.info if len(self.journal.state.images) <= FEW_IMAGES else self.log.debug
        log(message, *args)

    def destination_of(self, image: PlannedImage) -> Destination:
        """Return where an image of this job's plan goes."""
        return Destination(self.journal.state.output, image.stem, image.extension, image.named)

    def is_intact(self, receipt: Receipt, *, by_size: bool = False) -> bool:
        """Say whether a receipt may be believed: its file is there as it was stored. Blocks.

        The content is read once a process; then, and in a plan of more than :data:`MOST_READ` images, the
        size has to do.

        :param by_size: It has to do now.
        """
        known = self.coordination.intact
        by_size = by_size or compares_by_size(len(self.journal.state.images))
        by_size = by_size or known.get(receipt.uri) == receipt.sha256
        if not is_intact(self.images, receipt, by_size=by_size):
            return False
        if not by_size:
            known[receipt.uri] = receipt.sha256
        return True

    def may_buy_anew(self, image: ImageState) -> bool:
        """Say whether this try may buy an image again whose prediction failed."""
        return self.policy.may_buy_anew(image, try_number=self.journal.owner.try_number)

    def has_failed(self, image: ImageState) -> bool:
        """Say whether an image that failed stays so in this try: it is neither bought again nor allowed by
        now."""
        return not (self.may_buy_anew(image) or self.policy.allows_by_now(image))

    def check_allowed(self, receipt: Receipt) -> None:
        """Refuse a stored image that the policy does not allow; log one of another size that it does.

        :raises NsfwError: It is flagged.
        :raises SizeMismatchError: It has another size than was requested.
        """
        if not self.policy.allows_nsfw(receipt):
            raise NsfwError(
                f"The image {receipt.uri}, stored for the same request, is flagged as not safe for work",
                fix='Change the prompt, or set nsfw="allow"',
            )
        if not self.policy.allows_size(receipt):
            raise SizeMismatchError(
                f"The image stored at {receipt.uri} has {receipt.width} x {receipt.height} pixels, but "
                f"{receipt.request.size} was requested",
                fix=KEEP_OTHER_SIZE,
            )
        if receipt.is_other_size:
            self.notices.size_differs(receipt)

    async def retrying(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        pauses: tuple[float, ...],
        is_transient: Callable[[BitDanceError], bool],
        until: asyncio.Event | None = None,
    ) -> T:
        """Try something free again while it fails in a way that passes.

        :param pauses: Seconds between two attempts; after the last one the error is raised.
        :param until: Set when there is no time left for a pause.
        """
        for pause in pauses:
            try:
                return await attempt()
            except BitDanceError as error:
                if not is_transient(error):
                    raise
                self.notices.retried(
                    error,
                    error.what.rstrip("."),
                    now=self.clock.time(),
                    wait=pause,
                    is_one_of_many=len(self.journal.state.images) > FEW_IMAGES,
                )
            await self.clock.wait_for(until or asyncio.Event(), pause)
        return await attempt()

    async def record_patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write down what a purchase hangs on, again and again for a while. Unwritten, what was bought may be
        bought again, and what was not may count as bought.

        :param write: The same each time: what seems to have failed may be written.
        """
        return await self.retrying(
            write, pauses=RECORD_PAUSES, is_transient=lambda error: isinstance(error, StorageError)
        )

    async def check_unchanged(self) -> None:
        """Make sure that no other process has gone on with the job: called before money is spent.

        An entry is created only where no other process has written one, so one that was written just now
        shows it, too; most purchases follow their intent at once.

        :raises FencedError: One has.
        """
        if not 0 <= self.clock.time() - self.journal.written_at < JUST_NOW:
            await asyncio.to_thread(self.journal.check_unchanged)

    async def claim(self, deadline: float, *events: Event) -> None:
        """Become the job's owner, with an entry that holds these events, too."""
        now = self.clock.time()
        await self.record_patiently(lambda: asyncio.to_thread(self.journal.claim, deadline, now, *events))
        self._count(self.journal, events)

    async def write(self, *events: Event, journal: Journal | None = None) -> None:
        """Write events into this job's journal, or into another that this process has claimed."""
        if journal is None or journal is self.journal:
            await self._group_commit.write(*events)
        else:
            await asyncio.to_thread(journal.append, self.clock.time(), *events)
        self._count(journal or self.journal, events)

    def _count(self, journal: Journal, events: tuple[Event, ...]) -> None:
        for name, number in counts(events, journal.state):
            self.count(name, number)
