"""Destination lock: two tasks that want an image at one destination buy it once.

A reservation is a lease that ends with the deadline of the job that made it. Until then another task that
wants the same image waits for its receipt: with one listing for all its images, and without reading the
other's journal again. When the lease has ended, the other's journal is loaded once and claimed; what was
submitted is adopted, and the rest is bought. Every image at a destination that the user named goes through
here, and every one of a loop: a clear may begin an iteration again as another job, which takes over at once.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.context import MANY, JobContext
from airflow_provider_bitdance.engine.decisions import (
    Adopt,
    Buy,
    DestinationFacts,
    Refusal,
    Refuse,
    Reuse,
    TakeOver,
    WaitUntil,
    decide_destination,
)
from airflow_provider_bitdance.engine.takeover import adoption, claim_journal, job_name
from airflow_provider_bitdance.exceptions import FencedError, InputError
from airflow_provider_bitdance.records import ImageState, Job, JobState, Journal, Status, Stored
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.reservations import Reservation
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.naming import Destination

CHECK_PAUSE, CHECK_SHARE = 1.0, 0.05
"""Seconds between two checks of what other tasks have stored; or this part of the time waited so far."""


class HeldError(Exception):
    """Another task makes the same image; its receipt will be the result.

    :param until: Unix time at which that task's lease ends.
    """

    def __init__(self, until: float) -> None:
        super().__init__("Another task is making the same image")
        self.until = until


@dataclass(slots=True, eq=False)
class _Holder:
    """Another job that holds destinations of ours."""

    journal: Journal
    is_stopped: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class DestinationLock:
    """Takes the destinations of one job, and waits for those that another task holds.

    :param context: The job, with its journal claimed.
    :ivar held: Images that another task makes, by key, each with the Unix time at which its lease ends.
    :ivar next_check: Unix time of the next look at what these tasks have stored.
    """

    def __init__(self, context: JobContext) -> None:
        self.held: dict[str, float] = {}
        self.next_check = math.inf
        self._context = context
        self._waits_since = math.inf
        self._holders: dict[str, _Holder] = {}
        self._tried: set[str] = set()
        self._found: dict[str, Receipt] = {}  # by key, the receipt that was there at the last try

    async def take(self, image: ImageState) -> bool:
        """Take the destination of an image, and say whether the image has to be bought.

        It does not if another task has stored or submitted the same request: then the journal says so.

        :raises HeldError: Another task makes the same image.
        :raises InputError: Another task makes, or has just made, a different image there.
        :raises FencedError: A clear has begun this task's iteration of a loop again.
        """
        context, destination = self._context, self._context.destination_of(image.plan)
        if not image.plan.named:
            return await self._take_own(image)
        if (moment := self._known_lease(image)) is not None:
            raise self._hold(image, moment)
        while True:
            held, receipt = await asyncio.to_thread(self._read_or_take, image)
            if held is not None and held.writer.job == context.journal.job:
                context.coordination.reserved[image.plan.key] = held.number
                return True
            command = await self._decide(image, held, receipt)
            if isinstance(command, Reuse):
                await self._reuse(image, command.receipt)
                return False
            if isinstance(command, WaitUntil):
                raise self._hold(image, command.moment)
            if held is None:
                continue  # another task was quicker, and the store does not list its reservation yet
            if isinstance(command, Refuse):
                raise refusal_of(context, image, held.writer.job, command)
            is_adopted = await self._adopts(held.writer.job, image, command)
            mine = self._reservation(image, held.number + 1)
            if await asyncio.to_thread(context.reservations.take, destination, mine) == mine:
                context.coordination.reserved[image.plan.key] = mine.number
                return not is_adopted and not await self._was_bought_meanwhile(image, held)
            if is_adopted:
                return False

    async def _take_own(self, image: ImageState) -> bool:
        """Take a destination whose name belongs to this task alone."""
        if image.plan.key in self._context.coordination.vacant:
            return True
        receipt = await asyncio.to_thread(self._intact_receipt, image)
        command = decide_destination(self._facts(image, receipt=receipt))
        if isinstance(command, Reuse):
            await self._reuse(image, command.receipt)
        return not isinstance(command, Reuse)

    def lost_receipt(self, image: ImageState) -> Receipt | None:
        """Return the receipt of the same request whose file was not there as it was stored, at the last try.

        Of an image that :meth:`take` said has to be bought.
        """
        receipt = self._found.get(image.plan.key)
        is_same = receipt is not None and receipt.fingerprint == image.plan.fingerprint
        return receipt if is_same and self._context.policy.if_exists == "reuse" else None

    async def _adopts(self, holder: Job, image: ImageState, command: Adopt | Buy) -> bool:
        """Make what a stopped holder has bought ours, or say that it stays collectable; say whether it is
        ours."""
        context = self._context
        if isinstance(command, Adopt):
            id_, key = command.image.prediction_id, image.plan.key
            if context.journal.state.key_of.get(id_, key) != key:
                context.log.warning(
                    "Task %s recorded prediction %s, which this task bought for another image: not "
                    "adopting it",
                    job_name(holder),
                    shorten(id_),
                )
                return False
            context.log_image(
                "Adopting what task %s bought for the same request: prediction %s",
                job_name(holder),
                command.image.prediction_id,
            )
            await context.write(adoption(command.image, image.plan.key, holder))
        elif command.leaves:
            context.log_image(
                "Task %s bought prediction %s, which this task does not use; it stays collectable for 7 days",
                job_name(holder),
                command.leaves,
            )
        return isinstance(command, Adopt)

    async def _was_bought_meanwhile(self, image: ImageState, held: Reservation) -> bool:
        """Make sure that a stopped holder has not come back before it could see our reservation.

        A retry of its task may have claimed its journal back after we read it, and bought, or even stored.
        It is stopped again then; one that comes back later finds our reservation and waits.
        """
        holder = self._holders.get(held.writer.job.folder)
        if holder is None or not holder.is_stopped:
            return False
        await self._load(holder)
        if holder.is_stopped:
            return False
        async with holder.turn:
            while not await claim_journal(self._context, holder.journal):
                pass
            holder.is_stopped = True
        receipt = await asyncio.to_thread(self._intact_receipt, image)
        command = decide_destination(self._facts(image, receipt=receipt, held=held, holder=holder))
        if isinstance(command, Reuse):
            await self._reuse(image, command.receipt)
            return True
        return isinstance(command, Adopt | Buy) and await self._adopts(held.writer.job, image, command)

    async def freed(self) -> list[str]:
        """Return the images, by key, that another task has released or stored: try them again.

        Costs a listing, or a look at each of a few images; a receipt is read if there was one before.
        """
        context, images = self._context, self._context.journal.state.images
        places = {key: context.destination_of(images[key].plan) for key in self.held}
        is_stored: dict[str, bool] = {}
        if len(places) > MANY:
            known = await asyncio.to_thread(context.receipts.known)
            is_stored = {key: place.record_name in known for key, place in places.items()}
            places = {key: place for key, place in places.items() if is_stored[key] and key in self._found}
        reads = [asyncio.to_thread(self._is_new, key, place) for key, place in places.items()]
        is_stored |= zip(places, await asyncio.gather(*reads), strict=True)
        now = context.clock.time()
        free = [key for key, until in self.held.items() if is_stored.get(key) or until <= now]
        for key in free:
            del self.held[key]
        self.next_check = now + max(CHECK_PAUSE, CHECK_SHARE * (now - self._waits_since))
        return free

    def _is_new(self, key: str, destination: Destination) -> bool:
        """Say whether there is another receipt than at the last try: an older run may have left one."""
        receipts = self._context.receipts
        if key not in self._found:
            return receipts.exists(destination)
        receipt = receipts.find(destination)
        return receipt is not None and receipt.stored_at != self._found[key].stored_at

    def _read_or_take(self, image: ImageState) -> tuple[Reservation | None, Receipt | None]:
        """Return the last reservation of a destination, and the receipt there, if its file is intact.

        A destination that nobody has reserved is taken at once; where the plan found nothing, without a look
        at it. The reservation is not read if the receipt alone decides: that is half the reads of a batch.
        """
        context, destination = self._context, self._context.destination_of(image.plan)
        key, mine, first = image.plan.key, self._reservation(image, 1), None
        if key in context.coordination.vacant:
            first = context.reservations.take(destination, mine)
            if first == mine:
                return mine, None
            context.coordination.vacant.discard(key)
        receipt = self._intact_receipt(image)
        found = self._found.get(key)
        known = found.reservation if found is not None else 0
        if isinstance(decide_destination(self._facts(image, receipt=receipt)), Reuse):
            return None, receipt
        after = first.number if first is not None else 0
        held = context.reservations.last(destination, known=known, after=after) or first
        if held is None and context.reservations.take(destination, mine) == mine:
            return mine, receipt
        return held or context.reservations.last(destination), receipt

    def _intact_receipt(self, image: ImageState) -> Receipt | None:
        """Return the receipt at a destination, if its file is there as it was stored."""
        context, found = self._context, self._found
        receipt = context.receipts.find(context.destination_of(image.plan))
        if receipt is None:
            found.pop(image.plan.key, None)
            return None
        found[image.plan.key] = receipt
        return receipt if context.is_intact(receipt) else None

    async def _decide(
        self, image: ImageState, held: Reservation | None, receipt: Receipt | None
    ) -> Adopt | Buy | WaitUntil | Reuse | Refuse:
        """Read the holder's journal, once for all its images, and take it over if that is decided."""
        context, holder = self._context, None
        if held is not None and not held.writer.job.same_task(context.journal.job):
            theirs = Journal(context.records, context.journal.owner, job=held.writer.job)
            holder = self._holders.setdefault(theirs.job.folder, _Holder(theirs))
            await self._load(holder)
        is_receipt_fresh = holder is None
        while True:
            command = decide_destination(self._facts(image, receipt=receipt, held=held, holder=holder))
            if isinstance(command, TakeOver):
                assert holder is not None
                await self._stop(holder)
            elif isinstance(command, Adopt | Buy) and not is_receipt_fresh:
                # The holder may have stored it since the receipt was read.
                receipt = await asyncio.to_thread(self._intact_receipt, image)
                is_receipt_fresh = True
            else:
                return command

    def _facts(
        self,
        image: ImageState,
        *,
        receipt: Receipt | None,
        held: Reservation | None = None,
        holder: _Holder | None = None,
    ) -> DestinationFacts:
        context = self._context
        return DestinationFacts(
            job=context.journal.job,
            fingerprint=image.plan.fingerprint,
            policy=context.policy,
            now=context.clock.time(),
            run_started_at=context.run_started_at,
            held=held,
            holder=holder.journal.state if holder is not None else None,
            is_stopped=holder is not None and holder.is_stopped,
            receipt=receipt,
        )

    async def _load(self, holder: _Holder) -> None:
        """Read the journal of a holder, if that was not done; of a stopped one, what was added since.

        A retry of its task may have claimed it back, and may buy again.
        """
        async with holder.turn:
            if holder.journal.state.number and not holder.is_stopped:
                return
            state = await asyncio.to_thread(holder.journal.load)
            ours = self._context.journal.owner.token
            holder.is_stopped = holder.is_stopped and state.owner is not None and state.owner.token == ours

    async def _stop(self, holder: _Holder) -> None:
        """Claim the journal of a holder whose lease has ended, once for all images that it holds.

        Not if the holder has extended its deadline since its journal was read: then the caller decides again.
        """
        async with holder.turn:
            if holder.is_stopped:
                return
            before = holder.journal.state.number
            await asyncio.to_thread(holder.journal.load)
            if holder.journal.state.number == before:
                holder.is_stopped = await claim_journal(self._context, holder.journal)

    def _known_lease(self, image: ImageState) -> float | None:
        """Return when the lease of a known holder ends that was buying this very image when it was read.

        Only at the first try: then its reservation need not be read. A reservation comes before an intent.
        """
        context, key = self._context, image.plan.key
        if key in self._tried or context.policy.if_exists != "reuse":
            return None
        self._tried.add(key)
        now, wanted = context.clock.time(), (context.destination_of(image.plan), image.plan.fingerprint)
        for holder in self._holders.values():
            state = holder.journal.state
            lease_end = state.lease_end(now)
            if not holder.is_stopped and now < lease_end:
                bought = state.having(Status.INTENDED, Status.SUBMITTED)
                theirs = ((_destination_in(state, other), other.plan.fingerprint) for other in bought)
                if wanted in theirs:
                    return lease_end
        return None

    def _hold(self, image: ImageState, until: float) -> HeldError:
        now = self._context.clock.time()
        if not self.held:
            self._waits_since = now
            self.next_check = now + CHECK_PAUSE
        self.held[image.plan.key] = until
        return HeldError(until)

    async def _reuse(self, image: ImageState, receipt: Receipt) -> None:
        """Take the image that another task has stored since this job's plan."""
        context = self._context
        context.check_allowed(receipt)
        context.log_image(
            "Reusing %s, which another task has stored in the meantime; nothing is bought", receipt.uri
        )
        uri = context.receipts.uri(context.destination_of(image.plan))
        await context.write(Stored(key=image.plan.key, receipt=uri, reused=True))

    def _reservation(self, image: ImageState, number: int) -> Reservation:
        context = self._context
        return Reservation(
            number=number,
            time=datetime.fromtimestamp(context.clock.time(), UTC),
            writer=context.journal.owner,
            key=image.plan.key,
            fingerprint=image.plan.fingerprint,
        )


