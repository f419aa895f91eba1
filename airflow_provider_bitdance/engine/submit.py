"""Submit: buys what is planned, writing down before and after what it does. Runs on a worker only.

A POST is sent again only where the task certainly was not created: no connection was made, or the API said
429. A lost answer is written down as possibly paid and raised; the next try buys anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from airflow_provider_bitdance.api.answers import Prediction
from airflow_provider_bitdance.api.errors import (
    BitDanceError,
    NotSentError,
    Paid,
    RateLimitError,
    RecordError,
    StorageError,
    shorten,
)
from airflow_provider_bitdance.engine.bench import Bench
from airflow_provider_bitdance.engine.others import reserve
from airflow_provider_bitdance.journal import ImageState, Intended, Lost, NotCreated, Status, Submitted

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
CONNECTION_TRIES = 5
RECORD_PAUSES = (1.0, 3.0, 10.0)


async def buy(bench: Bench, image: ImageState) -> None:
    """Buy one image that is planned, or intended by this process; not if another task has bought it.

    :raises BitDanceError: It was not bought; the journal says whether it is possibly paid.
    """
    key = image.plan.key
    if image.status is not Status.INTENDED:
        if image.plan.named and not await reserve(bench, image):
            return
        await bench.write(Intended(keys=(key,)))
    try:
        prediction = await _post(bench, image)
    except BitDanceError as error:
        event = NotCreated if error.paid is Paid.NO else Lost
        # What happened to the money matters more than the store. Unwritten, the intent stands for a loss.
        with contextlib.suppress(RecordError):
            await bench.write(event(key=key, reason=error.what))
        raise
    await _record(bench, Submitted(key=key, prediction_id=prediction.id))
    bench.log.info(
        "Bought prediction %s, about $%.4g: %s, seed %d, %r",
        prediction.id,
        image.plan.estimated_cost_usd,
        image.plan.request.size,
        image.plan.request.seed,
        shorten(image.plan.request.prompt),
    )


async def _record(bench: Bench, bought: Submitted) -> None:
    """Write down what is bought, again and again for a while: unwritten, it would be bought twice."""
    now = bench.clock.time()
    for pause in (*RECORD_PAUSES, None):
        try:
            await asyncio.to_thread(bench.journal.append, now, bought)
            return
        except RecordError as error:
            if pause is None or not isinstance(error, StorageError):
                raise type(error)(
                    f"Prediction {bought.prediction_id} is bought and could not be recorded: {error.what}",
                    fix="Collect it by its id, or the next try buys it anew",
                    paid=Paid.YES,
                ) from error
            bench.log.warning("%s Trying again in %.0f s", error.what, pause)
        await bench.clock.sleep(pause)


async def _post(bench: Bench, image: ImageState) -> Prediction:
    """Send the POST until it is answered, where every earlier one certainly created nothing."""
    sent = 0
    while True:
        # A paused process may wake up after another has taken over: look before spending.
        await asyncio.to_thread(bench.journal.check_unchanged)
        try:
            return await bench.client.submit(image.plan.request)
        except (NotSentError, RateLimitError) as error:
            sent += 1
            pause = _pause(error, sent)
            late = bench.clock.time() + pause >= bench.journal.state.deadline
            if late or (isinstance(error, NotSentError) and sent >= CONNECTION_TRIES):
                raise
            bench.log.info("%s Trying again in %.0f s", error.what, pause)
        await bench.clock.sleep(pause)


def _pause(error: NotSentError | RateLimitError, sent: int) -> float:
    """Return the seconds before the next POST: growing and jittered, and what the API asks at least."""
    grown = min(FIRST_PAUSE * 2.0 ** (sent - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2)
    asked = error.retry_after if isinstance(error, RateLimitError) else None
    return max(grown, asked or 0.0)
