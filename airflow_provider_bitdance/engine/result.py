"""What a process's work on a job came to: all is done, only waiting is left, or an error ends the try."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.charges import with_charges
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.dispatcher import Dispatcher
from airflow_provider_bitdance.engine.failures import ABOUT_ONE_IMAGE, recorded_error
from airflow_provider_bitdance.engine.restore import restore
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    PredictionTimeoutError,
    RecordUnreadableError,
    SizeMismatchError,
)
from airflow_provider_bitdance.records import ImageState, JobState, Status
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.redaction import shorten

RECEIPTS_AT_ONCE = 16
FRESH = 600.0
"""Seconds for which a file that this process has stored itself is not looked at again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do in this try.

    :param stored: By key, in the plan's order, the summary of each stored image: a plain dict.
    :param images: All that the journal says of the images, in the same order.
    :param failures: By key, why an image is not stored, or is stored and not the result.
    :param refused: By key, the summary of each that is stored and not the result, for its size.
    :param stopped: Why not everything was bought.
    """

    stored: dict[str, dict[str, Any]]
    images: list[ImageState]
    failures: dict[str, BitDanceError]
    stopped: BitDanceError | None
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def results(self) -> list[dict[str, Any]]:
        """The summaries of the stored images, in the plan's order."""
        return list(self.stored.values())

    @property
    def errors(self) -> list[BitDanceError]:
        """Why the task does not succeed; what stopped it goes before all else."""
        return [self.stopped] if self.stopped else list(self.failures.values())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Only waiting is left, or there is nothing to do for a while; a trigger does that for less.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param deadline: Unix time until which this try waits.
    :param now: Unix time of the last poll.
    :param enough: How many of them have to end; 0 if only a time is waited for.
    :param resume_at: Unix time at which there is likely something to do; no later than `now` if not known.
    :param to_buy: Images that are still to be bought.
    :param waits_for: What they wait for, in words.
    """

    pending: dict[str, float]
    deadline: float
    now: float
    enough: int
    resume_at: float = 0.0
    to_buy: int = 0
    waits_for: str = ""

    @property
    def watched(self) -> dict[str, float]:
        """The predictions to poll meanwhile.

        If it is known when there will be something to do: the one prediction that this depends on, because it
        may be quicker.
        """
        if self.resume_at <= self.now or not self.enough:
            return self.pending
        one = (min if self.to_buy else max)(self.pending, key=self.pending.__getitem__)
        return {one: self.pending[one]}


async def job_result(context: JobContext, dispatcher: Dispatcher) -> Finished | Waiting:
    """Say what this process came to.

    :raises Exception: What nobody thought of, and what ended the try.
    """
    if waiting := _waiting(context, dispatcher):
        return waiting
    state, stopped = context.journal.state, dispatcher.failures.stopped
    if stopped is not None:
        if not isinstance(stopped, BitDanceError):
            raise stopped
        stopped = _with_what_is_missing(stopped, state)
    # Where all are stopped, an image that has not failed itself is no failure: it is missing, bought or not.
    ends = {Status.STORED, *((Status.PLANNED, Status.INTENDED, Status.SUBMITTED) if stopped else ())}
    found = dispatcher.failures.by_key
    failures = {
        key: found.get(key) or _failure(context, dispatcher, image)
        for key, image in state.images.items()
        if key in found or image.status not in ends
    }
    stored = await _summaries(context, dispatcher, failures)
    refused = await _refused_for_size(context, failures)
    return Finished(stored, list(state.images.values()), failures, stopped, refused)


def _waiting(context: JobContext, dispatcher: Dispatcher) -> Waiting | None:
    """Say what a trigger has to wait for, where a later process goes on with the job."""
    if dispatcher.failures.stopped is not None:
        return None
    state, now, failed = context.journal.state, context.clock.time(), dispatcher.failures.by_key
    waiting = [image for image in state.having(Status.SUBMITTED) if image.plan.key not in failed]
    pending = {image.prediction_id: round(image.submitted_at, 1) for image in waiting}
    step = dispatcher.hand_over
    if step is None or not (waiting or dispatcher.to_buy):
        return None
    enough, resume_at = step.enough, step.until
    if not dispatcher.to_buy:
        enough = len(pending)
    elif len(pending) < dispatcher.in_flight:  # something has ended since this was decided
        enough, resume_at = 0, now
    return Waiting(pending, state.deadline, now, enough, resume_at, dispatcher.to_buy, dispatcher.waits_for)


def _failure(context: JobContext, dispatcher: Dispatcher, image: ImageState) -> BitDanceError:
    """Return why an image is not stored, where no error says so: an earlier process's, or the time."""
    if image.status is Status.FAILED:
        return recorded_error(context, image)
    is_late = context.clock.time() >= context.journal.state.deadline
    what = f"Not done within {context.policy.timeout:.0f} s" if is_late else "Stopped waiting early"
    return PredictionTimeoutError(
        f"{what}: prediction {image.prediction_id}{dispatcher.outage}",
        fix="Its output stays collectable for 7 days",
    )


