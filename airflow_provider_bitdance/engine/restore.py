"""Restore: stores an image once more whose file is gone or was changed. Free.

A receipt names its prediction, and WaveSpeed keeps outputs for 7 days: for so long a lost file is fetched
again, and not bought again. Only for a job that has the destination: nobody else writes there meanwhile.
"""

from __future__ import annotations

import asyncio

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.download import keep, record_of
from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED, fetch_output, labelled
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.exceptions import (
    OutputError,
    OutputExpiredError,
    OutputRefusedError,
)
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.records import ImageState
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.responses import Prediction

PATIENCE = 10.0
"""Seconds to wait for a prediction that has ended long ago: a poll may fail and be repeated."""


async def restore(context: JobContext, image: ImageState, receipt: Receipt) -> Receipt | None:
    """Store the image of a receipt once more, and return its new receipt; nothing where WaveSpeed has it not.

    :param receipt: Of the image's destination, for the same request; its file is not as it was stored.
    :raises NsfwError: The image is flagged, and the policy is not to keep such images.
    :raises SizeMismatchError: The image has another size than was requested, and the policy is to fail then.
    :raises OutputError: It could not be fetched this time.
    :raises BitDanceError: It could not be stored.
    """
    context.check_allowed(receipt)
    if context.clock.time() - receipt.submitted_at.timestamp() >= KEPT_BY_WAVESPEED.total_seconds():
        return None
    try:
        prediction = await _prediction_of(context, receipt)
        if not prediction.is_completed or proof_of(prediction, receipt.request) is Proof.ANOTHER:
            return None
        valid = await fetch_output(context, prediction, model=image.plan.request.model)
        valid = await asyncio.to_thread(labelled, context, valid, image.plan.request.model)
    except (OutputExpiredError, OutputRefusedError):
        return None
    except OutputError as error:
        raise OutputError(
            f"{receipt.uri} is missing or has changed, and could not be fetched again: {error.what}",
            fix='To buy a new image instead, set if_exists="regenerate"',
        ) from error.__cause__
    made = receipt.model_copy(update=record_of(context, image.plan, valid) | {"nsfw": prediction.is_nsfw})
    restored = await asyncio.to_thread(keep, context, image, made, valid.data)
    context.log_image("Restored %s from prediction %s; nothing is bought", restored.uri, prediction.id)
    return restored


async def _prediction_of(context: JobContext, receipt: Receipt) -> Prediction:
    """Return the prediction of a receipt; one that the account does not know is "deleted"."""
    id_ = receipt.prediction_id
    poller = Poller(context.client, policy=context.policy.poll, clock=context.clock)
    until = context.clock.time() + PATIENCE
    ended = await wait_for(poller, {id_: receipt.submitted_at.timestamp()}, until=until)
    if id_ not in ended:
        outage = f": {poller.outage.what}" if poller.outage else ""
        raise OutputError(f"WaveSpeed did not return the final status of prediction {id_}{outage}")
    return ended[id_]
