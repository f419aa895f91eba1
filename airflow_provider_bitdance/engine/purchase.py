"""Purchase: buys what is planned, and writes down before and after what it does. Runs on a worker only.

A POST is sent again by itself only if the prediction certainly was not created
(``wavespeed/submission_outcome.py``). If that is unknown, the account's history is searched first
(``lost_responses.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack

from airflow_provider_bitdance.engine.budget import check_purchase
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.decisions import (
    Fail,
    Postpone,
    Record,
    Resolve,
    SendAgain,
    SubmissionFacts,
    decide_submission,
)
from airflow_provider_bitdance.engine.destination_lock import DestinationLock
from airflow_provider_bitdance.engine.lost_responses import resolve_intents
from airflow_provider_bitdance.engine.rate_limiter import SHORT_WAIT, RateLimiter
from airflow_provider_bitdance.engine.restore import restore
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    FencedError,
    GarbledResponseError,
    LostResponseError,
    NotSentError,
    Paid,
    RateLimitError,
    RecordError,
    TaskKilledError,
)
from airflow_provider_bitdance.records import ImageState, Intended, NotCreated, Status, Stored, Submitted
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import may_arrive, submission_outcome

PURCHASES_A_TRY = 3
"""So often one try buys an image, if each response before was lost."""


class PostponedError(Exception):
    """The account takes nothing for a while, and nothing was created; the image is planned again.

    :param seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The account accepts no submissions for {seconds:.0f} s")


async def buy(context: JobContext, key: str, *, limiter: RateLimiter, lock: DestinationLock) -> None:
    """Buy one image that is planned, or intended by this process; not if another task has bought it.

    :param key: Of the image.
    :param limiter: Admits submissions, and learns from their responses.
    :param lock: Says whether another task makes an image at the same destination.
    :raises HeldError: Another task makes the same image; it stays planned.
    :raises PostponedError: It is planned again.
    :raises BitDanceError: It was not bought; the journal says whether it is possibly paid.
    """
    lost: BitDanceError | None = None
    for _ in range(PURCHASES_A_TRY):
        async with AsyncExitStack() as place:
            limiter.queued.add(key)
            place.callback(limiter.queued.discard, key)
            if not await _intend(context, key, limiter, lock, place):
                return
            lost = await _buy_once(context, key, limiter, lost)
            if context.journal.state.images[key].status is Status.SUBMITTED:
                return
    assert lost is not None
    raise lost


async def _intend(
    context: JobContext, key: str, limiter: RateLimiter, lock: DestinationLock, place: AsyncExitStack
) -> bool:
    """Write the intent of an image that has none, and say whether it is to be bought.

    :param place: Gets one of the places for purchases without a response. An image that waits for one has its
        destination reserved meanwhile, and costs nothing yet.
    """
    image = context.journal.state.images[key]
    _check_losses(context, image)
    if image.status is Status.INTENDED:
        await context.unanswered.enter(None)
        place.callback(context.unanswered.leave)
        return True
    check_purchase(context, image)
    context.coordination.starting.add(key)
    try:
        if not await lock.take(image) or await _is_restored(context, image, lock):
            return False
        intent = Intended(keys=(key,))
        is_written = await context.unanswered.enter(intent)
        place.callback(context.unanswered.leave)
        if is_written:
            return True
        if context.coordination.killed.is_set():
            raise TaskKilledError("Airflow stopped the task, so nothing more is bought")
        if limiter.is_closed:  # while it waited for its place
            raise PostponedError(0.0)
        await context.record_patiently(lambda: context.write(intent))
    finally:
        context.coordination.starting.discard(key)
    return True


