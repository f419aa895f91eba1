"""Run: the one way into a job. Folds the journal and does only what is missing."""

from __future__ import annotations

import asyncio
import contextlib

from airflow_provider_bitdance.engine.budget import count_todays_prices
from airflow_provider_bitdance.engine.charges import with_charges_of_one
from airflow_provider_bitdance.engine.context import MANY, JobContext, Wanted
from airflow_provider_bitdance.engine.dispatcher import Dispatcher
from airflow_provider_bitdance.engine.failures import recorded_error
from airflow_provider_bitdance.engine.memory import return_large_buffers
from airflow_provider_bitdance.engine.plan import plan
from airflow_provider_bitdance.engine.result import Finished, Waiting, job_result
from airflow_provider_bitdance.engine.takeover import check_is_latest
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError, RecordError
from airflow_provider_bitdance.records import Status
from airflow_provider_bitdance.records.events import Claimed, Event
from airflow_provider_bitdance.redaction import shorten

CLAIM_TRIES = 5


async def run_job(context: JobContext, wanted: list[Wanted]) -> Finished | Waiting:
    """Move every image of the job forward.

    :param context: Handles, with the journal loaded.
    :param wanted: What the user requests now; if the job has a plan, it is only compared with it for the log.
    :raises BitDanceError: See its class: does a retry help, and may an image be paid for?
    """
    _warn_if_changed(context, wanted)
    if len(wanted) > MANY:
        return_large_buffers()
    try:
        left_open = await _claim(context, wanted)
        dispatcher = Dispatcher(context)
        await dispatcher.run(left_open=left_open)
        # A process that slept through this one's claim may have left a note of what it bought. Where it
        # cannot be read now, the next process and reconcile read it.
        with contextlib.suppress(RecordError):
            await asyncio.to_thread(context.journal.read_notes)
        outcome = await job_result(context, dispatcher)
        if isinstance(outcome, Finished):
            if outcome.errors and not context.policy.is_batch:
                raise outcome.errors[0]
            await _release(context, outcome.errors)
        return outcome
    except BitDanceError as error:
        await _release(context, [error])
        raise with_charges_of_one(error, context.journal.state) from error.__cause__


async def _release(context: JobContext, errors: list[BitDanceError]) -> None:
    """Say in the journal that a task is over that has images to buy, where Airflow will not run it again.

    Otherwise other tasks would consider it at work, and leave it its destinations until its deadline. A task
    with a paid image in flight keeps them until then, so that the image can be stored.
    """
    state, ours = context.journal.state, context.journal.owner
    is_bought = bool(state.having(Status.INTENDED, Status.SUBMITTED))
    is_ours = state.owner is not None and state.owner.token == ours.token
    comes_back = ours.has_tries_left and any(error.retry_helps for error in errors)
    if state.has_work and is_ours and not is_bought and not comes_back:
        # What ended the task is what the user has to see.
        with contextlib.suppress(BitDanceError):
            await context.write(Claimed(deadline=0.0))


async def _claim(context: JobContext, wanted: list[Wanted]) -> bool:
    """Become the job's owner, with the plan where there is none, and the first intent.

    :return: Whether there are intents of another process, whose responses nobody has seen.
    """
    for _ in range(CLAIM_TRIES):
        state = context.journal.state
        _check_not_replaced(context)
        deadline = _deadline(context)
        ours, last = context.journal.owner, state.owner
        if state.images and (last is None or last.try_number != ours.try_number):
            await asyncio.to_thread(check_is_latest, context)
        if not context.policy.is_batch:
            for image in state.having(Status.FAILED):
                if context.has_failed(image):
                    raise recorded_error(context, image)
        left_open = bool(state.having(Status.INTENDED))
        events: list[Event] = []
        if state.images:
            await count_todays_prices(context)
        else:  # a later process first has to see what the account takes
            events = await plan(context, wanted)
        try:
            await context.claim(deadline, *events)
        except FencedError:
            # Somebody wrote between our read and our claim: read again, then claim what is left.
            await asyncio.to_thread(context.journal.load)
        else:
            return left_open
    raise FencedError(f"Too many processes are trying to claim the job {context.journal.uri}")


def _deadline(context: JobContext) -> float:
    """Return the Unix time at which this try ends; a resume after a deferral is the same try."""
    state, ours = context.journal.state, context.journal.owner
    last = state.owner
    is_same_try = last is not None and last.is_of_same_try(ours)
    latest = context.clock.time() + context.policy.timeout
    return min(state.deadline, latest) if is_same_try and state.deadline else latest


def _check_not_replaced(context: JobContext) -> None:
    """A process that slept through a retry or a clear, and wakes up before its claim, must not claim back.

    It began before the newer try wrote its last entry. A run that was deleted and made again did not: it has
    low numbers, too, and goes on with the job.
    """
    ours, state = context.journal.owner, context.journal.state
    last = state.owner
    if last is None or not last.job.same_task(ours.job) or context.started_at > state.time:
        return
    if last.try_number > ours.try_number:
        raise FencedError(f"Try {last.try_number} of this task has taken over the job {context.journal.uri}")


def _warn_if_changed(context: JobContext, wanted: list[Wanted]) -> None:
    """Say so where the fields render to other requests than those that this job has planned."""
    images, host = context.journal.state.images, context.client.settings.host
    changed = [
        item
        for item in wanted
        if item.key in images and images[item.key].plan.fingerprint != item.fingerprint(host)
    ]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        planned = images[changed[0].key].plan
        context.log.warning(
            "The task now requests %r, but its plan says %r%s. Following the plan; to "
            "get the new image, clear the task after it ends",
            shorten(changed[0].request.prompt),
            shorten(planned.asked.prompt),
            more,
        )
