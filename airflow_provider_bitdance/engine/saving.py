"""Saving: stores what was bought without a journal. Free: a job that begins with its prediction.

The plan and the prediction are in one entry, so no process finds an image here that it could buy.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_bitdance.engine.context import JobContext, Wanted
from airflow_provider_bitdance.engine.destination_lock import DestinationLock
from airflow_provider_bitdance.engine.plan import planned_image
from airflow_provider_bitdance.engine.result import Finished, Waiting
from airflow_provider_bitdance.engine.run import run_job
from airflow_provider_bitdance.records import Adopted, Planned, Status
from airflow_provider_bitdance.wavespeed.responses import Prediction


async def save_prediction(context: JobContext, wanted: Wanted, prediction: Prediction) -> Finished | Waiting:
    """Wait for a prediction, and store its image as that of a job.

    :param context: Of a job of this prediction alone, whose policy replaces what is at the destination and
        buys nothing that has failed.
    :param wanted: What the prediction was requested with, and where its image goes.
    :raises InputError: Another task makes an image at this destination.
    :raises BitDanceError: As :func:`~airflow_provider_bitdance.engine.run_job`.
    """
    if not context.journal.state.images:
        await _adopt(context, wanted, prediction)
    image = context.journal.state.images[wanted.key]
    if image.status is Status.SUBMITTED:
        await DestinationLock(context).take(image)
    return await run_job(context, [wanted])


async def _adopt(context: JobContext, wanted: Wanted, prediction: Prediction) -> None:
    now, price = context.clock.time(), context.policy.price_of(wanted.request.model)
    # The seed is that of the prediction, or one that nobody knows: none is drawn.
    planned = planned_image(context, wanted, price or 0.0).model_copy(update={"request": wanted.request})
    await context.claim(
        now + context.policy.timeout,
        Planned(output=wanted.destination.folder, images=(planned,)),
        Adopted(
            key=wanted.key,
            request=wanted.request,
            prediction_id=prediction.id,
            submitted_at=prediction.created_at or datetime.fromtimestamp(now, UTC),
            bought_by=context.journal.job,
        ),
    )