async def _buy_once(
    context: JobContext, key: str, limiter: RateLimiter, lost: BitDanceError | None
) -> BitDanceError | None:
    """Buy an image that has an intent. Return the error of a response that was lost; the journal says what
    became of it.

    :param lost: That of its last purchase in this process; it says that the image may be paid for.
    """
    image = context.journal.state.images[key]
    match await _submit(context, image, limiter):
        case Record(), Prediction() as prediction:
            await _record(context, image, prediction.id, limiter)
            return None
        case Postpone() as command, _:
            postponed = PostponedError(command.seconds)
            await _record_refusal(context, NotCreated(key=key, reason=str(postponed)))
            # Postponed after a loss, each process would lose as many responses again.
            raise lost or postponed
        case Resolve(), BitDanceError() as error:
            context.notices.response_lost(error.what)
            # Of this image only: others may be under way.
            await resolve_intents(context, context.journal, {key}, may_arrive=may_arrive(error))
            return error
        case _, BitDanceError() as error:
            try:
                await _record_refusal(context, NotCreated(key=key, reason=error.what))
            except RecordError as unwritten:  # the next try resolves the intent
                if context.policy.is_batch:  # and this one buys nothing more
                    raise unwritten from error
            raise error
    raise AssertionError("unreachable: a response is a prediction or an error")


async def _is_restored(context: JobContext, image: ImageState, lock: DestinationLock) -> bool:
    """Store what was bought before for the same request and is lost, if WaveSpeed still has it; say so."""
    lost = lock.lost_receipt(image)
    if lost is None or await restore(context, image, lost) is None:
        return False
    uri = context.receipts.uri(context.destination_of(image.plan))
    await context.write(Stored(key=image.plan.key, receipt=uri, reused=True))
    return True


def _check_losses(context: JobContext, image: ImageState) -> None:
    """A try may be several processes, with deferrals between: together they may lose only as many as one
    may."""
    lost = len(image.unanswered)
    if lost >= PURCHASES_A_TRY * context.journal.owner.try_number:
        raise LostResponseError(f"The responses to {lost} purchases of this image were lost: {image.reason}")


async def _record(context: JobContext, image: ImageState, prediction_id: str, limiter: RateLimiter) -> None:
    """Write down what is bought. The next purchase begins with it, unless nothing more is bought."""
    bought = Submitted(key=image.plan.key, prediction_id=prediction_id)

    async def record(*also: Intended) -> None:
        await context.record_patiently(lambda: context.write(bought, *also))

    is_over = limiter.is_closed or context.coordination.killed.is_set()
    try:
        await (record() if is_over else context.unanswered.hand_on(record))
    except RecordError as error:
        if isinstance(error, FencedError):
            await _leave_a_note(context, bought, image.intent)
        raise type(error)(
            f"Prediction {prediction_id} is bought but could not be recorded: {error.what}",
            fix="It stays collectable by its id for 7 days",
            paid=Paid.YES,
        ) from error
    context.log_image(
        "Bought prediction %s, about $%.4g: %s, seed %s, %r",
        prediction_id,
        image.plan.estimated_cost_usd,
        image.plan.request.size,
        image.plan.request.seed,
        shorten(image.plan.request.prompt),
    )


async def _record_refusal(context: JobContext, refused: NotCreated) -> None:
    await context.record_patiently(lambda: context.write(refused))


async def _leave_a_note(context: JobContext, bought: Submitted, intent: int) -> None:
    """Leave a note of what was bought for the process that has taken over: this one slept through the
    change."""

    async def leave() -> None:
        await asyncio.to_thread(
            context.journal.note,
            context.clock.time(),
            key=bought.key,
            prediction_id=bought.prediction_id,
            intent=intent,
        )

    with contextlib.suppress(RecordError):
        await context.record_patiently(leave)


async def _submit(
    context: JobContext, image: ImageState, limiter: RateLimiter
) -> tuple[Record | Postpone | Resolve | Fail, Prediction | BitDanceError | None]:
    """Send the POST until there is a response, as long as every earlier one certainly created nothing.

    :return: What follows, and the prediction or the error that it follows from.
    """
    not_sent = 0
    refusal: BitDanceError | None = None
    while True:
        stopped = await _wait_for_turn(context, image.plan.key, limiter, refusal)
        if stopped is not None:
            return stopped
        sent_at = context.clock.time()
        if limiter.turn(now=sent_at):
            continue  # another purchase was quicker
        response = await _post(context, image, limiter, sent_at=sent_at)
        refusal = response if isinstance(response, BitDanceError) else None
        not_sent = not_sent + 1 if isinstance(refusal, NotSentError) else 0
        now = context.clock.time()
        command = decide_submission(
            SubmissionFacts(
                outcome=submission_outcome(refusal),
                break_even=context.policy.break_even,
                now=now,
                deadline=context.journal.state.deadline,
                not_sent=not_sent,
                blocked=limiter.blocked(now=now),
            )
        )
        if not isinstance(command, SendAgain):
            return command, response
        if isinstance(refusal, NotSentError):
            context.notices.not_sent(refusal.what, wait=command.after)
        elif refusal is not None:
            context.notices.refused(refusal.what, now=now, wait=command.after)
        if not_sent:  # the limiter makes the others wait
            pause = command.after * random.uniform(0.8, 1.2)
            await context.clock.wait_for(context.coordination.killed, pause)


