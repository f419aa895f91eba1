"""Failures: what went wrong with a job's images, how it is recorded, and what it means to the others."""

from __future__ import annotations

import asyncio

from airflow_provider_bitdance.engine.context import KEEP_OTHER_SIZE, JobContext
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    DestinationBusyError,
    FencedError,
    GarbledResponseError,
    InputError,
    LostResponseError,
    ModerationError,
    NsfwError,
    OutputError,
    OutputExpiredError,
    OutputRefusedError,
    PredictionError,
    PredictionFailedError,
    PredictionGoneError,
    PredictionRefusedError,
    RequestRefusedError,
    ServerError,
    SizeMismatchError,
    TaskKilledError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records import Failure, ImageState

ABOUT_ONE_IMAGE = (
    PredictionError,
    OutputError,
    RequestRefusedError,
    InputError,
    LostResponseError,
    GarbledResponseError,
    ServerError,
    UnconfirmedPurchaseError,
    DestinationBusyError,
)
"""Errors that say nothing about the other images of a job."""

_ERROR_OF: dict[Failure, type[PredictionError | OutputError]] = {
    Failure.FAILED: PredictionFailedError,
    Failure.REFUSED: PredictionRefusedError,
    Failure.MODERATED: ModerationError,
    Failure.NSFW: NsfwError,
    Failure.GONE: PredictionGoneError,
    Failure.EXPIRED: OutputExpiredError,
    Failure.UNSAFE: OutputRefusedError,
    Failure.SIZE: SizeMismatchError,
}
FAILURE_OF = {error: failure for failure, error in _ERROR_OF.items()}
"""By error, the word that the journal has for it."""


def recorded_error(context: JobContext, image: ImageState) -> PredictionError | OutputError:
    """Return the error that the journal has of an image that this try may not buy again."""
    failure = image.failure or Failure.FAILED
    fix = KEEP_OTHER_SIZE if failure is Failure.SIZE else "Clear the task to buy the image again"
    error = _ERROR_OF[failure](image.reason, fix=fix)
    if image.failure is not Failure.FAILED or not context.policy.retry_failed:
        return error.with_verdict(retry=False)
    return error


class Failures:
    """Keeps why images failed. One stops the others only where the policy says so.

    :param limiter: Of the job's purchases; closed when nothing more is bought.
    :param changed: Set when nothing more is bought.
    :ivar by_key: Why an image is not stored.
    :ivar stopped: Why nothing more is bought.
    """

    def __init__(self, context: JobContext, limiter: RateLimiter, changed: asyncio.Event) -> None:
        self.by_key: dict[str, BitDanceError] = {}
        self.stopped: Exception | None = None
        self._context = context
        self._limiter = limiter
        self._changed = changed

    def add(self, key: str, error: Exception) -> None:
        """Take note of an image that failed, and decide what that means to the others.

        An unexpected error stops the buying, too, and no more than that: to drop what is under way would lose
        its responses.
        """
        if not isinstance(error, ABOUT_ONE_IMAGE):
            self.stop(error)
            return
        self.by_key[key] = error
        policy = self._context.policy
        counted = policy.counted(self.by_key)
        if key in counted and (policy.on_item_failure == "fail_fast" or policy.are_too_many(counted)):
            self.stop(error)

    def stop(self, error: Exception) -> None:
        """Buy nothing more. The first reason counts, unless a later one says that another process has the job
        now."""
        is_fenced = isinstance(error, FencedError) and not isinstance(self.stopped, FencedError)
        if self.stopped is None or is_fenced:
            self.stopped = error
            if is_fenced:  # the process that has the job now stores what is bought
                self._context.log.warning("Another process has taken over this task. Stopping here")
            elif isinstance(error, TaskKilledError):
                self._context.log.warning("%s. Storing what is ready, then stopping", error.what)
            elif self._limiter.in_flight or self._limiter.started:
                what = error.what.rstrip(".") if isinstance(error, BitDanceError) else type(error).__name__
                self._context.log.warning(
                    "%s. Buying nothing more; storing what is already bought first", what
                )
        self._limiter.is_closed = True
        self._changed.set()