def _with_what_is_missing(error: BitDanceError, state: JobState) -> BitDanceError:
    total, stored = len(state.images), len(state.having(Status.STORED))
    if total > 1:
        bought = len(state.having(Status.SUBMITTED))
        missing = state.having(Status.PLANNED, Status.INTENDED, Status.FAILED)
        cost = usd(sum(image.plan.estimated_cost_usd for image in missing))
        also = f", {bought} more are bought but not stored" if bought else ""
        rest = f"; the rest costs about {cost}" if missing else ""
        what = f"{error.what.rstrip('.')}. {stored} of {total} images are stored{also}{rest}"
        return with_charges(error.with_verdict(what=what), state)
    return error


async def _summaries(
    context: JobContext, dispatcher: Dispatcher, failures: dict[str, BitDanceError]
) -> dict[str, dict[str, Any]]:
    """Return the summary of each stored image. What this process has not just stored itself is checked, some
    at a time.

    :param failures: Takes those whose receipt or file is gone, or is another's by now.
    """
    gate, since = asyncio.Semaphore(RECEIPTS_AT_ONCE), context.clock.time() - FRESH
    own = dispatcher.receipts.items()
    fresh = {key: receipt for key, receipt in own if receipt.stored_at.timestamp() >= since}

    async def summary(image: ImageState) -> dict[str, Any] | None:
        try:
            async with gate:
                receipt = fresh.get(image.plan.key) or await _believed(context, image)
        except (RecordUnreadableError, *ABOUT_ONE_IMAGE) as error:
            failures[image.plan.key] = error
            return None
        where = context.receipts.uri(context.destination_of(image.plan))
        return _summary(image, receipt, where=where, reused=image.reused)

    stored = context.journal.state.having(Status.STORED)
    summaries = await asyncio.gather(*(summary(image) for image in stored))
    return {image.plan.key: found for image, found in zip(stored, summaries, strict=True) if found}


def _summary(image: ImageState, receipt: Receipt, *, where: str, reused: bool) -> dict[str, Any]:
    return receipt.summary(
        receipt=where,
        reused=reused,
        possibly_paid=image.possibly_paid,
        enhancement=image.plan.enhancement,
    )


async def _refused_for_size(
    context: JobContext, failures: dict[str, BitDanceError]
) -> dict[str, dict[str, Any]]:
    """Return the summary of each image that is stored and whose size the policy does not allow."""
    gate = asyncio.Semaphore(RECEIPTS_AT_ONCE)

    def stored(image: ImageState) -> dict[str, Any] | None:
        destination = context.destination_of(image.plan)
        receipt = context.receipts.find(destination)
        if receipt is None or receipt.fingerprint != image.plan.fingerprint:
            return None
        if not context.is_intact(receipt, by_size=True):
            return None
        where, reused = context.receipts.uri(destination), image.purchases == 0
        return _summary(image, receipt, where=where, reused=reused)

    async def summary(key: str) -> dict[str, Any] | None:
        # The failure itself is known: this says more of it, where the store lets it.
        with contextlib.suppress(BitDanceError):
            async with gate:
                return await asyncio.to_thread(stored, context.journal.state.images[key])
        return None

    keys = [key for key, error in failures.items() if isinstance(error, SizeMismatchError)]
    summaries = await asyncio.gather(*map(summary, keys))
    return {key: found for key, found in zip(keys, summaries, strict=True) if found}


async def _believed(context: JobContext, image: ImageState) -> Receipt:
    """Return the receipt of an image that was stored before, if its file is there as it was stored.

    A file that is not is stored once more, where WaveSpeed still has it.

    :raises RecordUnreadableError: What was stored is gone, or is another's by now.
    :raises NsfwError: It is flagged, and the policy is not to keep such images.
    :raises SizeMismatchError: It has another size than was requested, and the policy is to fail then.
    :raises BitDanceError: The image could not be restored this time, or the store failed.
    """
    receipt = await asyncio.to_thread(_receipt, context, image)
    # Reconcile may have stored it, or a process from before the Dag was edited.
    context.check_allowed(receipt)
    # A long batch has many processes, and would read at its end what the others have just stored.
    is_of_this_try = receipt.writer.is_of_same_try(context.journal.owner)
    if await asyncio.to_thread(context.is_intact, receipt, by_size=is_of_this_try):
        return receipt
    context.log_image("%s is missing or has changed since it was stored", receipt.uri)
    restored = await restore(context, image, receipt)
    if restored is None:
        raise RecordUnreadableError(
            f"The image {receipt.uri} was stored, but its file is missing or has changed since",
            fix="Clear the task to make the image again",
        )
    return restored


def _receipt(context: JobContext, image: ImageState) -> Receipt:
    """Return the receipt of a stored image. Blocks."""
    destination = context.destination_of(image.plan)
    receipt = context.receipts.find(destination)
    if receipt is None:
        raise RecordUnreadableError(
            f"The image {destination.identity} was stored, but its receipt {image.receipt} is missing",
            fix="Clear the task to make the image again",
        )
    if receipt.fingerprint != image.plan.fingerprint:
        by = receipt.writer.job
        raise RecordUnreadableError(
            f"The image {destination.identity} was stored, then run "
            f"{shorten(by.run_id, 250)} of Dag {shorten(by.dag_id, 250)} replaced it "
            "with a different request",
            fix="Give the tasks different output_paths, or clear the task to make its image again",
        )
    return receipt
