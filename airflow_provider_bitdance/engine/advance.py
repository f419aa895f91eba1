"""Advance: the one way into a job. Folds the journal and does only what is missing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from airflow_provider_bitdance.api.errors import (
    BitDanceError,
    BudgetError,
    FencedError,
    Paid,
    PredictionError,
    PredictionTimeoutError,
    RecordUnreadableError,
    StorageError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.api.text import shorten
from airflow_provider_bitdance.engine.bench import Bench, Wanted
from airflow_provider_bitdance.engine.budget import check_purchase, usd
from airflow_provider_bitdance.engine.lost import settle_intents
from airflow_provider_bitdance.engine.plan import plan
from airflow_provider_bitdance.engine.store import recorded_error, settle
from airflow_provider_bitdance.engine.submit import buy
from airflow_provider_bitdance.engine.wait import watch
from airflow_provider_bitdance.journal import (
    Adopted,
    Failure,
    ImageState,
    Intended,
    JobState,
    Status,
    Stored,
)
from airflow_provider_bitdance.journal.entries import Event

CLAIM_TRIES = 5


@dataclass(frozen=True, slots=True)
class Finished:
    """Every image of the job is stored.

    :param results: One plain dict an image, in the plan's order.
    """

    results: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Only waiting is left, and a trigger does that for less.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param deadline: Unix time until which this try waits.
    :param now: Unix time of the last look.
    """

    pending: dict[str, float]
    deadline: float
    now: float


async def advance(bench: Bench, wanted: list[Wanted]) -> Finished | Waiting:
    """Move every image of the job forward.

    :param bench: Handles, with the journal loaded.
    :param wanted: What the user asks for now; where the job has a plan, only compared with it for the log.
    :raises BitDanceError: See its class: does a retry help, and may an image be paid for?
    """
    _tell_if_changed(bench, wanted)
    try:
        left_open = await _claim(bench, wanted)
        stopped = await _buy_all(bench, left_open)
        if pending := _pending(bench):
            await _collect(bench, pending)
        return await _outcome(bench, stopped)
    except StorageError as error:
        # A record that cannot be read or written costs nothing itself, but the image that it is about may be
        # bought: by this process or by an earlier one.
        images = bench.journal.state.images.values()
        if error.paid is Paid.NO and any(image.prediction_id and not image.reused for image in images):
            error.paid = Paid.YES
        raise


async def _buy_all(bench: Bench, left_open: bool) -> BitDanceError | None:
    """Buy what is missing, and return why not all of it, where some is bought that has to be stored first.

    :param left_open: Another process left intents without an answer.
    """
    try:
        if left_open:
            await settle_intents(bench, bench.journal)
        for image in bench.journal.state.having(Status.INTENDED, Status.PLANNED, Status.FAILED):
            await buy(bench, image.plan.key)
    except FencedError:
        raise
    except BitDanceError as error:
        if not _pending(bench):
            raise
        bench.log.warning("%s. What is bought already is stored first", error.what)
        return error
    return None


async def _collect(bench: Bench, pending: dict[str, float]) -> None:
    """Wait for what is bought, and store what ends."""
    try:
        ended = await watch(
            bench.client, pending, until=_until(bench), poll=bench.policy.poll, clock=bench.clock
        )
        for image in bench.journal.state.having(Status.SUBMITTED):
            if image.prediction_id in ended:
                await settle(bench, image, ended[image.prediction_id])
    except BitDanceError as error:
        # A look that failed or a full disk costs nothing itself, but the image that it is about is bought.
        if error.paid is Paid.NO and not isinstance(error, PredictionError):
            error.paid = Paid.YES
        raise


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
            deadline = state.deadline  # a resume after a deferral is the same try
        for image in state.having(Status.FAILED):
            if image.failure is not Failure.FAILED or not bench.policy.retry_failed:
                raise recorded_error(image)
        events: list[Event] = []
        if not state.images:
            events += await plan(bench, wanted)
        left_open = bool(state.having(Status.INTENDED))
        first = None if left_open else _first_to_buy(bench, wanted, events)
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
    """Say so where the fields render to another request than the one that this job has planned."""
    for item in wanted:
        image = bench.journal.state.images.get(item.key)
        if image and image.plan.fingerprint != item.request.fingerprint(bench.client.settings.host):
            bench.log.warning(
                "The task asks for %r now, and for %r when it was planned. It goes on with its plan; clear "
                "it when it has ended to have the new image",
                shorten(item.request.prompt),
                shorten(image.plan.request.prompt),
            )


def _first_to_buy(bench: Bench, wanted: list[Wanted], events: list[Event]) -> str | None:
    """Return the key of an image whose intent can go into the claim's own entry.

    Not one that the user named: its address has to be reserved first.
    """
    if not bench.journal.state.images:
        settled = {event.key for event in events if isinstance(event, Stored | Adopted)}
        return next((item.key for item in wanted if item.key not in settled and not item.address.named), None)
    for image in bench.journal.state.having(Status.PLANNED, Status.FAILED):
        if not image.plan.named:
            try:
                check_purchase(bench, image)
            except (BudgetError, UnconfirmedPurchaseError):
                return None
            return image.plan.key
    return None


def _pending(bench: Bench) -> dict[str, float]:
    return {image.prediction_id: image.submitted_at for image in bench.journal.state.having(Status.SUBMITTED)}


def _until(bench: Bench) -> float:
    """Return when this process stops waiting: at the hand-over to the trigger, or at the deadline."""
    deadline = bench.journal.state.deadline
    if bench.policy.defer_after is None:
        return deadline
    return min(deadline, bench.clock.time() + bench.policy.defer_after)


async def _outcome(bench: Bench, stopped: BitDanceError | None) -> Finished | Waiting:
    state = bench.journal.state
    pending = _pending(bench)
    if stopped is not None and not pending:
        raise _with_what_is_missing(stopped, state)
    if not pending:
        return Finished([await _result(bench, image) for image in state.images.values()])
    now = bench.clock.time()
    # The last look may come a moment before the deadline, and only some may hand over what is left.
    if now >= state.deadline or bench.policy.defer_after is None:
        raise PredictionTimeoutError(
            f"Not done within {bench.policy.timeout:.0f} s: prediction {', '.join(pending)}",
            fix="Its output stays collectable for 7 days",
        )
    return Waiting(pending, state.deadline, now)


def _with_what_is_missing(error: BitDanceError, state: JobState) -> BitDanceError:
    missing = [image for image in state.images.values() if image.status is not Status.STORED]
    cost = usd(sum(image.plan.estimated_cost_usd for image in missing))
    stored = len(state.images) - len(missing)
    error.what = (
        f"{error.what}. {stored} of {len(state.images)} images are stored; the rest costs about {cost}"
    )
    return error


async def _result(bench: Bench, image: ImageState) -> dict[str, Any]:
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
    return receipt.summary(receipt=image.receipt, reused=image.reused, possibly_paid=image.possibly_paid)
