"""Output: fetches what a completed prediction has made, bounded in size and time, and checks it. Free."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.exceptions import OutputError, OutputExpiredError
from airflow_provider_bitdance.imaging.label import NotLabelledError, label
from airflow_provider_bitdance.imaging.validation import ValidImage, validate_image
from airflow_provider_bitdance.wavespeed.models import largest_file
from airflow_provider_bitdance.wavespeed.responses import Prediction

__all__ = ["KEPT_BY_WAVESPEED", "fetch_output", "labelled"]

DOWNLOAD_SECONDS = 120.0
DOWNLOAD_PAUSES = (1.0, 3.0)
KEPT_BY_WAVESPEED = timedelta(days=7)


async def fetch_output(
    context: JobContext, prediction: Prediction, *, model: str, with_thumbnail: bool = False
) -> ValidImage:
    """Fetch the output of a completed prediction, and check that it is a whole image. Free.

    :param model: That it was bought of, which bounds its size.
    :param with_thumbnail: Make a small picture of it, too.
    :raises OutputError: It cannot be fetched, or is none.
    """
    if not prediction.outputs:
        raise OutputError(f"Prediction {prediction.id} is completed but has no output yet")
    url = prediction.outputs[0]
    try:
        valid = await context.retrying(
            lambda: _fetch_once(context, url, largest_file(model), with_thumbnail),
            pauses=DOWNLOAD_PAUSES,
            is_transient=lambda error: isinstance(error, OutputError) and error.retry_helps,
            until=context.coordination.killed,
        )
    except OutputError as error:
        if error.retry_helps:
            _raise_if_expired(context, prediction, error)
        raise
    if valid.trailing:
        context.log_image(
            "The output of prediction %s has %d bytes after the end of its image; they are kept",
            prediction.id,
            valid.trailing,
        )
    return valid


def labelled(context: JobContext, valid: ValidImage, model: str) -> ValidImage:
    """Return an image with the mark of AI-made media, where the policy wants it. Blocks.

    Where it cannot be written, the image is as it was received: it is paid for.

    :param model: That made it.
    """
    if context.policy.label is None:
        return valid
    try:
        data = label(valid.data, model=model)
    except NotLabelledError as error:
        context.notices.not_labelled(str(error))
        return valid
    return valid if data is valid.data else replace(valid, data=data, sha256_received=valid.sha256)


async def _fetch_once(context: JobContext, url: str, max_bytes: int, with_thumbnail: bool) -> ValidImage:
    file = BytesIO()
    try:
        async with asyncio.timeout(DOWNLOAD_SECONDS):
            await context.client.download(url, file, max_bytes=max_bytes)
    except TimeoutError:
        raise OutputError(f"The download took longer than {DOWNLOAD_SECONDS:.0f} s") from None
    data = file.getvalue()
    return await asyncio.to_thread(validate_image, data, with_thumbnail=with_thumbnail)


def _raise_if_expired(context: JobContext, prediction: Prediction, error: OutputError) -> None:
    made = prediction.created_at
    if made is None or context.clock.time() - made.timestamp() < KEPT_BY_WAVESPEED.total_seconds():
        return
    raise OutputExpiredError(
        f"The output of prediction {prediction.id} is older than {KEPT_BY_WAVESPEED.days} days: {error.what}",
        fix="Clear the task to buy the image again",
    ) from error