async def take_back(context: JobContext, image: ImageState) -> bool:
    """Take the destination of a bought image from another task that has reserved it since, and say whether it
    is ours: where that task has bought nothing for it, or has failed, nothing newer comes there.

    :raises InputError: That task is still at work.
    """
    destination, ours = context.destination_of(image.plan), context.journal.job
    held = await asyncio.to_thread(context.reservations.last, destination)
    if held is None or held.writer.job.same_task(ours):
        return False
    theirs = Journal(context.records, context.journal.owner, job=held.writer.job)
    state = await asyncio.to_thread(theirs.load)
    if held.key in state.images and state.images[held.key].status not in (Status.PLANNED, Status.FAILED):
        return False
    receipt = await asyncio.to_thread(context.receipts.find, destination)
    if receipt is not None and receipt.stored_at.timestamp() > image.submitted_at:
        return False
    # "reuse" would make a result of what another task has stored for the same request.
    regenerating = replace(context, policy=replace(context.policy, if_exists="regenerate"))
    return await DestinationLock(regenerating).take(image)


def refusal_of(
    context: JobContext, image: ImageState, holder: Job, command: Refuse
) -> InputError | FencedError:
    """Return the error of an image at whose destination another task makes, or has just made, a different
    one."""
    if command.why is Refusal.CLEARED:
        return context.journal.fenced()
    theirs, ours = job_name(holder), job_name(context.journal.job)
    where = shorten(context.destination_of(image.plan).identity, 200)
    if command.why is Refusal.JUST_MADE:
        return InputError(
            f"Task {theirs} has just stored a different image at {where}, which task {ours} would replace",
            allowed="one image per output_path in a Dag run",
            fix=(
                "End output_path with a slash, so that each task, map index and iteration gets "
                f"its own file, or put {_index_of(context.journal.job)} into the file name"
            ),
        )
    when = datetime.fromtimestamp(command.until, UTC)
    free = f". If that task is dead, its reservation ends at {when:%Y-%m-%d %H:%M:%S} UTC"
    return InputError(
        f"Task {theirs} is making a different image at {where}, where task {ours} would store its own",
        allowed="one task at a time per output_path, or the same request from all tasks",
        fix="Give the tasks different output_paths, or run one Dag after the other"
        + (free if command.until else ""),
    )


def _index_of(job: Job) -> str:
    """Return the template that differs between the instances of a task in its Dag run."""
    if job.iteration is None:
        return "{{ ti.map_index }}"
    return "{{ loop.index }}" if job.map_index < 0 else "{{ loop.index }}-{{ ti.map_index }}"


def _destination_in(state: JobState, image: ImageState) -> Destination:
    plan = image.plan
    return Destination(state.output, plan.stem, plan.extension, plan.named)
