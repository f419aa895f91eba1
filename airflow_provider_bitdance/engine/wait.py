"""Wait: looks at predictions until they end. Only reads, so worker and trigger share it and may both run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from airflow_provider_bitdance.api.answers import Prediction
from airflow_provider_bitdance.api.client import AsyncClient
from airflow_provider_bitdance.api.errors import (
    BitDanceError,
    NotFoundError,
    RateLimitError,
)
from airflow_provider_bitdance.engine.bench import Clock
from airflow_provider_bitdance.polling import PollSchedule


async def watch(
    client: AsyncClient,
    pending: Mapping[str, float],
    *,
    until: float,
    poll: PollSchedule,
    clock: Clock,
) -> dict[str, Prediction]:
    """Look at predictions until each has ended or the time is over. Free.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param until: Unix time of the last look.
    :return: The predictions that ended, by id; one that the API no longer knows as "deleted".
    :raises BitDanceError: Looking failed for good, or too often one after another.
    """
    try:
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(
                    watch_one(
                        client, prediction_id, submitted_at, until=lambda: until, poll=poll, clock=clock
                    )
                )
                for prediction_id, submitted_at in pending.items()
            ]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {found.id: found for look in looks if (found := look.result()) is not None}


async def watch_one(
    client: AsyncClient,
    prediction_id: str,
    submitted_at: float,
    *,
    until: Callable[[], float],
    poll: PollSchedule,
    clock: Clock,
) -> Prediction | None:
    """Look at one prediction until it has ended or the time is over; then there is none. Free.

    :param submitted_at: Unix time.
    :param until: Returns the Unix time of the last look, which may change meanwhile.
    :raises BitDanceError: Looking failed for good, or too often one after another.
    """
    failures = 0
    asked = 0.0
    pause = poll.first(age=clock.time() - submitted_at)
    while True:
        left = until() - clock.time()
        if left < pause and left < max(poll.interval, asked) and pause > 0:
            return None  # so little time is left that a look would come too soon after the last one
        await clock.sleep(min(pause, max(left, 0.0)))
        asked = 0.0
        try:
            prediction = await client.get_prediction(prediction_id)
        except BitDanceError as error:
            failures += 1
            if isinstance(error, NotFoundError):
                # A prediction just made may be unknown for a moment, and one 404 may be a gateway's.
                if clock.time() - submitted_at > poll.not_found_grace and failures > 1:
                    return Prediction(id=prediction_id, status="deleted", error="the API does not know it")
            elif not error.retry_helps or failures >= poll.failures:
                raise
            asked = (isinstance(error, RateLimitError) and error.retry_after) or 0.0
        else:
            failures = 0
            if prediction.is_terminal:
                return prediction
        age = clock.time() - submitted_at
        pause = poll.pause(age=age, draw=random.random(), failures=failures, asked=asked)