async def _wait_for_turn(
    context: JobContext, key: str, limiter: RateLimiter, refusal: BitDanceError | None
) -> tuple[Postpone | Fail, BitDanceError | None] | None:
    """Wait until a submission may be sent; or return why nothing more is sent.

    :param refusal: How the last submission of this image was refused.
    """
    if (waited := await _in_queue(context, key, limiter)) is not None:
        return Postpone(waited), refusal
    try:
        # A paused process may wake up after another has taken over: check before spending.
        await context.check_unchanged()
    except RecordError as error:
        return Fail(), error
    if context.coordination.killed.is_set():
        return Fail(), TaskKilledError("Airflow stopped the task, so nothing more is bought")
    if limiter.is_closed:
        return (Fail(), refusal) if refusal is not None else (Postpone(0.0), None)
    return None


async def _in_queue(context: JobContext, key: str, limiter: RateLimiter) -> float | None:
    """Wait for the limiter to admit one more submission, or for the end of the process.

    :return: Seconds for which the account takes none, if they are worth a deferral or the time is over.
    """
    since, deadline = context.clock.time(), context.journal.state.deadline
    longest = min(context.policy.break_even, max(deadline - since, SHORT_WAIT))
    limiter.queued.add(key)
    while wait := limiter.until_turn(now=context.clock.time()):
        # A place is free when a prediction of ours ends, and nobody knows when that is.
        waited = context.clock.time() - since
        if max(wait, waited) >= longest:
            return max(wait, waited)
        # Who has waited for a minute need not ask twenty times a second.
        pause = max(wait, min(waited / 100, 1.0))
        await context.clock.wait_for(context.coordination.killed, pause)
        if context.coordination.killed.is_set():
            break
    limiter.queued.discard(key)
    return None


def take(context: JobContext, prediction: Prediction) -> None:
    """Take a prediction for what it was submitted for.

    :raises GarbledResponseError: It is known already, so the response is that to another submission: a cache
        before the API has repeated it.
    """
    taken = context.coordination.taken
    if prediction.id in taken or context.journal.state.knows(prediction.id):
        raise GarbledResponseError(
            f"The response to a submission names prediction {prediction.id}, which was bought before",
            fix="Check whether a proxy between this worker and the API caches responses",
            paid=Paid.POSSIBLY,
        )
    taken.add(prediction.id)


async def _post(
    context: JobContext, image: ImageState, limiter: RateLimiter, *, sent_at: float
) -> Prediction | BitDanceError:
    """Send one POST, and return what came back."""
    try:
        with noting_response(context, limiter, sent_at=sent_at):
            prediction = await context.client.submit(image.plan.request)
            take(context, prediction)
    except BitDanceError as error:
        return error
    return prediction


@contextlib.contextmanager
def noting_response(context: JobContext, limiter: RateLimiter, *, sent_at: float) -> Iterator[None]:
    """Send one POST within, and take its response: the limiter learns from what comes back.

    :param sent_at: Unix time at which it is sent.
    """
    try:
        yield
    except RateLimitError as error:
        now = context.clock.time()
        limiter.refused(sent_at=sent_at, now=now, requested=error.retry_after, draw=random.random())
        raise
    except BaseException:
        limiter.lost(now=context.clock.time())
        raise
    limiter.accepted(now=context.clock.time())
    context.notices.reached()
    context.notices.accepted(now=context.clock.time(), window=limiter.found_window)
