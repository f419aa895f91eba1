"""Download: fetches what is completed, checks it, and writes file, receipt and journal, in this order.

So a receipt means that the file is there, and the journal's "stored" that both are. Each step may be done
again by a later try; none of them costs money.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.engine.context import FEW_IMAGES, JobContext
from airflow_provider_bitdance.engine.decisions import Refusal, Refuse
from airflow_provider_bitdance.engine.destination_lock import refusal_of, take_back
from airflow_provider_bitdance.engine.failures import FAILURE_OF
from airflow_provider_bitdance.engine.output import fetch_output, labelled
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.exceptions import (
    InputError,
    NsfwError,
    OutputError,
    OutputExpiredError,
    OutputRefusedError,
    PredictionError,
    PredictionFailedError,
    SizeMismatchError,
)
from airflow_provider_bitdance.imaging.validation import ValidImage
from airflow_provider_bitdance.records import Failed, ImageState, PlannedImage, Stored
from airflow_provider_bitdance.records.integrity import is_intact
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.storage import uri_of
from airflow_provider_bitdance.wavespeed.models import is_other_size
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from airflow_provider_bitdance.wavespeed.responses import Prediction


async def collect_output(
    context: JobContext,
    image: ImageState,
    prediction: Prediction,
    *,
    place: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> Receipt:
    """Store the image of a prediction that ended, and return its receipt; or write down why there is none.

    :param place: Entered while an image is fetched, checked and written.
    :raises PredictionError: The prediction ended without an image, or with one that may not be kept.
    :raises SizeMismatchError: The image is stored with its receipt, and may not be the result.
    :raises OutputError: The image could not be fetched; it is paid for, and collectable if a retry helps.
    """
    try:
        _check_is_ours(image, prediction)
        _check_ended_well(context, image, prediction)
        is_vacant = image.plan.key in context.coordination.vacant
        receipt = None if is_vacant else await asyncio.to_thread(_receipt_of_this, context, image)
        if receipt is None:
            async with place():
                receipt = await _fetch_and_store(context, image, prediction)
        context.check_allowed(receipt)
    except (PredictionError, OutputExpiredError, OutputRefusedError, SizeMismatchError) as error:
        await context.write(Failed(key=image.plan.key, failure=FAILURE_OF[type(error)], reason=error.what))
        if isinstance(error, PredictionFailedError) and not context.policy.retry_failed:
            words = "A retry does not buy it again, because retry_failed is off."
            raise error.with_verdict(retry=False, retry_in_words=words) from error.__cause__
        raise
    await _note_stored(context, image, receipt)
    return receipt


async def _fetch_and_store(context: JobContext, image: ImageState, prediction: Prediction) -> Receipt:
    model, wants = image.plan.request.model, context.thumbnails.wants_more()
    valid = await fetch_output(context, prediction, model=model, with_thumbnail=wants)
    try:
        receipt = await asyncio.to_thread(_store, context, image, prediction, valid)
    except InputError:
        if not await take_back(context, image):
            raise
        receipt = await asyncio.to_thread(_store, context, image, prediction, valid)
    if not receipt.nsfw:
        context.thumbnails.take(image.plan.key, valid.thumbnail)
    return receipt


async def _note_stored(context: JobContext, image: ImageState, receipt: Receipt) -> None:
    """Write into the journal that an image is stored, and tell the user."""
    destination = context.destination_of(image.plan)
    bought_here = image.bought_by is None or image.bought_by.same_task(context.journal.job)
    await context.write(
        Stored(key=image.plan.key, receipt=context.receipts.uri(destination), reused=not bought_here)
    )
    context.log_image(
        "Stored %d x %d pixels, %d bytes, %.1f s after the purchase: %s",
        receipt.width,
        receipt.height,
        receipt.bytes,
        (receipt.stored_at - receipt.submitted_at).total_seconds(),
        receipt.uri,
    )


def _check_is_ours(image: ImageState, prediction: Prediction) -> None:
    """Make sure that what the API echoes, where it does, is not another request.

    :raises OutputError: It is. Nothing is written down: a retry polls the prediction again.
    """
    if proof_of(prediction, image.plan.request) is Proof.ANOTHER:
        raise OutputError(
            f"The response for prediction {prediction.id} shows a different prompt or seed than was bought",
            fix="Check whether a proxy between this worker and the API caches responses",
        )


def _check_ended_well(context: JobContext, image: ImageState, prediction: Prediction) -> None:
    if not prediction.is_completed:
        raise failure_of(prediction, prompt=image.plan.request.prompt)
    if prediction.is_nsfw and context.policy.nsfw != "allow":
        raise NsfwError(
            f"The image of prediction {prediction.id} is flagged as not safe for work",
            fix='Change the prompt, or set nsfw="allow" and clear the task to keep it',
        )


def _receipt_of_this(context: JobContext, image: ImageState) -> Receipt | None:
    """Return the receipt that an earlier process wrote for this very prediction, if its file is whole."""
    receipt = context.receipts.find(context.destination_of(image.plan))
    if receipt is None or receipt.prediction_id != image.prediction_id:
        return None
    return receipt if is_intact(context.images, receipt) else None


def _store(context: JobContext, image: ImageState, prediction: Prediction, valid: ValidImage) -> Receipt:
    """Label and keep an image, in one go: each hop between threads has its price. Blocks."""
    valid = labelled(context, valid, image.plan.request.model)
    return keep(context, image, _new_receipt(context, image, prediction, valid), valid.data)


def keep(context: JobContext, image: ImageState, made: Receipt, data: bytes) -> Receipt:
    """Write the file, then its receipt. Blocks.

    A process that slept through a clear must not put its old image, or receipt, over the new one. Where
    nothing was, both are created, and the store refuses them if something is there by now: that needs no
    read. Only then, and where something was, it is read first whose destination it is.

    :param made: The receipt to be; its time and its reservation are filled in.
    """
    destination, vacant = context.destination_of(image.plan), context.coordination.vacant
    if image.plan.key in vacant:
        vacant.discard(image.plan.key)
        if context.coordination.creates and _is_within_lease(context):
            number = context.coordination.reserved.get(image.plan.key, 0)
            with contextlib.suppress(FileExistsError):
                context.images.create(made.file, data)
                receipt = _stored_now(context, made, reservation=number)
                context.receipts.create(destination, receipt)
                return receipt
    return _replace(context, image, made, data)


def _replace(context: JobContext, image: ImageState, made: Receipt, data: bytes) -> Receipt:
    """Write the file and its receipt where others may be. The receipt of an image that is replaced is
    withdrawn first.

    The journal and the reservation are read before each write. A sleep within the write itself cannot be
    excluded; then the size and hash of the receipt show that the file is not its own.
    """
    destination = context.destination_of(image.plan)
    replaced = context.receipts.find(destination)
    context.journal.check_unchanged()
    number = _check_destination_is_ours(context, image, known=replaced.reservation if replaced else 0)
    if replaced is not None and replaced.prediction_id != made.prediction_id:
        context.receipts.withdraw(destination)
    _warn_of_unknown_file(context, made, replaced)
    context.images.replace(made.file, data)
    receipt = _stored_now(context, made, reservation=number)
    context.journal.check_unchanged()
    _check_destination_is_ours(context, image, known=number)
    context.receipts.write(destination, receipt)
    if replaced is not None and replaced.file != made.file:
        context.images.remove(replaced.file)
    return receipt


def _is_within_lease(context: JobContext) -> bool:
    """Say whether no other task may have taken a destination that this job has reserved."""
    state, now = context.journal.state, context.clock.time()
    return now + CLOCK_MARGIN < state.lease_end(now - CLOCK_MARGIN)


def _check_destination_is_ours(context: JobContext, image: ImageState, *, known: int = 0) -> int:
    """Return the number of the reservation under which an image may be stored; 0 if none is needed.

    :param known: Number of a reservation that is known to be there.
    :raises InputError: Another task has taken the destination for another image meanwhile.
    :raises FencedError: So has this iteration of a loop, begun again by a clear.
    """
    if not image.plan.named:
        return 0
    reserved, key = context.coordination.reserved, image.plan.key
    destination, seen = context.destination_of(image.plan), reserved.get(key, 0)
    held = context.reservations.last(destination, known=known, after=seen)
    if held is None:
        return seen
    if held.writer.job.replaces(context.journal.job):
        raise context.journal.fenced()
    if held.fingerprint != image.plan.fingerprint:
        raise refusal_of(context, image, held.writer.job, Refuse(Refusal.IN_USE))
    reserved[key] = held.number
    return held.number


def _stored_now(context: JobContext, made: Receipt, *, reservation: int) -> Receipt:
    stored_at = datetime.fromtimestamp(context.clock.time(), UTC)
    return made.model_copy(update={"reservation": reservation, "stored_at": stored_at})


def _warn_of_unknown_file(context: JobContext, made: Receipt, replaced: Receipt | None) -> None:
    """Say so where a file is replaced that no receipt knows. Of many images that is not looked for."""
    is_known = replaced is not None and replaced.file == made.file
    if is_known or len(context.journal.state.images) > FEW_IMAGES:
        return
    if context.images.size(made.file) is not None:
        context.log.warning("Replacing %s, a file without a receipt", made.uri)


def record_of(context: JobContext, plan: PlannedImage, valid: ValidImage) -> dict[str, Any]:
    """Return what a receipt says of the file itself."""
    file = context.destination_of(plan).file_name(valid.media_type)
    return {
        "uri": uri_of(context.images, file),
        "file": file,
        "width": valid.width,
        "height": valid.height,
        "size_differs": is_other_size(plan.request.size, valid.width, valid.height),
        "media_type": valid.media_type,
        "bytes": len(valid.data),
        "sha256": valid.sha256,
        "sha256_received": valid.sha256_received,
    }


def _new_receipt(
    context: JobContext, image: ImageState, prediction: Prediction, valid: ValidImage
) -> Receipt:
    """Return the receipt of an image that is about to be stored."""
    return Receipt(
        **record_of(context, image.plan, valid),
        prediction_id=prediction.id,
        request=image.plan.request,
        seed_asked=image.plan.seed_asked,
        prompt_asked=image.plan.prompt_asked,
        enhancement=image.plan.enhancement,
        fingerprint=image.plan.fingerprint,
        nsfw=prediction.is_nsfw,
        inference_ms=prediction.inference_ms,
        estimated_cost_usd=image.plan.estimated_cost_usd,
        possibly_paid=image.possibly_paid,
        submitted_at=datetime.fromtimestamp(image.submitted_at, UTC),
        stored_at=datetime.fromtimestamp(context.clock.time(), UTC),
        writer=context.journal.owner,
    )
