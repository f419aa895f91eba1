"""Submit: buys what is planned, writing down before and after what it does. Runs on a worker only.

A POST is sent again by itself only where the task certainly was not created (``wavespeed/submission_outcome.py``). Where
that is unknown, the account's history is asked first (``lost_responses.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from airflow_provider_bitdance.engine.budget import check_purchase
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.destination_lock import reserve
from airflow_provider_bitdance.engine.lost_responses import resolve_intents
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    FencedError,
    LostResponseError,
    NotSentError,
    Paid,
    RateLimitError,
    RecordError,
    StorageError,
    TaskKilledError,
)
from airflow_provider_bitdance.records import ImageState, Intended, NotCreated, Orphaned, Status, Submitted
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome, submission_outcome

PURCHASES_A_TRY = 3
"""So often one try buys an image, where each answer before was lost."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
CONNECTION_TRIES = 5
RECORD_PAUSES = (1.0, 3.0, 10.0)


class PostponedError(Exception):
    """The account takes nothing for a while, and nothing was created; the purchase is for later.

    :param seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The account takes nothing for {seconds:.0f} s")


async def buy(context: JobContext, key: str, *, limiter: RateLimiter) -> None:
    """Buy one image that is planned, or intended by this process; not if another task has bought it.

    :param key: Of the image.
    :param limiter: Learns from the answers.
    :raises PostponedError: It is planned again.
    :raises BitDanceError: It was not bought; the journal says whether it is possibly paid.
    """
    failed: BitDanceError | None = None
    for purchases_left in reversed(range(PURCHASES_A_TRY)):
        image = context.journal.state.images[key]
        _check_losses(context, image)
        if image.status is not Status.INTENDED:
            check_purchase(context, image)
            context.starting.add(key)
            try:
                if image.plan.named and not await reserve(context, image):
                    return
                await context.write(Intended(keys=(key,)))
            finally:
                context.starting.discard(key)
            image = context.journal.state.images[key]
        try:
            prediction = await _post(context, image, limiter)
        except PostponedError as postponed:
            await context.write(NotCreated(key=key, reason=str(postponed)))
            if failed is not None:
                # Put off, each process would lose as many answers again.
                raise _judged(failed, context.journal.state.images[key]) from None
            raise
        except BitDanceError as error:
            failed = error
            if _is_not_created(error):
                # The error matters more than the store. Unwritten, the intent is settled by the next try.
                with contextlib.suppress(RecordError):
                    await context.write(NotCreated(key=key, reason=error.what))
                raise
            context.log.warning("%s. Looking for it in the account's history", error.what)
            await resolve_intents(context, context.journal, {key})  # others may be under way
            settled = context.journal.state.images[key]
            if settled.status is Status.SUBMITTED:
                return
            if not purchases_left:
                _judged(error, settled)
                raise
        else:
            await _record(context, image, prediction.id)
            return


def _judged(error: BitDanceError, image: ImageState) -> BitDanceError:
    """Say in an error of a purchase whether the image may be paid for, now that the history was asked."""
    error.paid = Paid.POSSIBLY if image.unconfirmed else Paid.NO
    return error


def _check_losses(context: JobContext, image: ImageState) -> None:
    """A try may be several processes, with deferrals between: together they lose no more than one may."""
    lost = len(image.unanswered)
    if lost >= PURCHASES_A_TRY * context.journal.writer.try_number:
        raise LostResponseError(f"{lost} responses to purchases of this image were lost: {image.reason}")


def _is_not_created(error: BitDanceError) -> bool:
    # A record that cannot be read is noticed before the POST.
    return isinstance(error, RecordError | TaskKilledError) or submission_outcome(error) in (
        SubmissionOutcome.NOT_CREATED,
        SubmissionOutcome.REFUSED,
    )


async def _record(context: JobContext, image: ImageState, prediction_id: str) -> None:
    """Write down what is bought, again and again for a while: unwritten, it would be bought twice."""
    bought = Submitted(key=image.plan.key, prediction_id=prediction_id)
    for pause in (*RECORD_PAUSES, None):
        try:
            await context.write(bought)
            break
        except RecordError as error:
            if isinstance(error, FencedError):
                await _leave_a_note(context, bought, image.intent)
            if pause is None or not isinstance(error, StorageError):
                raise type(error)(
                    f"Prediction {prediction_id} is bought and could not be recorded: {error.what}",
                    fix="It stays collectable by its id for 7 days",
                    paid=Paid.YES,
                ) from error
            context.log.warning("%s Trying again in %.0f s", error.what, pause)
        await context.clock.sleep(pause)
    context.tell(
        "Bought prediction %s, about $%.4g: %s, seed %d, %r",
        prediction_id,
        image.plan.estimated_cost_usd,
        image.plan.request.size,
        image.plan.request.seed,
        shorten(image.plan.request.prompt),
    )


async def _leave_a_note(context: JobContext, bought: Submitted, intent: int) -> None:
    """Tell the process that has taken over what was bought without it: this one slept through the change."""
    with contextlib.suppress(RecordError):
        orphan = Orphaned(key=bought.key, prediction_id=bought.prediction_id, intent=intent)
        await asyncio.to_thread(context.journal.note, context.clock.time(), orphan)


async def _post(context: JobContext, image: ImageState, limiter: RateLimiter) -> Prediction:
    """Send the POST until it is answered, where every earlier one certainly created nothing.

    :raises PostponedError: The account takes nothing for so long that waiting elsewhere is cheaper.
    :raises TaskKilledError: Airflow has told the task to stop.
    """
    unsent = 0
    refusal: BitDanceError | None = None
    while True:
        if context.killed.is_set():
            raise TaskKilledError("Airflow stopped the task before this image was bought")
        if limiter.is_closed and refusal is not None:
            raise refusal
        if wait := limiter.until_turn(now=context.clock.time()):
            if wait >= context.policy.break_even:
                raise PostponedError(wait)
            await context.clock.wait_for(context.killed, wait)
            continue
        # A paused process may wake up after another has taken over: look before spending.
        await asyncio.to_thread(context.journal.check_unchanged)
        now = context.clock.time()
        if limiter.turn(now=now):
            continue  # another purchase was quicker
        try:
            prediction = await context.client.submit(image.plan.request)
        except RateLimitError as error:
            _take_refusal(context, limiter, error, sent_at=now)
            refusal = error
        except NotSentError as error:
            limiter.lost(now=context.clock.time())
            unsent += 1
            refusal = error
            pause = min(FIRST_PAUSE * 2.0 ** (unsent - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2)
            if unsent >= CONNECTION_TRIES or context.clock.time() + pause >= context.journal.state.deadline:
                raise
            context.log.info("%s. Trying again in %.0f s", error.what, pause)
            await context.clock.wait_for(context.killed, pause)
        except BaseException:
            limiter.lost(now=context.clock.time())
            raise
        else:
            limiter.accepted(now=context.clock.time())
            return prediction


def _take_refusal(
    context: JobContext, limiter: RateLimiter, error: RateLimitError, *, sent_at: float
) -> None:
    """Slow down after a 429.

    :raises RateLimitError: It would be too late for this try.
    """
    now, before = context.clock.time(), limiter.blocked(now=context.clock.time())
    pause = limiter.refused(sent_at=sent_at, now=now, requested=error.retry_after, draw=random.random())
    if now + pause >= context.journal.state.deadline:
        raise error
    if pause > before:
        context.log.info("%s. Trying again in %.0f s", error.what, pause)
