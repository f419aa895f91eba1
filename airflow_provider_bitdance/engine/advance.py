"""Advance: the one way into a job. Folds the journal and does only what is missing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_bitdance.api.errors import (
    BitDanceError,
    FencedError,
    Paid,
    PredictionTimeoutError,
    RecordUnreadableError,
    StorageError,
)
from airflow_provider_bitdance.api.text import shorten
from airflow_provider_bitdance.engine.bench import Bench, Wanted
from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.others import check_is_latest
from airflow_provider_bitdance.engine.plan import plan
from airflow_provider_bitdance.engine.pump import Pump
from airflow_provider_bitdance.engine.store import may_be_bought_anew, recorded_error
from airflow_provider_bitdance.journal import (
    Adopted,
    Failed,
    ImageState,
    Intended,
    JobState,
    PlannedImage,
    Status,
    Stored,
)
from airflow_provider_bitdance.journal.entries import Claimed, Event
from airflow_provider_bitdance.receipts import Receipt

RECEIPTS_AT_ONCE = 16
CLAIM_TRIES = 5


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do in this try.

    :param stored: By key, in the plan's order, the summary of each stored image: a plain dict.
    :param planned: The plan's images, in their order.
    :param possibly_paid: By key, submissions that were lost without an answer, where there are any.
    :param bought_usd: What the job's purchases cost, estimated, failed ones among them.
    :param failures: By key, why an image is not stored. Of a job of one image it is raised.
    :param stopped: Why not everything was bought. Only of a batch; else it is raised.
    """

    stored: dict[str, dict[str, Any]]
    planned: list[PlannedImage]
    possibly_paid: dict[str, int] = field(default_factory=dict)
    bought_usd: float = 0.0
    failures: dict[str, BitDanceError] = field(default_factory=dict)
    stopped: BitDanceError | None = None

    @property
    def results(self) -> list[dict[str, Any]]:
        """The summaries of the stored images, in the plan's order."""
        return list(self.stored.values())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Only waiting is left, or there is nothing to do for a while; a trigger does that for less.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param deadline: Unix time until which this try waits.
    :param now: Unix time of the last look.
    :param enough: So many of them have to end; 0 where only the time has to come.
    :param resume_at: Unix time at which there is likely something to do; no later than `now` if not known.
    :param to_buy: Images that are still to be bought.
    """

    pending: dict[str, float]
    deadline: float
    now: float
    enough: int
    resume_at: float = 0.0
    to_buy: int = 0

    @property
    def watched(self) -> dict[str, float]:
        """The predictions to look at meanwhile.

        Where it is known when there is something to do, the one that this hangs on: it may be quicker.
        """
        if self.resume_at <= self.now or not self.enough:
            return self.pending
        one = (min if self.to_buy else max)(self.pending, key=self.pending.__getitem__)
        return {one: self.pending[one]}


async def advance(bench: Bench, wanted: list[Wanted]) -> Finished | Waiting:
    """Move every image of the job forward.

    :param bench: Handles, with the journal loaded.
    :param wanted: What the user asks for now; where the job has a plan, only compared with it for the log.
    :raises BitDanceError: See its class: does a retry help, and may an image be paid for?
    """
    _tell_if_changed(bench, wanted)
    try:
        left_open = await _claim(bench, wanted)
        pump = Pump(bench)
        await pump.run(left_open=left_open)
        outcome = await _outcome(bench, pump)
        if isinstance(outcome, Finished):
            stopped = [outcome.stopped] if outcome.stopped else list(outcome.failures.values())
            await _release(bench, stopped)
        return outcome
    except BitDanceError as error:
        # A record that cannot be read or written costs nothing itself, but the image that it is about may be
        # bought: by this process or by an earlier one.
        images = bench.journal.state.images.values()
        is_bought = any(image.prediction_id and not image.reused for image in images)
        if isinstance(error, StorageError) and error.paid is Paid.NO and is_bought:
            error.paid = Paid.YES
        await _release(bench, [error])
        raise


async def _release(bench: Bench, errors: list[BitDanceError]) -> None:
    """Say in the journal that a task is over that has images to buy, where Airflow will not run it again.

    Else other tasks would take it for one at work, and leave it its addresses until its deadline. One with a
    paid image in flight keeps them until then: the image is to have its place.
    """
    state, ours = bench.journal.state, bench.journal.writer
    is_bought = bool(state.having(Status.INTENDED, Status.SUBMITTED))
    is_ours = state.writer is not None and state.writer.token == ours.token
    comes_back = ours.has_tries_left and any(error.retry_helps for error in errors)
    if state.has_work and is_ours and not is_bought and not comes_back:
        # What ended the task is what the user has to see.
        with contextlib.suppress(BitDanceError):
            await bench.write(Claimed(deadline=0.0))


async def _claim(bench: Bench, wanted: list[Wanted]) -> bool:
    """Become the job's writer, with the plan where there is none, and the first intent.

    :return: Whether there are intents of another process, whose answers nobody has seen.
    """
    for _ in range(CLAIM_TRIES):
        state = bench.journal.state
        _check_not_replaced(bench)
        now = bench.clock.time()
        deadline = now + bench.policy.timeout
        ours, last = bench.journal.writer, state.writer
        if last is not None and (last.job, last.try_number) == (ours.job, ours.try_number):
            deadline = state.deadline or deadline  # a resume after a deferral is the same try
        if state.images and (last is None or last.try_number != ours.try_number):
            await asyncio.to_thread(check_is_latest, bench)
        if len(state.images) == 1 and not bench.policy.is_batch:
            _raise_if_failed_for_good(bench)
        events: list[Event] = []
        if not state.images:
            events += await plan(bench, wanted)
        left_open = bool(state.having(Status.INTENDED))
        # A later process first has to see what the account takes.
        first = None if state.images else _first_to_buy(wanted, events)
        if first is not None:
            events.append(Intended(keys=(first,)))
        try:
            await bench.claim(deadline, *events)
        except FencedError:
            # Somebody wrote between our look and our claim: look again, then claim what is left.
            await asyncio.to_thread(bench.journal.load)
        else:
            return left_open
    raise FencedError(f"Too many processes want the job {bench.journal.uri}")


def _raise_if_failed_for_good(bench: Bench) -> None:
    for image in bench.journal.state.having(Status.FAILED):
        if not may_be_bought_anew(bench, image):
            raise recorded_error(bench, image)


def _check_not_replaced(bench: Bench) -> None:
    """A process that slept through a retry or a clear, and wakes up before its claim, must not claim back.

    It began before the newer try wrote its last entry. A run that was deleted and made again did not: it has
    low numbers, too, and goes on with the job.
    """
    ours, state = bench.journal.writer, bench.journal.state
    last = state.writer
    if last is None or not last.job.same_task(ours.job) or bench.started_at > state.time:
        return
    if last.try_number > ours.try_number:
        raise FencedError(f"Try {last.try_number} of this task has taken over the job {bench.journal.uri}")


def _tell_if_changed(bench: Bench, wanted: list[Wanted]) -> None:
    """Say so where the fields render to other requests than those that this job has planned."""
    images, host = bench.journal.state.images, bench.client.settings.host
    changed = [
        item
        for item in wanted
        if item.key in images and images[item.key].plan.fingerprint != item.request.fingerprint(host)
    ]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        bench.log.warning(
            "The task asks for %r now, and for %r when it was planned%s. It goes on with its plan; clear it "
            "when it has ended to have the new image",
            shorten(changed[0].request.prompt),
            shorten(images[changed[0].key].plan.request.prompt),
            more,
        )


def _first_to_buy(wanted: list[Wanted], events: list[Event]) -> str | None:
    """Return the key of an image whose intent can go into the plan's own entry.

    Not one that the user named: its address has to be reserved first.
    """
    settled = {event.key for event in events if isinstance(event, Stored | Adopted | Failed)}
    return next((item.key for item in wanted if item.key not in settled and not item.address.named), None)


async def _outcome(bench: Bench, pump: Pump) -> Finished | Waiting:
    """Say what this process came to: all is done, only waiting is left, or an error ends the try."""
    state, now = bench.journal.state, bench.clock.time()
    waiting = [image for image in state.having(Status.SUBMITTED) if image.plan.key not in pump.failures]
    pending = {image.prediction_id: round(image.submitted_at, 1) for image in waiting}
    if pump.rest is not None and pump.stopped is None:
        if len(pending) < pump.rest.in_flight:  # something has ended since the rest was decided
            return Waiting(pending, state.deadline, now, 0, now, pump.to_buy)
        return Waiting(pending, state.deadline, now, pump.rest.enough, pump.rest.until, pump.to_buy)
    if waiting and pump.stopped is None and bench.policy.defer_after is not None and now < state.deadline:
        return Waiting(pending, state.deadline, now, len(pending), pump.known_end(waiting))
    stopped = pump.stopped
    if stopped is not None:
        if not isinstance(stopped, BitDanceError):
            raise stopped
        stopped = _with_what_is_missing(stopped, state)
        if not bench.policy.is_batch:
            raise stopped
    # Where all are stopped, an image that has not failed itself is no failure: it is missing, bought or not.
    ends = {Status.STORED, *((Status.PLANNED, Status.SUBMITTED) if stopped else ())}
    failures = {
        image.plan.key: _failure(bench, pump, image)
        for image in state.images.values()
        if image.plan.key in pump.failures or image.status not in ends
    }
    if failures and len(state.images) == 1 and not bench.policy.is_batch:
        raise next(iter(failures.values()))
    images = state.images.values()
    return Finished(
        stored=await _summaries(bench, pump, failures),
        planned=[image.plan for image in images],
        possibly_paid={
            image.plan.key: image.plan.possibly_paid + image.unconfirmed
            for image in images
            if image.plan.possibly_paid + image.unconfirmed
        },
        bought_usd=sum(image.purchases * image.plan.estimated_cost_usd for image in images),
        failures=failures,
        stopped=stopped,
    )


def _failure(bench: Bench, pump: Pump, image: ImageState) -> BitDanceError:
    """Return why an image is not stored: found by this process, recorded by an earlier one, or the time."""
    if image.plan.key in pump.failures:
        return pump.failures[image.plan.key]
    if image.status is Status.FAILED:
        return recorded_error(bench, image)
    is_late = bench.clock.time() >= bench.journal.state.deadline
    what = f"Not done within {bench.policy.timeout:.0f} s" if is_late else "Not waited for to its end"
    return PredictionTimeoutError(
        f"{what}: prediction {image.prediction_id}{pump.trouble}",
        fix="Its output stays collectable for 7 days",
    )


def _with_what_is_missing(error: BitDanceError, state: JobState) -> BitDanceError:
    total, stored = len(state.images), len(state.having(Status.STORED))
    if total > 1:
        bought = len(state.having(Status.SUBMITTED))
        missing = state.having(Status.PLANNED, Status.INTENDED, Status.FAILED)
        cost = usd(sum(image.plan.estimated_cost_usd for image in missing))
        also = f", {bought} more are bought" if bought else ""
        what = error.what.rstrip(".")
        error.what = f"{what}. {stored} of {total} images are stored{also}; the rest costs about {cost}"
    return error


async def _summaries(
    bench: Bench, pump: Pump, failures: dict[str, BitDanceError]
) -> dict[str, dict[str, Any]]:
    """Return the summary of each stored image; receipts of earlier processes are read, some at a time.

    :param failures: Takes those of several images whose receipt is gone or is another's by now.
    """
    gate = asyncio.Semaphore(RECEIPTS_AT_ONCE)
    images = bench.journal.state.images

    async def summary(image: ImageState) -> dict[str, Any] | None:
        try:
            async with gate:
                receipt = pump.receipts.get(image.plan.key) or await _receipt(bench, image)
        except RecordUnreadableError as error:
            if len(images) == 1 and not bench.policy.is_batch:
                raise
            failures[image.plan.key] = error
            return None
        return receipt.summary(receipt=image.receipt, reused=image.reused, possibly_paid=image.possibly_paid)

    stored = bench.journal.state.having(Status.STORED)
    summaries = await asyncio.gather(*(summary(image) for image in stored))
    return {image.plan.key: found for image, found in zip(stored, summaries, strict=True) if found}


async def _receipt(bench: Bench, image: ImageState) -> Receipt:
    address = bench.address_of(image.plan)
    receipt = await asyncio.to_thread(bench.receipts.find, address)
    if receipt is None:
        raise RecordUnreadableError(
            f"The image {address.identity} was stored and its receipt {image.receipt} is gone",
            fix="Clear the task to have it made anew",
        )
    if receipt.fingerprint != image.plan.fingerprint:
        raise RecordUnreadableError(
            f"The image {address.identity} was stored, and then replaced with another request by run "
            f"{receipt.writer.job.run_id} of Dag {receipt.writer.job.dag_id}",
            fix="Give the tasks different output_paths, or clear the task to have its image made anew",
        )
    return receipt
